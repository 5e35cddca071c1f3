package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// setTOML gives the key at path a value (a string, bool, int64, or list of them) with the smallest edit: of the
// value that is there, else a new line in the table or dotted key or inline table that is
// there, else a new table at the end.
func setTOML(data []byte, path []string, value any) ([]byte, error) {
	text, err := tomlValue(value)
	if err != nil {
		return nil, err
	}
	doc, err := parseTOML(data)
	if err != nil {
		return nil, err
	}
	out, err := doc.set(path, text)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", dotted(path), err)
	}
	err = proveTOML(data, out, func(tree map[string]any) error { return putTree(tree, path, value) })
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", dotted(path), err)
	}
	return out, nil
}

func (d tomlDoc) set(path []string, text string) ([]byte, error) {
	for _, e := range d.entries {
		if slices.Equal(e.path, path) {
			if e.table || (d.data[e.value] == '[') != (text[0] == '[') {
				return nil, errors.New("is of another kind there")
			}
			return d.splice(e.value, e.end, text), nil
		}
	}
	if e, ok := d.innermost(path, func(e tomlEntry) int { return inlineDepth(e, path) }); ok {
		line := dotted(path[len(e.path):]) + " = " + text
		at := e.value + 1 // behind the brace
		if rest := bytes.TrimLeft(d.data[at:], " \t"); len(rest) > 0 && rest[0] == '}' {
			return d.splice(at, at, " "+line+" "), nil
		}
		return d.splice(at, at, " "+line+","), nil
	}
	for _, h := range d.headers {
		if len(h.path) == len(path)-1 && slices.Equal(h.path, path[:len(path)-1]) {
			return d.addLine(h, dotted(path[len(path)-1:])+" = "+text), nil
		}
	}
	// A table that dotted keys made may not be given a header: it gets another dotted key.
	if e, ok := d.innermost(path, func(e tomlEntry) int { return dottedDepth(e, path) }); ok {
		line := dotted(path[e.scope:]) + " = " + text
		return d.splice(e.start, e.start, line+d.newline()+d.indent(e.start)), nil
	}
	return d.addTable(path, text), nil
}

// innermost is the first entry of those with the greatest depth above 0.
func (d tomlDoc) innermost(path []string, depth func(tomlEntry) int) (best tomlEntry, ok bool) {
	most := 0
	for _, e := range d.entries {
		if n := depth(e); n > most {
			best, most, ok = e, n, true
		}
	}
	return best, ok
}

// inlineDepth is how much of path an inline table covers, 0 when it does not lie on it.
func inlineDepth(e tomlEntry, path []string) int {
	if e.table && len(e.path) < len(path) && slices.Equal(e.path, path[:len(e.path)]) {
		return len(e.path)
	}
	return 0
}

// dottedDepth is how much of path, beyond its header, the tables made by a dotted key cover.
func dottedDepth(e tomlEntry, path []string) int {
	if e.inline {
		return 0
	}
	n := 0
	for n < len(e.path)-1 && n < len(path)-1 && e.path[n] == path[n] {
		n++
	}
	if n <= e.scope {
		return 0
	}
	return n
}

// addLine adds a line to the table h, behind its last key or its header.
func (d tomlDoc) addLine(h tomlHeader, line string) []byte {
	if h.keys == 0 && h.path == nil {
		return d.splice(0, 0, line+d.newline())
	}
	indent := ""
	if h.path != nil {
		indent = d.indent(h.start) + "  "
	}
	for _, e := range d.entries {
		if !e.inline && e.end == h.last {
			indent = d.indent(e.start)
		}
	}
	end := bytes.IndexByte(d.data[h.last:], '\n')
	if end < 0 {
		return d.splice(len(d.data), len(d.data), d.newline()+indent+line+d.newline())
	}
	at := h.last + end + 1
	return d.splice(at, at, indent+line+d.newline())
}

