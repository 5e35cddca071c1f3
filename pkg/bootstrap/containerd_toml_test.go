package bootstrap

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSetTOML(t *testing.T) {
	for _, tt := range []struct {
		name, doc, path string
		value           any
		want            string
	}{
		{"empty document", "", "a.b", true, "[a]\n  b = true\n"},
		{"value", "a = 'x' # why\n", "a", "y", "a = \"y\" # why\n"},
		{"value with spaces", "  a\t=\t  true\t# why", "a", false, "  a\t=\t  false\t# why"},
		{"multi-line string", "a = '''\nx\ny'''\nb = 1\n", "a", "z", "a = \"z\"\nb = 1\n"},
		{"list", "a = [ # one\n 'x', ]\n", "a", []any{"x", "y"}, "a = [\"x\", \"y\"]\n"},
		{"in a table", "[a.b] # t\n# c\nx = 1\n\n[c]\n", "a.b.y", int64(2), "[a.b] # t\n# c\nx = 1\ny = 2\n\n[c]\n"},
		{"in a table without keys", "\t[ a . b ]# t\n# c\n[c]\n", "a.b.y", true, "\t[ a . b ]# t\n\t  y = true\n# c\n[c]\n"},
		{"in a table at the end", "[a]\n    x = 1", "a.y", true, "[a]\n    x = 1\n    y = true\n"},
		{"behind a value of many lines", "[a]\nx = [\n 1, # ]\n] # end\n[b]\n", "a.y", true, "[a]\nx = [\n 1, # ]\n] # end\ny = true\n[b]\n"},
		{"quoted keys", "[plugins.'io.x.v1.cri'.\"c\"]\nx = 1\n", "plugins/io.x.v1.cri/c/y", true, "[plugins.'io.x.v1.cri'.\"c\"]\nx = 1\ny = true\n"},
		{"new table with a quoted key", "version = 2\n", "plugins/io.x/say \"hi\"", true, "version = 2\n\n[plugins.\"io.x\"]\n  \"say \\\"hi\\\"\" = true\n"},
		{"inline table", "a = { b = 1 } # c\n", "a.c", true, "a = { c = true, b = 1 } # c\n"},
		{"empty inline table", "a = {}\n", "a.c", true, "a = { c = true }\n"},
		{"empty inline table with a blank", "a = {  }\n", "a.b.c", true, "a = { b.c = true   }\n"},
		{"inline table in one", "a = { b = { c = 'x' } }\n", "a.b.c", "y", "a = { b = { c = \"y\" } }\n"},
		{"new key in an inline table in one", "[t]\na = { b = { c = 'x' } }\n", "t.a.b.d", "y", "[t]\na = { b = { d = \"y\", c = 'x' } }\n"},
		{"dotted keys", "[a]\n  b.c.d = 1\n", "a.b.x.y", true, "[a]\n  b.x.y = true\n  b.c.d = 1\n"},
		{"root key without any", "# c\n[a]\n", "b", true, "b = true\n# c\n[a]\n"},
		{"root key", "x = 1\n# c\n[a]\n", "b", true, "x = 1\nb = true\n# c\n[a]\n"},
		{"brace in a comment", "a = {} # {}\n", "a.b", true, "a = { b = true } # {}\n"},
		{"line ends of Windows", "[a]\r\nx = 1\r\n", "a.y", true, "[a]\r\nx = 1\r\ny = true\r\n"},
		{"characters", "", "a.b", "tab\t quote\" back\\ ä\x01", "[a]\n  b = \"tab\\u0009 quote\\\" back\\\\ ä\\u0001\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := setTOML([]byte(tt.doc), pathOf(tt.path), tt.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
			again, err := setTOML(got, pathOf(tt.path), tt.value)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("a second time: %q, %v", again, err)
			}
		})
	}
}

// pathOf splits at slashes if there are any, else at dots.
func pathOf(s string) []string {
	if strings.Contains(s, "/") {
		return strings.Split(s, "/")
	}
	return strings.Split(s, ".")
}

func TestSetTOMLRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"not TOML":              "[a",
		"a table there":         "[a.b]\n",
		"an inline table there": "a.b = {}\n",
		"a list there":          "a.b = []\n",
		"a value on the way":    "a = 1\n",
		"an array of tables":    "[[a]]\nb = 1\n",
	} {
		if got, err := setTOML([]byte(doc), []string{"a", "b"}, true); err == nil {
			t.Errorf("%s: made %q", name, got)
		}
	}
	if _, err := setTOML(nil, []string{"a"}, 1.5); err == nil {
		t.Error("a float is accepted")
	}
}

