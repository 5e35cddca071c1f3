package bootstrap

import (
	"context"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// AddonsReadyStep is the name of the step that waits for the add-ons' pods, after the node is
// Ready: what does not tolerate a node without a network can run only then. Whoever applies it
// need not hold the host's lock.
const AddonsReadyStep = "addons/ready"

// AddonsReady makes the step "addons/ready": what the manifests of Addons describe is rolled
// out, complete and established. It waits for that, and tells meanwhile how far it is and why a
// pod does not come up.
func AddonsReady(h *host.Host, paths []string, wait time.Duration, connect func() (*kube.Client, error)) step.Step {
	a := addons{host: h, paths: paths, connect: connect}
	check := func(ctx context.Context) ([]step.Change, error) {
		differences, err := a.ask(ctx, (*kube.Client).Rollouts)
		if kube.IsNotFound(err) {
			return nil, step.Blocked{On: AddonsStep}
		}
		if err != nil {
			return nil, err
		}
		return changes(differences, "rolled out"), nil
	}
	return step.Step{Name: AddonsReadyStep, Check: check, Wait: wait}
}
