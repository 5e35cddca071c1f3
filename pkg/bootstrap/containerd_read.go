package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	containerdConfig = "/etc/containerd/config.toml"
	// containerdDropIn is ours, on containerd 2. A file of the operator's that is to have the
	// last word sorts behind it.
	containerdDropIn = "/etc/containerd/conf.d/90-nodeagent.toml"
	// containerdTrial is a file that containerd has yet to agree with. It lies beside the real
	// one, since imports may be relative, and no import of *.toml takes it up.
	containerdTrial = "/etc/containerd/.nodeagent-trial"
	dumpTimeout     = 30 * time.Second
)

// containerdSetup is containerd's configuration on this host.
type containerdSetup struct {
	root      []byte // of config.toml; nil when there is none
	mode      fs.FileMode
	dropIn    []byte         // of ours; nil when there is none
	effective map[string]any // what containerd makes of them
	two       bool           // it is containerd 2, which merges drop-ins

	// On containerd 2: config.toml with the CRI enabled, what containerd would make of it
	// without our drop-in, and the drop-in that this calls for; nil when none.
	wantRoot   []byte
	base       map[string]any
	wantDropIn []byte
}

// setup reads the configuration, and asks containerd what it makes of it.
func (c containerd) setup(ctx context.Context) (s containerdSetup, err error) {
	if s.root, s.mode, err = readOwned(c.Host, containerdConfig); err != nil {
		return s, err
	}
	if s.dropIn, _, err = readOwned(c.Host, containerdDropIn); err != nil {
		return s, err
	}
	if c.Host.Offline {
		return c.unbooted(s)
	}
	if s.effective, err = c.effective(ctx, s.root); err != nil {
		defaults, fresh := c.replaceable(ctx, s.root)
		if !fresh {
			return s, err
		}
		s.root, s.effective = nil, defaults
	}
	if s.two = versionOf(s.effective) > 2; !s.two {
		return s, nil
	}
	if s.wantRoot, err = enabled(s.root); err != nil {
		return s, err
	}
	if s.base, err = c.withDropIn(ctx, s.wantRoot, ""); err != nil {
		return s, err
	}
	s.wantDropIn, err = c.dropInFor(s.wantRoot, s.base)
	return s, err
}

// changes are how the configuration differs from what is wanted.
func (c containerd) changes(s containerdSetup) ([]step.Change, error) {
	changes, _, err := c.differences(s.effective, c.Host.Offline && s.two)
	if err != nil {
		return nil, err
	}
	good, err := c.goodDropIn(s)
	if err != nil {
		return nil, err
	}
	switch {
	case !s.two && s.dropIn != nil:
		changes = append(changes, step.Change{
			Subject: containerdDropIn, Have: "there, for containerd 2",
			Want: "absent: containerd 1 would forget other settings over it", Disruptive: true,
		})
	case s.two && len(changes) == 0 && !good:
		// What is to be read is read already: no restart is due.
		have, want := "there", "with what "+containerdConfig+" lacks, and nothing else"
		if s.wantDropIn == nil {
			want = "absent: nothing needs it"
		}
		changes = append(changes, step.Change{Subject: containerdDropIn, Have: have, Want: want})
	}
	return changes, nil
}

// readOwned is a file and its mode; nil, and the mode of a new one, when there is none.
func readOwned(h *host.Host, path string) ([]byte, fs.FileMode, error) {
	info, err := h.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0o644, nil
	}
	if err != nil {
		return nil, 0, err
	}
	data, err := h.ReadFile(path)
	if data == nil {
		data = []byte{} // an empty file is one
	}
	return data, info.Mode().Perm(), err
}

// effective is what containerd makes of the file that is there, or does without one.
func (c containerd) effective(ctx context.Context, root []byte) (map[string]any, error) {
	if root == nil {
		return c.ask(ctx, nil, "config", "default")
	}
	tree, err := c.dump(ctx, containerdConfig)
	if err != nil {
		return nil, err
	}
	file, err := decodeTOML(root)
	if err != nil {
		return nil, err
	}
	if versionOf(file) > versionOf(tree) { // 1.6 ignores such a file without a word
		return nil, fmt.Errorf("read %s: it is of version %d and this containerd reads %d at most", containerdConfig, versionOf(file), versionOf(tree))
	}
	return tree, nil
}

// replaceable says that the file is one that we made for a newer containerd and that holds
// nothing else, so that this one can have another; with it come this containerd's defaults.
func (c containerd) replaceable(ctx context.Context, root []byte) (defaults map[string]any, is bool) {
	tree, err := decodeTOML(root)
	if err != nil || !bytes.HasPrefix(root, []byte(newConfigMark)) {
		return nil, false
	}
	for key := range tree {
		if key != "version" && key != "imports" {
			return nil, false
		}
	}
	defaults, err = c.ask(ctx, nil, "config", "default")
	return defaults, err == nil && versionOf(tree) > versionOf(defaults)
}

func (c containerd) dump(ctx context.Context, path string) (map[string]any, error) {
	real, err := c.Host.Path(path)
	if err != nil {
		return nil, err
	}
	return c.ask(ctx, nil, "--config", real, "config", "dump")
}

func (c containerd) ask(ctx context.Context, stdin []byte, args ...string) (map[string]any, error) {
	program, err := Program(c.Host, "containerd")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	out, err := c.Host.RunCommand(ctx, host.Command{Path: program, Args: args, Stdin: stdin})
	if err != nil {
		return nil, fmt.Errorf("read effective configuration of containerd: %w", err)
	}
	return decodeTOML(out)
}
