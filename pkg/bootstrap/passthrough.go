package bootstrap

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Passthrough is a YAML mapping kept as it was written, since its keys are case-sensitive and
// not ours to know.
type Passthrough struct{ node *yaml.Node }

// IsZero says that the mapping is absent or empty.
func (p Passthrough) IsZero() bool { return p.node == nil || len(p.node.Content) == 0 }

// UnmarshalYAML keeps a mapping, with every alias replaced by what it stands for: the anchor
// may lie outside of it.
func (p *Passthrough) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return errors.New("must be a mapping")
	}
	c := copier{left: maxNodes}
	kept, err := c.copy(node)
	if err != nil {
		return err
	}
	p.node = kept
	return nil
}

// LineError is what is wrong with a mapping on one line of its file.
type LineError struct {
	Line int
	Err  error
}

func (e LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap is the error without its line.
func (e LineError) Unwrap() error { return e.Err }

func onLine(line int, format string, args ...any) error {
	return LineError{Line: line, Err: fmt.Errorf(format, args...)}
}

// maxNodes bounds what a few aliases of aliases can grow to.
const maxNodes = 100_000

// copier copies YAML nodes, aliases resolved.
type copier struct {
	left  int          // nodes that may yet be copied
	above []*yaml.Node // anchored nodes that are being copied
}

func (c *copier) copy(node *yaml.Node) (*yaml.Node, error) {
	line := node.Line
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if slices.Contains(c.above, node) {
		return nil, onLine(line, "*%s holds itself", node.Anchor)
	}
	if c.left--; c.left < 0 {
		return nil, onLine(line, "the aliases stand for too much")
	}
	if node.Anchor != "" {
		c.above = append(c.above, node)
		defer func() { c.above = c.above[:len(c.above)-1] }()
	}
	out := *node
	out.Anchor, out.Content = "", nil
	if out.Kind == yaml.ScalarNode && out.ShortTag() == "!!null" {
		out.Value = "null" // written as nothing, it is read as an empty string between braces
	}
	keys := map[string]bool{}
	for i, child := range node.Content {
		kept, err := c.copy(child)
		if err != nil {
			return nil, err
		}
		if node.Kind == yaml.MappingNode && i%2 == 0 {
			switch {
			case kept.Kind != yaml.ScalarNode:
				return nil, onLine(child.Line, "a key must be a single value")
			case kept.Tag == "!!merge":
				return nil, onLine(child.Line, "%q is not merged here: write the keys out", kept.Value)
			case keys[kept.Value]:
				return nil, onLine(child.Line, "%q is there twice", kept.Value)
			}
			keys[kept.Value] = true
		}
		out.Content = append(out.Content, kept)
	}
	return &out, nil
}

// MarshalYAML gives the mapping back.
func (p Passthrough) MarshalYAML() (any, error) {
	if p.node == nil {
		return map[string]string{}, nil
	}
	return p.node, nil
}

// NewPassthrough parses a mapping from YAML text.
func NewPassthrough(text string) (Passthrough, error) {
	var p Passthrough
	if err := yaml.Unmarshal([]byte(text), &p); err != nil {
		return p, fmt.Errorf("parse passthrough: %w", err)
	}
	return p, nil
}
