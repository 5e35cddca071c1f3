package bootstrap

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// The file belongs to its operator. An edit touches the bytes of one value, or adds one line
// or one table; all else, comments included, stays as it is, and the result is decoded to
// prove that nothing else changed.

// tomlEntry is one `key = value` of a document, in an inline table or on a line of its own.
type tomlEntry struct {
	path   []string // of the value, from the root
	scope  int      // how much of path the header or the inline table around it gives
	inline bool     // lies in an inline table
	table  bool     // the value is an inline table
	array  []tomlSpan
	start  int // where the key begins
	value  int // where the value begins
	end    int // behind the value
}

// tomlSpan is one string in an array.
type tomlSpan struct {
	text       string
	start, end int
}

// tomlHeader is one [table], or the root before the first of them.
type tomlHeader struct {
	path  []string
	start int // of its line; the bytes in front are blank
	last  int // behind the last byte of what it holds: of its keys, or of itself
	keys  int
}

type tomlDoc struct {
	data    []byte
	entries []tomlEntry
	headers []tomlHeader
}

// parseTOML finds the places of a document. What an array of tables holds is left out: it has
// no path of its own.
func parseTOML(data []byte) (tomlDoc, error) {
	doc := tomlDoc{data: data, headers: []tomlHeader{{}}}
	var p unstable.Parser
	p.Reset(data)
	arrays := map[string]bool{}
	skip := false
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			path, first, last := tomlKey(e)
			if e.Kind == unstable.ArrayTable {
				arrays[strings.Join(path, "\x00")] = true
			}
			skip = false
			for i := range path {
				skip = skip || arrays[strings.Join(path[:i+1], "\x00")]
			}
			if skip {
				continue
			}
			end := last + bytes.IndexByte(data[last:], ']') + 1
			start := bytes.LastIndexByte(data[:first], '[')
			doc.headers = append(doc.headers, tomlHeader{path: path, start: start, last: end})
		case unstable.KeyValue:
			if skip {
				continue
			}
			h := &doc.headers[len(doc.headers)-1]
			h.last, h.keys = int(e.Raw.Offset+e.Raw.Length), h.keys+1
			doc.addEntry(e, h.path, false)
		}
	}
	if err := p.Error(); err != nil {
		return tomlDoc{}, fmt.Errorf("parse TOML: %w", err)
	}
	return doc, nil
}

func (d *tomlDoc) addEntry(e *unstable.Node, scope []string, inline bool) {
	key, start, keyEnd := tomlKey(e)
	value := keyEnd + bytes.IndexByte(d.data[keyEnd:], '=') + 1
	for d.data[value] == ' ' || d.data[value] == '\t' {
		value++
	}
	path := slices.Concat(scope, key)
	entry := tomlEntry{
		path: path, scope: len(scope), inline: inline, table: e.Value().Kind == unstable.InlineTable,
		start: start, value: value, end: int(e.Raw.Offset + e.Raw.Length),
	}
	if e.Value().Kind == unstable.Array {
		entry.array = stringsOf(e.Value())
	}
	d.entries = append(d.entries, entry)
	if entry.table {
		for it := e.Value().Children(); it.Next(); {
			if n := it.Node(); n.Kind == unstable.KeyValue {
				d.addEntry(n, path, true)
			}
		}
	}
}

// stringsOf are the elements of an array of strings, nil for any other.
func stringsOf(array *unstable.Node) []tomlSpan {
	var spans []tomlSpan
	for it := array.Children(); it.Next(); {
		n := it.Node()
		if n.Kind != unstable.String {
			return nil
		}
		at := int(n.Raw.Offset)
		spans = append(spans, tomlSpan{string(n.Data), at, at + int(n.Raw.Length)})
	}
	return spans
}

// tomlKey is the key of a header or an entry, where it begins and what lies behind it.
func tomlKey(e *unstable.Node) (path []string, start, end int) {
	it := e.Key()
	for it.Next() {
		n := it.Node()
		if path == nil {
			start = int(n.Raw.Offset)
		}
		path = append(path, string(n.Data))
		end = int(n.Raw.Offset + n.Raw.Length)
	}
	return path, start, end
}

func tomlValue(value any) (string, error) {
	switch v := value.(type) {
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case string:
		return quoteTOML(v), nil
	case []any:
		words := make([]string, len(v))
		for i := range v {
			word, err := tomlValue(v[i])
			if err != nil {
				return "", err
			}
			words[i] = word
		}
		return "[" + strings.Join(words, ", ") + "]", nil
	}
	return "", fmt.Errorf("write %T as TOML: not supported", value)
}

// dotted is a path as TOML writes it, quoted where it has to be.
func dotted(path []string) string {
	keys := make([]string, len(path))
	for i, key := range path {
		bare := func(c rune) bool {
			return c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		}
		if keys[i] = key; key == "" || strings.ContainsFunc(key, func(c rune) bool { return !bare(c) }) {
			keys[i] = quoteTOML(key)
		}
	}
	return strings.Join(keys, ".")
}

func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteRune('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