func (d tomlDoc) addTable(path []string, text string) []byte {
	nl := d.newline()
	last := len(path) - 1
	add := "[" + dotted(path[:last]) + "]" + nl + "  " + dotted(path[last:]) + " = " + text + nl
	if len(d.data) > 0 {
		add = nl + add
	}
	if len(d.data) > 0 && d.data[len(d.data)-1] != '\n' {
		add = nl + add
	}
	return d.splice(len(d.data), len(d.data), add)
}

// dropTOML removes strings from the array at path. Comments around them stay.
func dropTOML(data []byte, path []string, drop func(string) bool) ([]byte, error) {
	out := data
	for {
		doc, err := parseTOML(out)
		if err != nil {
			return nil, err
		}
		next, dropped := doc.dropOne(path, drop)
		if !dropped {
			break
		}
		out = next
	}
	err := proveTOML(data, out, func(tree map[string]any) error {
		list, _ := lookTree(tree, path).([]any)
		kept := slices.DeleteFunc(slices.Clone(list), func(v any) bool {
			text, ok := v.(string)
			return ok && drop(text)
		})
		if len(kept) == len(list) {
			return nil
		}
		return putTree(tree, path, kept)
	})
	if err != nil {
		return nil, fmt.Errorf("edit %s: %w", dotted(path), err)
	}
	return out, nil
}

// dropOne takes out one element, and the comma behind it or else the one in front.
func (d tomlDoc) dropOne(path []string, drop func(string) bool) ([]byte, bool) {
	for _, e := range d.entries {
		if !slices.Equal(e.path, path) {
			continue
		}
		for i, s := range e.array {
			if !drop(s.text) {
				continue
			}
			if comma := d.comma(s.end); comma >= 0 {
				behind := bytes.TrimLeft(d.data[comma+1:], " ")
				return slices.Concat(d.data[:s.start], d.data[s.end:comma], behind), true
			}
			if i > 0 {
				comma := d.comma(e.array[i-1].end)
				between := bytes.TrimRight(d.data[comma+1:s.start], " ")
				return slices.Concat(d.data[:comma], between, d.data[s.end:]), true
			}
			return d.splice(s.start, s.end, ""), true
		}
	}
	return nil, false
}

// comma is the place of the comma behind an array's element that ends at i, or -1.
func (d tomlDoc) comma(i int) int {
	for ; i < len(d.data); i++ {
		switch d.data[i] {
		case ',':
			return i
		case ']':
			return -1
		case '#':
			i += bytes.IndexByte(d.data[i:], '\n')
		}
	}
	return -1
}

func (d tomlDoc) splice(start, end int, text string) []byte {
	return slices.Concat(d.data[:start], []byte(text), d.data[end:])
}

func (d tomlDoc) newline() string {
	if bytes.Contains(d.data, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// indent is the blank that the line of place i begins with.
func (d tomlDoc) indent(i int) string {
	line := d.data[bytes.LastIndexByte(d.data[:i], '\n')+1 : i]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// proveTOML fails unless after is before with the change, and nothing else.
func proveTOML(before, after []byte, change func(map[string]any) error) error {
	want, err := decodeTOML(before)
	if err != nil {
		return err
	}
	if err := change(want); err != nil {
		return err
	}
	have, err := decodeTOML(after)
	if err != nil {
		return fmt.Errorf("the edited file is not valid: %w", err)
	}
	if !reflect.DeepEqual(want, have) {
		return errors.New("an edit would change more than that: edit the file by hand")
	}
	return nil
}

func decodeTOML(data []byte) (map[string]any, error) {
	tree := map[string]any{}
	if err := toml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("parse TOML: %w", err)
	}
	return tree, nil
}

// lookTree is what lies at path, or nil.
func lookTree(tree map[string]any, path []string) any {
	var at any = tree
	for _, key := range path {
		table, _ := at.(map[string]any)
		at = table[key]
	}
	return at
}

func putTree(tree map[string]any, path []string, value any) error {
	for _, key := range path[:len(path)-1] {
		if tree[key] == nil {
			tree[key] = map[string]any{}
		}
		next, ok := tree[key].(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no table", key)
		}
		tree = next
	}
	tree[path[len(path)-1]] = value
	return nil
}
