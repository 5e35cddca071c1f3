package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	containerdUnit   = "containerd.service"
	containerdConfig = "/etc/containerd/config.toml"
	// containerdTrial is a new configuration that containerd has yet to agree with. It lies
	// beside the real one, since imports may be relative.
	containerdTrial = "/etc/containerd/.nodeagent-config.toml"
	dumpTimeout     = 30 * time.Second
	restartTimeout  = 3 * time.Minute
)

// ContainerdConfig is the section "containerd". It has no keys yet.
type ContainerdConfig struct{}

// containerdUnits is what the step needs of systemd; *systemd.Conn is the real one.
type containerdUnits interface {
	State(ctx context.Context, unit string) (systemd.State, error)
	Enable(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
}

type containerd struct {
	host  *host.Host
	units containerdUnits
	pause string
}

// Containerd makes the step "containerd": containerd is enabled and runs with the systemd
// cgroup driver, the sandbox image pause and the plugin directories of Kubernetes.
//
// It asks containerd what it makes of its configuration, edits the operator's file where that
// differs, has containerd read the result before it takes the place of the old one, and
// restarts containerd only if it runs with an older file. Containers outlive such a restart.
// Off a running machine it goes by the file alone.
func Containerd(h *host.Host, units containerdUnits, pause string) step.Step {
	c := containerd{host: h, units: units, pause: pause}
	return step.Step{Name: "containerd", Check: c.check, Apply: c.apply}
}

func (c containerd) check(ctx context.Context) ([]step.Change, error) {
	doc, _, err := c.read()
	if err != nil {
		return nil, err
	}
	tree, err := c.effective(ctx, doc)
	if err != nil {
		return nil, err
	}
	changes, _, err := c.differences(tree)
	if err != nil || c.host.Offline {
		return changes, err
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
	written, err := c.written()
	if err != nil {
		return nil, err
	}
	if state.ExecMainStartTimestamp.Before(written) {
		changes = append(changes, step.Change{
			Subject: containerdUnit, Disruptive: true,
			Have: "started " + state.ExecMainStartTimestamp.UTC().Format(time.RFC3339),
			Want: "restarted after " + containerdConfig + " was written, " + written.UTC().Format(time.RFC3339),
		})
	}
	return changes, nil
}

func (c containerd) state(ctx context.Context) (systemd.State, error) {
	state, err := c.units.State(ctx, containerdUnit)
	if err == nil && state.LoadState != "loaded" {
		err = fmt.Errorf("find %s: it is %s; install containerd, or unmask it", containerdUnit, state.LoadState)
	}
	return state, err
}

// written is when the configuration was, zero when there is none.
func (c containerd) written() (time.Time, error) {
	info, err := c.host.Stat(containerdConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// read is the operator's file and its mode; nil, and the mode of a new one, when there is none.
func (c containerd) read() ([]byte, fs.FileMode, error) {
	info, err := c.host.Stat(containerdConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0o644, nil
	}
	if err != nil {
		return nil, 0, err
	}
	data, err := c.host.ReadFile(containerdConfig)
	if data == nil {
		data = []byte{} // an empty file is one
	}
	return data, info.Mode().Perm(), err
}

// effective is what containerd makes of the file that is there, or does without one.
func (c containerd) effective(ctx context.Context, doc []byte) (map[string]any, error) {
	switch {
	case c.host.Offline:
		return decodeTOML(doc)
	case doc == nil:
		return c.ask(ctx, "config", "default")
	}
	tree, err := c.dump(ctx, containerdConfig)
	if err != nil {
		return nil, err
	}
	file, err := decodeTOML(doc)
	if err != nil {
		return nil, err
	}
	if versionOf(file) > versionOf(tree) { // 1.6 ignores such a file without a word
		return nil, fmt.Errorf("read %s: it is of version %d and this containerd reads %d at most", containerdConfig, versionOf(file), versionOf(tree))
	}
	return tree, nil
}

func (c containerd) dump(ctx context.Context, path string) (map[string]any, error) {
	real, err := c.host.Path(path)
	if err != nil {
		return nil, err
	}
	return c.ask(ctx, "--config", real, "config", "dump")
}

func (c containerd) ask(ctx context.Context, args ...string) (map[string]any, error) {
	program, err := Program(c.host, "containerd")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; install containerd", err)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	out, err := c.host.Run(ctx, program, args...)
	if err != nil {
		return nil, fmt.Errorf("read effective configuration of containerd: %w", err)
	}
	return decodeTOML(out)
}

// differences are the settings that containerd has otherwise, for operators and by their index.
func (c containerd) differences(effective map[string]any) ([]step.Change, []int, error) {
	want, err := settings(versionOf(effective), c.pause, effective)
	if err != nil {
		return nil, nil, err
	}
	var changes []step.Change
	disabled, _ := effective["disabled_plugins"].([]any)
	for _, plugin := range disabled {
		if name, _ := plugin.(string); isCRI(name) {
			changes = append(changes, step.Change{Subject: "containerd: plugin " + name, Have: "disabled", Want: "enabled", Disruptive: true})
		}
	}
	var indexes []int
	for i, s := range want {
		if have := lookTree(effective, s.path); !same(have, s.want) {
			subject := "containerd: " + dotted(s.path[1:])
			changes = append(changes, step.Change{Subject: subject, Have: show(have), Want: show(s.want), Disruptive: true})
			indexes = append(indexes, i)
		}
	}
	return changes, indexes, nil
}

func (c containerd) apply(ctx context.Context) error {
	if err := c.configure(ctx); err != nil || c.host.Offline {
		return err
	}
	state, err := c.state(ctx)
	if err != nil {
		return err
	}
	if !state.Enabled() {
		if err := c.units.Enable(ctx, containerdUnit); err != nil {
			return err
		}
	}
	written, err := c.written()
	if err != nil {
		return err
	}
	if state.Active() && !state.ExecMainStartTimestamp.Before(written) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	return c.units.Restart(ctx, containerdUnit)
}

// configure brings the file up to what containerd is to read.
func (c containerd) configure(ctx context.Context) error {
	doc, mode, err := c.read()
	if err != nil {
		return err
	}
	tree, err := c.effective(ctx, doc)
	if err != nil {
		return err
	}
	changes, _, err := c.differences(tree)
	if err != nil || len(changes) == 0 {
		return err
	}
	edit := c.edit
	if c.host.Offline {
		edit = c.editUnproven
	}
	doc, err = edit(ctx, doc, tree)
	if err != nil {
		return fmt.Errorf("edit %s: %w", containerdConfig, err)
	}
	if err := c.host.KeepOriginal(containerdConfig); err != nil {
		return err
	}
	return c.host.WriteFile(containerdConfig, doc, mode)
}
