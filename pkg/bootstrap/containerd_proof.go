package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// newConfigMark is how a file begins that we made.
const newConfigMark = "# Written by nodeagent, which found no configuration of containerd here. It is yours to add to:\n"

const (
	// newConfig is what containerd 1.x without a configuration gets; the settings are added.
	newConfig = newConfigMark + `# nodeagent edits the values of the keys below in place, and leaves everything else alone.
version = %d
`
	// newConfigTwo is what containerd 2 gets: without a file it reads no drop-ins, though it
	// prints a default that names them.
	newConfigTwo = newConfigMark + `# what nodeagent needs is in conf.d/90-nodeagent.toml.
version = %d
imports = ["/etc/containerd/conf.d/*.toml"]
`
)

// newVersion is that of a file which we make for containerd 2: the one that all its releases
// read. Version 4 came with 2.4, and an older one does not start with it.
const newVersion = 3

// configure brings the files up to what containerd is to read, which is returned; nil for a
// tree in which no containerd can be asked.
func (c containerd) configure(ctx context.Context) (map[string]any, error) {
	s, err := c.setup(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := c.changes(s)
	if err != nil || len(changes) == 0 {
		return s.effective, err
	}
	if s.two {
		return c.configureTwo(ctx, s)
	}
	if s.dropIn != nil {
		// It has spoiled all that was read so far.
		if err := c.Host.Remove(containerdDropIn); err != nil {
			return nil, err
		}
		return c.configure(ctx)
	}
	if c.Host.Offline {
		root, err := c.editUnproven(s.root)
		if err != nil {
			return nil, fmt.Errorf("edit %s: %w", containerdConfig, err)
		}
		return nil, c.put(s, root, nil)
	}
	root, tree, err := c.edit(ctx, s.root, s.effective)
	if err != nil {
		return nil, fmt.Errorf("edit %s: %w", containerdConfig, err)
	}
	return tree, c.putProven(ctx, s, root, nil, tree)
}

// enabled is the file with the CRI switched on, if it was off, and with a version that its
// settings can be written in: a file of version 1 that has no plugins' settings yet is as
// good as one of version 2, which later releases read too.
func enabled(doc []byte) ([]byte, error) {
	if doc == nil {
		return nil, nil
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

func enabledOrNew(doc []byte) ([]byte, error) {
	if doc == nil {
		return fmt.Appendf(nil, newConfig, 2), nil
	}
	return enabled(doc)
}

// editUnproven is edit where no containerd can be asked.
func (c containerd) editUnproven(doc []byte) ([]byte, error) {
	doc, err := enabledOrNew(doc)
	if err != nil {
		return nil, err
	}
	tree, err := decodeTOML(doc)
	if err != nil {
		return nil, err
	}
	lacking, err := c.lacking(doc, tree, tree)
	if err != nil {
		return nil, err
	}
	return set(doc, lacking)
}

// edit is the operator's file with what it lacks, as containerd itself confirms: of all that
// it reads, nothing else may have changed. That can take rounds: to name one option of a
// runtime makes containerd 1.x forget the defaults of that runtime's whole section.
func (c containerd) edit(ctx context.Context, doc []byte, before map[string]any) (out []byte, tree map[string]any, err error) {
	defer func() { err = errors.Join(err, c.Host.Remove(containerdTrial)) }()
	if out, err = enabledOrNew(doc); err != nil {
		return nil, nil, err
	}
	if tree, err = c.try(ctx, out); err != nil {
		return nil, nil, err
	}
	if err := onlyCRI(before, tree); err != nil {
		return nil, nil, err
	}
	before = tree
	const rounds = 4
	for range rounds {
		lacking, err := c.lacking(out, before, tree)
		if err != nil {
			return nil, nil, err
		}
		if len(lacking) == 0 {
			break
		}
		if out, err = set(out, lacking); err != nil {
			return nil, nil, err
		}
		if tree, err = c.try(ctx, out); err != nil {
			return nil, nil, err
		}
	}
	return out, tree, c.confirm(before, tree)
}

// onlyCRI fails if enabling the CRI changed anything else.
func onlyCRI(before, after map[string]any) error {
	allowed := [][]string{{"disabled_plugins"}}
	disabled, _ := before["disabled_plugins"].([]any)
	if slices.ContainsFunc(disabled, func(p any) bool { name, _ := p.(string); return isCRI(name) }) {
		for _, plugin := range criPlugins {
			allowed = append(allowed, []string{"plugins", plugin}) // it was off, and had no settings
		}
	}
	if others := strayed(before, after, allowed); len(others) > 0 {
		return fmt.Errorf("to enable the CRI would change %s too: enable it by hand", words(others))
	}
	return nil
}

func (c containerd) try(ctx context.Context, doc []byte) (map[string]any, error) {
	if err := c.Host.WriteFile(containerdTrial, doc, 0o600); err != nil {
		return nil, err
	}
	return c.dump(ctx, containerdTrial)
}

func set(doc []byte, list []criSetting) ([]byte, error) {
	var err error
	for _, s := range list {
		if doc, err = setTOML(doc, s.path, s.want); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

// lacking is what has to be set in doc, in its own version's words: the settings that
// containerd has otherwise, and what it forgot of the runtimes since before.
func (c containerd) lacking(doc []byte, before, effective map[string]any) ([]criSetting, error) {
	tree, err := decodeTOML(doc)
	if err != nil {
		return nil, err
	}
	list, err := c.settings(versionOf(tree), effective)
	if err != nil {
		return nil, err
	}
	_, indexes, err := c.differences(effective, false)
	if err != nil {
		return nil, err
	}
	var out []criSetting
	for _, i := range indexes {
		if list[i].option && lookTree(tree, list[i-1].path) == nil {
			out = append(out, list[i-1]) // the runtime's type, which would be forgotten
		}
		out = append(out, list[i])
	}
	at, err := layoutOf(versionOf(effective))
	if err != nil {
		return nil, err
	}
	into, err := layoutOf(versionOf(tree))
	if err != nil {
		return nil, err
	}
	for _, path := range strayed(before, effective, c.wanted(effective)) {
		if value := lookTree(before, path); under(path, at.runtimes) && !empty(value) && empty(lookTree(effective, path)) {
			out = append(out, criSetting{path: sub(into.runtimes, path[len(at.runtimes):]...), want: value})
		}
	}
	return out, nil
}

// confirm fails unless containerd reads what is wanted, and everything else as before.
func (c containerd) confirm(before, after map[string]any) error {
	changes, _, err := c.differences(after, false)
	if err != nil {
		return err
	}
	if len(changes) > 0 {
		return fmt.Errorf("containerd would still read %s: does a file say so that this one imports?", changes[0])
	}
	if others := strayed(before, after, c.wanted(after)); len(others) > 0 {
		return fmt.Errorf("containerd would read other values of %s too: edit it by hand", words(others))
	}
	return nil
}

// wanted are the paths of the settings. The layout of an effective configuration is known, or
// differences would have failed on it.
func (c containerd) wanted(effective map[string]any) [][]string {
	list, _ := c.settings(versionOf(effective), effective)
	var out [][]string
	for _, s := range list {
		out = append(out, s.path)
	}
	return out
}
