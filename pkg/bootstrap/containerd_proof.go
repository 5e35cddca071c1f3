package bootstrap

import (
	"context"
	"errors"
	"fmt"
)

// newConfig is what a host without a configuration gets; the settings are added to it.
const newConfig = `# Written by nodeagent, which found no configuration of containerd here. It is yours to add to:
# nodeagent edits the values of the keys below in place, and leaves everything else alone.
version = %d
`

// enabled is the file with the CRI switched on, if it was off, and with a version that its
// settings can be written in: a file of version 1 that has no plugins' settings yet is as
// good as one of version 2, which later releases read too.
func enabled(doc []byte, effective map[string]any) ([]byte, error) {
	if doc == nil {
		return fmt.Appendf(nil, newConfig, max(2, versionOf(effective))), nil
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
	lacking, err := c.lacking(doc, tree, tree)
	if err != nil {
		return nil, err
	}
	return set(doc, lacking)
}

// edit is the operator's file with what it lacks, as containerd itself confirms: of all that
// it reads, nothing else may have changed. That can take rounds: to name one option of a
// runtime makes containerd 1.x forget the defaults of that runtime's whole section.
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
		return nil, fmt.Errorf("to enable the CRI would change %s too: enable it by hand", words(others))
	}
	before = tree
	const rounds = 4
	for range rounds {
		lacking, err := c.lacking(out, before, tree)
		if err != nil {
			return nil, err
		}
		if len(lacking) == 0 {
			break
		}
		if out, err = set(out, lacking); err != nil {
			return nil, err
		}
		if tree, err = c.try(ctx, out); err != nil {
			return nil, err
		}
	}
	return out, c.confirm(before, tree)
}

func (c containerd) try(ctx context.Context, doc []byte) (map[string]any, error) {
	if err := c.host.WriteFile(containerdTrial, doc, 0o600); err != nil {
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
	list, err := settings(versionOf(tree), c.pause, effective)
	if err != nil {
		return nil, err
	}
	_, indexes, err := c.differences(effective)
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
	changes, _, err := c.differences(after)
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
	list, _ := settings(versionOf(effective), c.pause, effective)
	var out [][]string
	for _, s := range list {
		out = append(out, s.path)
	}
	return out
}
