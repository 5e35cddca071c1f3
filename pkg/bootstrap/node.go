package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// readyTimeout is how long a node may take to become Ready once its network is there.
const readyTimeout = 10 * time.Minute

// NodeReadyStep is the name of the step that only waits: whoever applies it need not hold the
// host's lock.
const NodeReadyStep = "node/ready"

// NodeReady makes the step "node/ready": the API says that the node is Ready. Its Apply waits.
func NodeReady(h *host.Host, name string, connect func() (*kube.Client, error)) step.Step {
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
		if err := nodeReady(ctx, name, connect); err != nil {
			return []step.Change{{Subject: "node " + name, Have: err.Error(), Want: "Ready"}}, nil
		}
		return nil, nil
	}
	apply := func(ctx context.Context) error {
		err := poll(ctx, readyTimeout, func(ctx context.Context) error { return nodeReady(ctx, name, connect) })
		if err != nil {
			return fmt.Errorf("wait for node %s to be Ready: %w", name, err)
		}
		return nil
	}
	return step.Step{Name: NodeReadyStep, Check: check, Apply: apply}
}

// nodeReady is nil for a node that is Ready, and else says why it is not.
func nodeReady(ctx context.Context, name string, connect func() (*kube.Client, error)) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	client, err := connect()
	if err != nil {
		return err
	}
	defer client.Close()
	node, err := client.Node(ctx, name)
	if err != nil {
		return err
	}
	ready := node.Ready()
	if !ready.True() {
		return errors.New("not Ready: " + ready.Reason + ": " + ready.Message)
	}
	return nil
}
