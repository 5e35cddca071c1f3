package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// RuntimeConfigStep is the name of the step that refuses a containerd for being too old.
const RuntimeConfigStep = "containerd/runtime-config"

// runtimeConfigMinor is the first minor whose kubelet is not put on a container runtime without
// the CRI's RuntimeConfig. 1.37.0 still takes its own cgroupDriver there, and announces that
// 1.38 does not start; so a node of 1.37 on such a runtime would be one that cannot be upgraded.
const runtimeConfigMinor = 37

// RuntimeConfig makes the step "containerd/runtime-config", which changes nothing: containerd
// tells the kubelet its cgroup driver. It is part of preflight, and comes after the step
// "containerd" because it is the running daemon that is asked. The check goes by kubeadm's name,
// ContainerRuntimeVersion; named in ignore it is a finding.
func RuntimeConfig(h *host.Host, ignore []string) step.Step {
	const check = "ContainerRuntimeVersion"
	return step.Step{Name: RuntimeConfigStep, Check: func(ctx context.Context) ([]step.Change, error) {
		if h.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		name, driver, err := kube.AskCgroupDriver(ctx, h, containerdSocket)
		switch {
		case errors.Is(err, kube.ErrNoRuntimeConfig):
			return []step.Change{{
				Subject: check, Have: name + ", which has no RuntimeConfig in its CRI", Manual: slices.Contains(ignore, check),
				Want: "containerd 2.0 or newer (packages.containerd: containerd.io, of Docker's repository), or packages.kubernetesVersion 1.36",
			}}, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil: // not installed, not running, or not answering yet
			return nil, fmt.Errorf("%w: %w", step.Blocked{On: "containerd"}, err)
		case driver != cgroupDriver:
			return nil, fmt.Errorf("%w: %s has the cgroup driver %s", step.Blocked{On: "containerd"}, name, driver)
		}
		return nil, nil
	}}
}
