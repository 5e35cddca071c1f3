package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
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
	return c.dump(ctx, containerdConfig)
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

// newConfig is what a host without a configuration gets; the settings are added to it.
const newConfig = `# Written by nodeagent, which found no configuration of containerd here. It is yours to add to:
# nodeagent edits the values of the keys below in place, and leaves everything else alone.
`

// enabled is the file with the CRI switched on, if it was off, and with a version that its
// settings can be written in: a file of version 1 that has no plugins' settings yet is as
// good as one of version 2, which later releases read too.
func enabled(doc []byte, effective map[string]any) ([]byte, error) {
	if doc == nil {
		return setTOML([]byte(newConfig), []string{"version"}, max(2, versionOf(effective)))
	}
	doc, err := dropTOML(doc, []string{"disabled_plugins"}, isCRI)
	if err != nil {
		return nil, err
	}
	tree, err := decodeTOML(doc)
	if err != nil {
		return nil, err
	}
	short := false // version 1 has short names of plugins, which version 2 does not know
	for _, list := range []string{"disabled_plugins", "required_plugins"} {
		names, _ := tree[list].([]any)
		short = short || len(names) > 0
	}
	if versionOf(tree) < 2 && tree["plugins"] == nil && !short {
		return setTOML(doc, []string{"version"}, int64(2))
	}
	return doc, nil
}

// with is the file with some of the settings, which are chosen by their index.
func (c containerd) with(doc []byte, effective map[string]any, indexes []int) ([]byte, error) {
	tree, err := decodeTOML(doc)
	if err != nil {
		return nil, err
	}
	list, err := settings(versionOf(tree), c.pause, effective)
	if err != nil {
		return nil, err
	}
	for _, i := range indexes {
		if doc, err = setTOML(doc, list[i].path, list[i].want); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

// editUnproven is edit where no containerd can be asked.
func (c containerd) editUnproven(_ context.Context, doc []byte, _ map[string]any) ([]byte, error) {
	doc, err := enabled(doc, nil)
	if err != nil {
		return nil, err
	}
	tree, err := decodeTOML(doc)
	if err != nil {
		return nil, err
	}
	_, indexes, err := c.differences(tree)
	if err != nil {
		return nil, err
	}
	return c.with(doc, tree, indexes)
}

// edit is the operator's file with what it lacks, as containerd itself confirms: of all that it
// reads, nothing else may have changed. A setting can bring about the need for another: to
// name an option of runc makes containerd 1.x forget the rest of its section's defaults.
func (c containerd) edit(ctx context.Context, doc []byte, before map[string]any) (out []byte, err error) {
	defer func() { err = errors.Join(err, c.host.Remove(containerdTrial)) }()
	if out, err = enabled(doc, before); err != nil {
		return nil, err
	}
	tree, err := c.try(ctx, out)
	if err != nil {
		return nil, err
	}
	allowed := [][]string{{"disabled_plugins"}}
	for _, plugin := range criPlugins {
		allowed = append(allowed, []string{"plugins", plugin}) // it was off, and had no settings
	}
	if others := strayed(before, tree, allowed); len(others) > 0 {
		return nil, fmt.Errorf("enabling the CRI would change %s too: enable it by hand", strings.Join(others, ", "))
	}
	before = tree
	for range 4 {
		changes, indexes, err := c.differences(tree)
		if err != nil {
			return nil, err
		}
		if len(changes) == 0 {
			return out, c.onlyWanted(before, tree)
		}
		if out, err = c.with(out, tree, indexes); err != nil {
			return nil, err
		}
		if tree, err = c.try(ctx, out); err != nil {
			return nil, err
		}
	}
	changes, _, err := c.differences(tree)
	if err == nil && len(changes) == 0 {
		return out, c.onlyWanted(before, tree)
	}
	return nil, errors.Join(err, fmt.Errorf("containerd would still read %q: does a file that it imports say so?", changes))
}

func (c containerd) onlyWanted(before, after map[string]any) error {
	list, err := settings(versionOf(after), c.pause, after)
	if err != nil {
		return err
	}
	var allowed [][]string
	for _, s := range list {
		allowed = append(allowed, s.path)
	}
	if others := strayed(before, after, allowed); len(others) > 0 {
		return fmt.Errorf("containerd would read other values of %s too: edit it by hand", strings.Join(others, ", "))
	}
	return nil
}

func (c containerd) try(ctx context.Context, doc []byte) (map[string]any, error) {
	if err := c.host.WriteFile(containerdTrial, doc, 0o600); err != nil {
		return nil, err
	}
	return c.dump(ctx, containerdTrial)
}
