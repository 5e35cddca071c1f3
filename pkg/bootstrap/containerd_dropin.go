package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// newDropIn is the head of our drop-in.
const newDropIn = `# Written by nodeagent: what /etc/containerd/config.toml lacks. Changes are overwritten.
version = %d
`

// importOurs is what is added to an operator's imports: a pattern, since a file that is named
// and not there keeps containerd from starting, and one that takes up no file but ours.
const importOurs = "/etc/containerd/conf.d/90-nodeagent*.toml"

// dropInFor is the drop-in that brings base, what containerd makes of root alone, to what is
// wanted; nil when that is so already. It is of root's version: releases of containerd 2 have
// read one of a higher version wrongly (containerd's pull request 12891).
func (c containerd) dropInFor(root []byte, base map[string]any) ([]byte, error) {
	tree, err := decodeTOML(root)
	if err != nil {
		return nil, err
	}
	version := max(1, versionOf(tree))
	if root == nil {
		version = newVersion
	}
	list, err := c.settings(version, base)
	if err != nil {
		return nil, err
	}
	_, indexes, err := c.differences(base, c.Host.Offline)
	if err != nil || len(indexes) == 0 {
		return nil, err
	}
	var lacking []criSetting
	for _, i := range indexes {
		lacking = append(lacking, list[i])
	}
	return set(fmt.Appendf(nil, newDropIn, version), lacking)
}

// imports are the files that a root file imports, as containerd finds them, with ours under
// the name dropIn, or without it where that is "". covered says that it imports ours, or will
// once there is one.
func imports(h *host.Host, tree map[string]any, dropIn string) (files []any, covered bool, err error) {
	patterns, _ := tree["imports"].([]any)
	files = []any{}
	var found []string
	for _, p := range patterns {
		pattern, _ := p.(string)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(containerdConfig), pattern)
		}
		pattern = filepath.Clean(pattern)
		names := []string{pattern}
		if strings.Contains(pattern, "*") { // containerd looks for nothing else
			if names, err = glob(h, pattern); err != nil {
				return nil, false, fmt.Errorf("read imports of %s: %q: %w", containerdConfig, pattern, err)
			}
		}
		if match, err := filepath.Match(pattern, containerdDropIn); err == nil && match {
			covered = true
			names = slices.DeleteFunc(names, func(n string) bool { return n == containerdDropIn })
			names = append(names, containerdDropIn)
			slices.Sort(names)
		}
		found = append(found, names...)
	}
	for _, name := range found {
		if name == containerdDropIn {
			name = dropIn
		}
		if name != "" && !slices.Contains(files, any(name)) {
			files = append(files, name)
		}
	}
	return files, covered, nil
}

func glob(h *host.Host, pattern string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(h.Root, pattern))
	for i, f := range found {
		found[i] = filepath.Join("/", strings.TrimPrefix(f, filepath.Clean(h.Root)))
	}
	return found, err
}

// withDropIn is what containerd would make of a root file with dropIn in the place of our
// drop-in, or without any where that is "". Nothing is written for it.
func (c containerd) withDropIn(ctx context.Context, root []byte, dropIn string) (map[string]any, error) {
	if root == nil {
		return c.ask(ctx, nil, "config", "default")
	}
	tree, err := decodeTOML(root)
	if err != nil {
		return nil, err
	}
	files, _, err := imports(c.Host, tree, dropIn)
	if err != nil {
		return nil, err
	}
	for i := range files {
		if files[i], err = c.Host.Path(files[i].(string)); err != nil {
			return nil, err
		}
	}
	if tree["imports"] != nil {
		if root, err = setTOML(root, []string{"imports"}, files); err != nil {
			return nil, err
		}
	}
	return c.ask(ctx, root, "--config", "/dev/stdin", "config", "dump")
}

// importing is a root file that imports our drop-in.
func importing(h *host.Host, root []byte) ([]byte, error) {
	tree, err := decodeTOML(root)
	if err != nil {
		return nil, err
	}
	if _, covered, err := imports(h, tree, ""); err != nil || covered {
		return root, err
	}
	list, _ := tree["imports"].([]any)
	return setTOML(root, []string{"imports"}, append(slices.Clone(list), importOurs))
}

