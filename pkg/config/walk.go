package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// walker goes through the YAML nodes beside the type that they are decoded into. It collects
// what does not fit, with lines, and the line of every key for complaints made later.
type walker struct {
	file     string
	lines    map[string]int
	problems []error
	fill     bool // hand the nodes to the fields that take YAML themselves
}

func (w *walker) complain(node *yaml.Node, path, format string, args ...any) {
	w.problems = append(w.problems, fmt.Errorf("%s:%d: %s: %s", w.file, node.Line, path, fmt.Sprintf(format, args...)))
}

func (w *walker) mapping(node *yaml.Node, v reflect.Value, path string) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := join(path, key.Value)
		field, known := fieldOf(v, key.Value)
		switch {
		case seen[key.Value]:
			w.complain(key, at, "is there twice")
		case !known:
			w.complain(key, at, "unknown key%s", nearest(key.Value, keysOf(v.Type())))
		default:
			w.lines[at] = key.Line
			w.value(value, field, at)
		}
		seen[key.Value] = true
	}
}

func (w *walker) value(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Tag == "!!null" {
		return // keeps the default
	}
	if u, ok := reflect.TypeAssert[yaml.Unmarshaler](v.Addr()); ok {
		w.unmarshal(node, u, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if node.Kind != yaml.MappingNode {
			w.complain(node, path, "must be a mapping")
			return
		}
		w.mapping(node, v, path)
	case reflect.Pointer:
		if v.IsNil() {
			w.value(node, reflect.New(v.Type().Elem()).Elem(), path)
			return
		}
		w.value(node, v.Elem(), path)
	case reflect.Slice:
		w.sequence(node, v, path)
	default:
		w.scalar(node, v.Type(), path)
	}
}

func (w *walker) unmarshal(node *yaml.Node, u yaml.Unmarshaler, path string) {
	if !w.fill {
		u = reflect.New(reflect.TypeOf(u).Elem()).Interface().(yaml.Unmarshaler)
	}
	if err := u.UnmarshalYAML(node); err != nil {
		w.complain(node, path, "%v", err)
	}
}

func (w *walker) sequence(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.SequenceNode {
		w.complain(node, path, "must be a list")
		return
	}
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		w.lines[at] = item.Line
		element := reflect.New(v.Type().Elem()).Elem()
		if w.fill && i < v.Len() {
			element = v.Index(i)
		}
		w.value(item, element, at)
	}
}

func (w *walker) scalar(node *yaml.Node, t reflect.Type, path string) {
	if node.Kind != yaml.ScalarNode {
		w.complain(node, path, "must be a single value")
		return
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		if _, err := time.ParseDuration(node.Value); err != nil || node.Tag != "!!str" {
			w.complain(node, path, "%q is not a duration: it needs a unit, as in 30s, 10m or 6h", node.Value)
		}
	case t.Kind() == reflect.String && node.Tag != "!!str":
		w.complain(node, path, "must be a string: write %q in quotes", node.Value)
	case t.Kind() == reflect.Bool && node.Tag != "!!bool":
		w.complain(node, path, "%q is neither true nor false", node.Value)
	case t.Kind() == reflect.Int && node.Tag != "!!int":
		w.complain(node, path, "%q is not a whole number", node.Value)
	}
}

// locate puts file and line before each complaint of Validate: those of the key that it
// begins with, or of the nearest one above it that is in the file.
func (w *walker) locate(err error) error {
	var errs []error
	for _, e := range flatten(err) {
		path, _, _ := strings.Cut(e.Error(), ": ")
		line := 0
		for p := path; p != "" && line == 0; p = parent(p) {
			line = w.lines[p]
		}
		if line == 0 {
			errs = append(errs, fmt.Errorf("%s: %w", w.file, e))
			continue
		}
		errs = append(errs, fmt.Errorf("%s:%d: %w", w.file, line, e))
	}
	return errors.Join(errs...)
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
		if v.Type().Field(i).Tag.Get("yaml") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	keys := make([]string, 0, t.NumField())
	for field := range t.Fields() {
		keys = append(keys, field.Tag.Get("yaml"))
	}
	return keys
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