func TestDropTOML(t *testing.T) {
	for doc, want := range map[string]string{
		"x = 1\n":                          "x = 1\n",
		"a = []\n":                         "a = []\n",
		"a = ['cri']\n":                    "a = []\n",
		"a = ['cri',]\n":                   "a = []\n",
		"a = ['cri', 'x']\n":               "a = ['x']\n",
		"a = ['x', 'cri'] # cri\n":         "a = ['x'] # cri\n",
		"a = ['cri', 'x', \"cri\"]\n":      "a = ['x']\n",
		"a = [ # ,\n 'cri' # b\n , 'x' ]":  "a = [ # ,\n  # b\n 'x' ]",
		"a = [\n 'x' # ,\n , 'cri' # d\n]": "a = [\n 'x' # ,\n  # d\n]",
		"a = 'cri'\n":                      "a = 'cri'\n",
		"a = [1, 2]\n":                     "a = [1, 2]\n",
	} {
		got, err := dropTOML([]byte(doc), []string{"a"}, isCRI)
		if err != nil || string(got) != want {
			t.Errorf("%q becomes %q, want %q; %v", doc, got, want, err)
		}
	}
}

// FuzzTOML holds the editor to its promise on any document that it does not refuse: decoded,
// the result is the old document with the change (setTOML proves it by itself), and all bytes
// of the old one but those of the replaced value are there, in their order.
func FuzzTOML(f *testing.F) {
	for _, doc := range []string{
		"", "a.b.c = 1", "[a]\nb = {c = true}\n", "[a.b]\n# x\nc = '''\n'''\n", "a = {b = {c = [{}]}}", "[[a]]\n[a.b]\nc=1",
		"a.b = {}", "[a]\r\nb.x = 1 # ]\r\n", "[a]\n[a.b.c.d]\n", "a.b.x=1", "\"a\".'b'.\"c\" = [\"cri\", 'x'] # c", "[ a . b ]",
		"c = ['cri', # x\n 'cri']\n", "a = {b.c = 1}", "[a.b]", "b = [[], ['cri']]", "[a]\nb.c = 2024-01-01T00:00:00Z",
	} {
		f.Add(doc, true)
		f.Add(doc, false)
	}
	path := []string{"a", "b", "c"}
	f.Fuzz(func(t *testing.T, doc string, asString bool) {
		if len(doc) > 1<<12 {
			return
		}
		var value any = true
		if asString {
			value = "cri"
		}
		if got, err := setTOML([]byte(doc), path, value); err == nil {
			tree, err := decodeTOML(got)
			if err != nil || lookTree(tree, path) != value {
				t.Fatalf("%q becomes %q: %v", doc, got, err)
			}
			again, err := setTOML(got, path, value)
			if err != nil || !bytes.Equal(again, got) {
				t.Fatalf("%q, a second time: %q, %v", got, again, err)
			}
			if before, err := decodeTOML([]byte(doc)); err == nil && lookTree(before, path) == nil && !subsequence(doc, string(got)) {
				t.Fatalf("%q lost bytes in %q", doc, got)
			}
		}
		got, err := dropTOML([]byte(doc), []string{"c"}, isCRI)
		if err != nil {
			return
		}
		tree, err := decodeTOML(got)
		if err != nil {
			if _, err := decodeTOML([]byte(doc)); err != nil {
				return
			}
			t.Fatalf("%q becomes %q: %v", doc, got, err)
		}
		list, _ := tree["c"].([]any)
		onlyStrings := !slices.ContainsFunc(list, func(v any) bool { _, is := v.(string); return !is })
		if onlyStrings && slices.Contains(list, any("cri")) {
			t.Fatalf("%q keeps what was to be dropped: %q", doc, got)
		}
		if !subsequence(string(got), doc) {
			t.Fatalf("%q gained bytes in %q", doc, got)
		}
	})
}

// subsequence says that all of a is in b, in its order.
func subsequence(a, b string) bool {
	for i := range len(b) {
		if a != "" && a[0] == b[i] {
			a = a[1:]
		}
	}
	return a == ""
}
