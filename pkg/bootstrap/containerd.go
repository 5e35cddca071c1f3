package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	containerdUnit = "containerd.service"
)

// containerdUnits is what the step needs of systemd; *systemd.Conn is the real one.
type containerdUnits interface {
	State(ctx context.Context, unit string) (systemd.State, error)
	Enable(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	DaemonReload(ctx context.Context) error
}

// ContainerdDeps is what the step "containerd" works on and towards.
type ContainerdDeps struct {
	Host  *host.Host
	Units containerdUnits
	// Pause is the sandbox image that the kubelet of this minor has.
	Pause  string
	Config ContainerdConfig
	// NoProxy are the cluster's own names and addresses, which go through no proxy.
	NoProxy func(context.Context) ([]string, error)
	// Installer is the name of the step that installs containerd, "" where none does.
	Installer string
}

type containerd struct{ ContainerdDeps }

// Containerd makes the step "containerd": containerd is enabled and runs with the systemd
// cgroup driver in each runtime that is runc's, the sandbox image of Kubernetes, its plugin
// directory, and the proxy that was asked for.
//
// What containerd would read is asked of `containerd config dump`. What is otherwise goes into
// a drop-in of ours on containerd 2, and into the operator's file on 1.x, whose drop-ins make
// it forget that file's settings. Before either takes its place containerd reads it, and
// nothing else may have changed. What runs is asked of the daemon itself, over the CRI:
// containerd is restarted only if that is otherwise, and then has to say that it is so.
// Containers outlive such a restart. Off a running machine it goes by the files alone.
func Containerd(d ContainerdDeps) step.Step {
	c := containerd{d}
	return step.Step{Name: "containerd", Check: c.check, Apply: c.apply}
}

func (c containerd) check(ctx context.Context) ([]step.Change, error) {
	if err := c.installed(); err != nil {
		return nil, err
	}
	s, err := c.setup(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := c.changes(s)
	if err != nil {
		return nil, err
	}
	proxy, err := c.proxyChanges(ctx)
	if err != nil {
		return nil, err
	}
	changes = append(changes, proxy...)
	if c.Host.Offline {
		return changes, nil
	}
	state, err := c.state(ctx)
	if err != nil {
		return nil, err
	}
	if !state.Enabled() {
		changes = append(changes, step.Change{Subject: containerdUnit, Have: state.UnitFileState, Want: "enabled"})
	}
	if !state.Active() {
		return append(changes, step.Change{Subject: containerdUnit, Have: state.ActiveState, Want: "active"}), nil
	}
	if disruptive(changes) { // a restart is due anyway
		return changes, nil
	}
	stale, err := c.stale(ctx, state, s.effective)
	return append(changes, stale...), err
}

func disruptive(changes []step.Change) bool {
	for _, change := range changes {
		if change.Disruptive {
			return true
		}
	}
	return false
}

func (c containerd) installed() error { return installedContainerd(c.Host, c.Installer) }

// installedContainerd is nil where there is a containerd, and Blocked where there will be one.
func installedContainerd(h *host.Host, installer string) error {
	_, err := Program(h, "containerd")
	if h.Offline { // the package says which one it is
		return nil
	}
	if err = needStep(installer, err); errors.Is(err, fs.ErrNotExist) && installer == "" {
		return fmt.Errorf("%w; install containerd", err)
	}
	return err
}

func (c containerd) state(ctx context.Context) (systemd.State, error) {
	state, err := c.Units.State(ctx, containerdUnit)
	if err == nil && state.LoadState != "loaded" {
		err = fmt.Errorf("find %s: it is %s; install containerd, or unmask it", containerdUnit, state.LoadState)
	}
	return state, err
}

func (c containerd) apply(ctx context.Context) error {
	if c.Host.Offline {
		_, err := c.configure(ctx)
		return errors.Join(err, c.writeProxy(ctx))
	}
	state, err := c.state(ctx)
	if err != nil {
		return err
	}
	if err := c.noteLoaded(ctx, state); err != nil {
		return err
	}
	effective, err := c.configure(ctx)
	if err != nil {
		return err
	}
	if err := c.writeProxy(ctx); err != nil {
		return err
	}
	if !state.Enabled() {
		if err := c.Units.Enable(ctx, containerdUnit); err != nil {
			return err
		}
	}
	if err := c.run(ctx, state, effective); err != nil {
		return err
	}
	return c.dropProxy()
}