// configureTwo brings containerd 2 to what is wanted, by our drop-in.
func (c containerd) configureTwo(ctx context.Context, s containerdSetup) (effective map[string]any, err error) {
	root, base := s.wantRoot, s.base
	if s.wantDropIn != nil {
		if root == nil {
			root = fmt.Appendf(nil, newConfigTwo, newVersion)
		}
		if root, err = importing(c.Host, root); err != nil {
			return nil, fmt.Errorf("edit %s: %w", containerdConfig, err)
		}
	}
	if c.Host.Offline {
		return nil, c.put(s, root, s.wantDropIn)
	}
	before, err := c.withDropIn(ctx, s.root, "")
	if err != nil {
		return nil, err
	}
	if err := onlyCRI(before, base); err != nil {
		return nil, fmt.Errorf("edit %s: %w", containerdConfig, err)
	}
	if effective, err = c.tryDropIn(ctx, root, s.wantDropIn); err != nil {
		return nil, err
	}
	if err := c.confirm(base, effective); err != nil {
		return nil, fmt.Errorf("write %s: %w", containerdDropIn, err)
	}
	return effective, c.putProven(ctx, s, root, s.wantDropIn, effective)
}

func (c containerd) tryDropIn(ctx context.Context, root, dropIn []byte) (tree map[string]any, err error) {
	if dropIn == nil {
		return c.withDropIn(ctx, root, "")
	}
	defer func() { err = errors.Join(err, c.Host.Remove(containerdTrial)) }()
	if err := c.Host.WriteFile(containerdTrial, dropIn, 0o600); err != nil {
		return nil, err
	}
	return c.withDropIn(ctx, root, containerdTrial)
}

// put writes both files, or removes our drop-in where there is to be none.
func (c containerd) put(s containerdSetup, root, dropIn []byte) error {
	if err := c.Host.KeepOriginal(containerdConfig); err != nil {
		return err
	}
	write := func() error {
		if dropIn == nil {
			return c.Host.Remove(containerdDropIn)
		}
		return c.Host.WriteFile(containerdDropIn, dropIn, 0o644)
	}
	if err := write(); err != nil || root == nil {
		return err
	}
	return c.Host.WriteFile(containerdConfig, root, s.mode)
}

// putProven is put, undone unless containerd then reads what was tried.
func (c containerd) putProven(ctx context.Context, s containerdSetup, root, dropIn []byte, tried map[string]any) error {
	err := c.put(s, root, dropIn)
	if err == nil {
		var real map[string]any
		if real, err = c.effective(ctx, root); err == nil {
			if others := strayed(tried, real, nil); len(others) > 0 {
				err = fmt.Errorf("containerd reads other values of %s than it did from the trial", words(others))
			}
		}
	}
	if err == nil {
		return nil
	}
	var undone error
	switch {
	case s.root != nil:
		undone = c.Host.WriteFile(containerdConfig, s.root, s.mode)
	case root != nil:
		undone = c.Host.Remove(containerdConfig)
	}
	if s.dropIn != nil {
		undone = errors.Join(undone, c.Host.WriteFile(containerdDropIn, s.dropIn, 0o644))
	} else {
		undone = errors.Join(undone, c.Host.Remove(containerdDropIn))
	}
	if undone != nil {
		return errors.Join(err, fmt.Errorf("put the earlier configuration of containerd back: %w", undone))
	}
	return fmt.Errorf("%w; the earlier configuration is back", err)
}

// goodDropIn says that our drop-in holds what is lacking, and beyond that nothing but what is
// wanted too: one that was written into an image says what this containerd does by itself.
func (c containerd) goodDropIn(s containerdSetup) (bool, error) {
	if !s.two || s.dropIn == nil || s.wantDropIn == nil {
		return s.two && s.dropIn == nil && s.wantDropIn == nil, nil
	}
	want, err := decodeTOML(s.wantDropIn)
	if err != nil {
		return false, err
	}
	have, err := decodeTOML(s.dropIn)
	if err != nil || versionOf(have) != versionOf(want) {
		return false, nil // it is written anew
	}
	list, err := c.settings(versionOf(want), s.base)
	if err != nil {
		return false, err
	}
	all, err := set(s.wantDropIn, list)
	if err != nil {
		return false, err
	}
	most, err := decodeTOML(all)
	return err == nil && within(want, have) && within(have, most), err
}

// within says that a tree has all the values of another, whatever else it has.
func within(some, all map[string]any) bool {
	for key, value := range some {
		below, isTable := value.(map[string]any)
		other, wasTable := all[key].(map[string]any)
		switch {
		case isTable != wasTable, isTable && !within(below, other), !isTable && !reflect.DeepEqual(value, all[key]):
			return false
		}
	}
	return true
}
