package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
)

// walker goes through the YAML nodes beside the type that they are decoded into. It collects
// what does not fit, with lines, and the line of every key for complaints made later.
type walker struct {
	file     string
	lines    map[string]int
	problems []problem
	fill     bool // hand the nodes to the fields that take YAML themselves
}

// problem is a complaint: about the key at path, on a line of the file, 0 where it has none.
type problem struct {
	line int
	path string
	err  error
}

func (w *walker) complain(line int, path, format string, args ...any) {
	err := fmt.Errorf("%s:%d: %s: %s", w.file, line, path, fmt.Sprintf(format, args...))
	w.problems = append(w.problems, problem{line, path, err})
}

// mapping returns what fits of a mapping: without aliases, and without what the fields read
// themselves. So what is wrong in one place hides nothing that is wrong in another.
func (w *walker) mapping(node *yaml.Node, v reflect.Value, path string) *yaml.Node {
	seen := map[string]bool{}
	fits := *node
	fits.Anchor, fits.Content = "", nil
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := join(path, key.Value)
		field, known := fieldOf(v, key.Value)
		switch {
		case seen[key.Value]:
			w.complain(key.Line, at, "is there twice")
		case !known:
			w.complain(key.Line, at, "unknown key%s", nearest(key.Value, keysOf(v.Type())))
		default:
			w.lines[at] = key.Line
			if kept := w.value(value, field, at); kept != nil {
				fits.Content = append(fits.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key.Value}, kept)
			}
		}
		seen[key.Value] = true
	}
	return &fits
}

// value returns what fits of a value, nil if nothing does or the default stays.
func (w *walker) value(node *yaml.Node, v reflect.Value, path string) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Tag == "!!null" {
		return nil
	}
	if u, ok := reflect.TypeAssert[yaml.Unmarshaler](v.Addr()); ok {
		w.unmarshal(node, u, path)
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		if node.Kind != yaml.MappingNode {
			w.complain(node.Line, path, "must be a mapping")
			return nil
		}
		return w.mapping(node, v, path)
	case reflect.Pointer:
		if v.IsNil() {
			return w.value(node, reflect.New(v.Type().Elem()).Elem(), path)
		}
		return w.value(node, v.Elem(), path)
	case reflect.Slice:
		return w.sequence(node, v, path)
	default:
		return w.scalar(node, v.Type(), path)
	}
}

// unmarshal has a field read its node. The lines within it are kept: what is complained of later
// may lie there.
func (w *walker) unmarshal(node *yaml.Node, u yaml.Unmarshaler, path string) {
	if !w.fill {
		u = reflect.New(reflect.TypeOf(u).Elem()).Interface().(yaml.Unmarshaler)
	}
	err := u.UnmarshalYAML(node)
	var at bootstrap.LineError
	switch {
	case errors.As(err, &at):
		w.complain(at.Line, path, "%v", at.Err)
	case err != nil:
		w.complain(node.Line, path, "%v", err)
	default:
		w.note(node, path)
	}
}

// note remembers the lines of all keys below a node, but for those behind an alias.
func (w *walker) note(node *yaml.Node, path string) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			at := join(path, node.Content[i].Value)
			w.lines[at] = node.Content[i].Line
			w.note(node.Content[i+1], at)
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			w.lines[at] = item.Line
			w.note(item, at)
		}
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
}

// sequence returns a list if every item of it fits.
func (w *walker) sequence(node *yaml.Node, v reflect.Value, path string) *yaml.Node {
	if node.Kind != yaml.SequenceNode {
		w.complain(node.Line, path, "must be a list")
		return nil
	}
	fits := *node
	fits.Anchor, fits.Content = "", nil
	before := len(w.problems)
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		w.lines[at] = item.Line
		element := reflect.New(v.Type().Elem()).Elem()
		if w.fill && i < v.Len() {
			element = v.Index(i)
		}
		kept := w.value(item, element, at)
		if kept == nil {
			kept = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		}
		fits.Content = append(fits.Content, kept)
	}
	if len(w.problems) > before {
		return nil
	}
	return &fits
}

func (w *walker) scalar(node *yaml.Node, t reflect.Type, path string) *yaml.Node {
	if node.Kind != yaml.ScalarNode {
		w.complain(node.Line, path, "must be a single value")
		return nil
	}
	wrong := ""
	switch {
	case t == reflect.TypeFor[time.Duration]():
		if _, err := time.ParseDuration(node.Value); err != nil || node.Tag != "!!str" {
			wrong = "%q is not a duration: it needs a unit, as in 30s, 10m or 6h"
		}
	case t.Kind() == reflect.String && node.Tag != "!!str":
		wrong = "must be a string: write %q in quotes"
	case t.Kind() == reflect.Bool && node.Tag != "!!bool":
		wrong = "%q is neither true nor false"
	case t.Kind() == reflect.Int && node.Tag != "!!int":
		wrong = "%q is not a whole number"
	}
	if wrong != "" {
		w.complain(node.Line, path, wrong, node.Value)
		return nil
	}
	fits := *node
	fits.Anchor = ""
	return &fits
}

// judge adds the complaints of Validate, each with file and line: those of the key that it
// begins with, or of the nearest one above it that is in the file. What lies above or below a
// key that is complained of already is known to be wrong.
func (w *walker) judge(err error) {
	known := w.problems
	for _, e := range flatten(err) {
		path, _, _ := strings.Cut(e.Error(), ": ")
		if slices.ContainsFunc(known, func(p problem) bool { return within(p.path, path) || within(path, p.path) }) {
			continue
		}
		line := 0
		for p := path; p != "" && line == 0; p = parent(p) {
			line = w.lines[p]
		}
		where := w.file
		if line > 0 {
			where = fmt.Sprintf("%s:%d", w.file, line)
		}
		w.problems = append(w.problems, problem{line, path, fmt.Errorf("%s: %w", where, e)})
	}
}

// err is all that is wrong, in the order of the file.
func (w *walker) err() error {
	slices.SortStableFunc(w.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, p := range w.problems {
		errs = append(errs, p.err)
	}
	return errors.Join(errs...)
}

// within says whether path lies below above, or is it.
func within(path, above string) bool {
	rest, is := strings.CutPrefix(path, above)
	return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if keyOf(v.Type().Field(i)) == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	keys := make([]string, 0, t.NumField())
	for field := range t.Fields() {
		keys = append(keys, keyOf(field))
	}
	return keys
}

// keyOf is the name in a field's tag, without what says that it may be left out when it is printed.
func keyOf(field reflect.StructField) string {
	key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return key
}

// nearest suggests the known key that an unknown one was probably meant to be.
func nearest(key string, known []string) string {
	best := slices.MinFunc(append(known, ""), func(a, b string) int { return distance(key, a) - distance(key, b) })
	if best == "" || distance(key, best) > max(2, len(key)/3) {
		return "; known here: " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's, case aside.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
