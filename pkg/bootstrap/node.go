package bootstrap

import (
	"context"
	"errors"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// NodeReadyStep is the name of the step that only waits: whoever applies it need not hold the
// host's lock.
const NodeReadyStep = "node/ready"

// NodeReady makes the step "node/ready": the API says that the node is Ready. It waits for that,
// and tells meanwhile which conditions are in the way, and the kubelet's last error.
func NodeReady(h *host.Host, name string, wait time.Duration, connect func() (*kube.Client, error)) step.Step {
	why := diagnosis{host: h, node: name}
	check := func(ctx context.Context) ([]step.Change, error) {
		if h.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		member, err := h.Exists(KubeletConf)
		if err != nil {
			return nil, err
		}
		if !member {
			return nil, step.Blocked{On: WaitStep}
		}
		others, err := nodeReady(ctx, name, connect)
		if err == nil {
			why.forget()
			return nil, nil
		}
		changes := append([]step.Change{{Subject: "node " + name, Have: err.Error(), Want: "Ready"}}, others...)
		return append(changes, why.changes(ctx)...), nil
	}
	return step.Step{Name: NodeReadyStep, Check: check, Wait: wait}
}

// nodeReady is nil for a node that is Ready, and else says why it is not, and which other
// conditions are not as they should be.
func nodeReady(ctx context.Context, name string, connect func() (*kube.Client, error)) ([]step.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	client, err := connect()
	if err != nil {
		return nil, err
	}
	node, err := client.Node(ctx, name)
	if err != nil {
		return nil, err
	}
	ready := node.Ready()
	if !ready.True() {
		return conditions(node.Conditions), errors.New("not Ready: " + ready.Reason + ": " + ready.Message)
	}
	return nil, nil
}
