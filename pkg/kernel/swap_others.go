package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// others are the programs that make swap anew, from configuration that is not ours to edit:
// cloud-init on a new instance, Azure's agent at each boot, and scripts.
func (s swap) others() ([]step.Change, error) {
	var changes []step.Change
	for _, find := range []func() ([]step.Change, error){s.cloudInit, s.waagent, s.scripts} {
		found, err := find()
		if err != nil {
			return nil, fmt.Errorf("look for what makes swap: %w", err)
		}
		changes = append(changes, found...)
	}
	return changes, nil
}

func makesSwap(file string, line int, have, want string) step.Change {
	return step.Change{Subject: fmt.Sprintf("%s line %d", file, line), Have: have, Want: want, Manual: true}
}

// optional reads a file that need not be there.
func (s swap) optional(path string) ([]byte, error) {
	data, err := s.h.ReadFile(path)
	if absent(err) {
		return nil, nil
	}
	return data, err
}

const cloudDir = "/etc/cloud"

// cloudInit finds the keys that have cloud-init write swap into fstab.
func (s swap) cloudInit() ([]step.Change, error) {
	off, err := s.h.Exists(cloudDir + "/cloud-init.disabled")
	if err != nil || off {
		return nil, err
	}
	entries, err := s.h.ReadDir(cloudDir + "/cloud.cfg.d")
	if err != nil && !absent(err) {
		return nil, err
	}
	paths := []string{cloudDir + "/cloud.cfg"}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".cfg") {
			paths = append(paths, filepath.Join(cloudDir, "cloud.cfg.d", e.Name()))
		}
	}
	var c cloudSwap
	for _, path := range paths {
		data, err := s.optional(path)
		if err != nil {
			return nil, err
		}
		c.read(path, data)
	}
	return c.changes(), nil
}

// cloudKey is a key of cloud-init's configuration and where it is from.
type cloudKey struct {
	node *yaml.Node
	file string
}

// cloudSwap is what cloud-init's files come to, read in their order. A later file's keys win;
// those of a mapping one by one, and a list as a whole.
type cloudSwap struct{ size, filename, mounts cloudKey }

// read takes in a file. One that is no YAML is nothing to cloud-init either.
func (c *cloudSwap) read(file string, data []byte) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil || len(root.Content) == 0 {
		return
	}
	for key, value := range pairs(root.Content[0]) {
		switch key {
		case "mounts":
			c.mounts = cloudKey{value, file}
		case "swap":
			if value.Kind != yaml.MappingNode {
				c.size, c.filename = cloudKey{}, cloudKey{}
			}
			for key, value := range pairs(value) {
				switch key {
				case "size":
					c.size = cloudKey{value, file}
				case "filename":
					c.filename = cloudKey{value, file}
				}
			}
		}
	}
}

// pairs are the keys of a mapping with their values, in their order.
func pairs(node *yaml.Node) func(yield func(string, *yaml.Node) bool) {
	return func(yield func(string, *yaml.Node) bool) {
		if node.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			value := node.Content[i+1]
			if value.Kind == yaml.AliasNode && value.Alias != nil {
				value = value.Alias
			}
			if !yield(node.Content[i].Value, value) {
				return
			}
		}
	}
}

func (c cloudSwap) changes() []step.Change {
	const want = "removed: cloud-init makes that swap on each new instance"
	var changes []step.Change
	if c.size.says() && (c.filename.node == nil || c.filename.says()) {
		changes = append(changes, makesSwap(c.size.file, c.size.node.Line, "swap: size: "+c.size.node.Value, want))
	}
	if c.mounts.node == nil || c.mounts.node.Kind != yaml.SequenceNode {
		return changes
	}
	for _, m := range c.mounts.node.Content {
		if m.Kind == yaml.SequenceNode && len(m.Content) > 2 && m.Content[1].Tag != "!!null" && m.Content[2].Value == "swap" {
			changes = append(changes, makesSwap(c.mounts.file, m.Line, "mounts: swap on "+m.Content[0].Value, want))
		}
	}
	return changes
}

// says is what Python takes for true.
func (k cloudKey) says() bool {
	if k.node == nil || k.node.Kind != yaml.ScalarNode || k.node.Tag == "!!null" {
		return false
	}
	return !slices.Contains([]string{"", "0", "false", "no", "off"}, strings.ToLower(k.node.Value))
}

const waagentConf = "/etc/waagent.conf"

// waagent finds the switch that has Azure's agent make a swap file on the resource disk.
func (s swap) waagent() ([]step.Change, error) {
	data, err := s.optional(waagentConf)
	line := waagentSwap(data)
	if err != nil || line == 0 {
		return nil, err
	}
	const want = "ResourceDisk.EnableSwap=n: the agent makes that swap at each boot"
	return []step.Change{makesSwap(waagentConf, line, "ResourceDisk.EnableSwap=y", want)}, nil
}

// waagentSwap is the line that turns the switch on, 0 where none does. The last line of a key
// holds. Without its disk formatted the agent makes no swap on it.
func waagentSwap(data []byte) int {
	swap, _ := waagentSwitch(data, "ResourceDisk.EnableSwap")
	_, format := waagentSwitch(data, "ResourceDisk.Format")
	if !format {
		return 0
	}
	return swap
}

// waagentSwitch is the line in which a switch was turned on, 0 where it is off.
func waagentSwitch(data []byte, name string) (line int, on bool) {
	number := 0
	for text := range strings.Lines(string(data)) {
		number++
		key, value, assigns := strings.Cut(strings.TrimRight(text, "\r\n"), "=")
		if !assigns || strings.TrimSpace(key) != name {
			continue
		}
		value, _, _ = strings.Cut(value, "#")
		line, on = 0, strings.EqualFold(strings.Trim(value, "\" \t"), "y")
		if on {
			line = number
		}
	}
	return line, on
}

// scripts finds lines that run swapon in the units and the script that an administrator has
// written to be run at boot.
func (s swap) scripts() ([]step.Change, error) {
	paths := []string{"/etc/rc.local"}
	entries, err := s.h.ReadDir(unitDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".service") && !slices.Contains(swapServices, e.Name()) {
			paths = append(paths, filepath.Join(unitDir, e.Name()))
		}
	}
	var changes []step.Change
	for _, path := range paths {
		data, err := s.optional(path)
		if err != nil {
			return nil, err
		}
		number := 0
		for line := range strings.Lines(string(data)) {
			number++
			if line = strings.TrimSpace(line); runsSwapon(line) {
				changes = append(changes, makesSwap(path, number, line, "removed: it brings swap back at boot"))
			}
		}
	}
	return changes, nil
}

// runsSwapon says whether a line of a shell script or of a unit names the program.
func runsSwapon(line string) bool {
	if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
		return false
	}
	words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t=\"';&|(){}`$", r) })
	return slices.ContainsFunc(words, func(word string) bool { return filepath.Base(word) == "swapon" })
}
