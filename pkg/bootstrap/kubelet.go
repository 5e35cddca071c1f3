package bootstrap

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	kubeletUnit   = "kubelet.service"
	kubeletConfig = "/var/lib/kubelet/config.yaml"
)

// Units is what the steps need of systemd; *systemd.Conn is the real one.
type Units interface {
	State(ctx context.Context, unit string) (systemd.State, error)
	Enable(ctx context.Context, unit string) error
	Start(ctx context.Context, unit string) error
	RunTransient(ctx context.Context, t systemd.Transient) (systemd.Result, error)
}

// Kubelet makes the step "kubelet": enabled, and running once kubeadm has configured it.
// Before that it has nothing to run with, and kubeadm starts it itself. managed says that the
// agent installs packages: the step then waits for the one that is missing.
func Kubelet(h *host.Host, units Units, managed bool) step.Step {
	check := func(ctx context.Context) ([]step.Change, error) {
		if h.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		state, err := units.State(ctx, kubeletUnit)
		if err != nil {
			return nil, err
		}
		if state.LoadState == "not-found" && managed {
			return nil, fmt.Errorf("%w: no %s", step.Blocked{On: PackagesStep}, kubeletUnit)
		}
		if state.LoadState != "loaded" {
			return nil, fmt.Errorf("find %s: it is %s; install the package kubelet", kubeletUnit, state.LoadState)
		}
		var changes []step.Change
		if state.UnitFileState != "enabled" {
			changes = append(changes, step.Change{Subject: kubeletUnit, Have: state.UnitFileState, Want: "enabled"})
		}
		configured, err := h.Exists(kubeletConfig)
		if err != nil {
			return nil, err
		}
		// "activating" is a kubelet that systemd restarts: starting it once more mends nothing.
		if configured && state.ActiveState != "active" && state.ActiveState != "activating" {
			changes = append(changes, step.Change{Subject: kubeletUnit, Have: state.ActiveState, Want: "active"})
		}
		return changes, nil
	}
	apply := func(ctx context.Context) error {
		if err := units.Enable(ctx, kubeletUnit); err != nil {
			return err
		}
		configured, err := h.Exists(kubeletConfig)
		if err != nil || !configured {
			return err
		}
		return units.Start(ctx, kubeletUnit)
	}
	return step.Step{Name: "kubelet", Check: check, Apply: apply}
}
