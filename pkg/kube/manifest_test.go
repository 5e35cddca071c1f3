package kube

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: ns}\n"

func TestParseManifest(t *testing.T) {
	one := []string{"ConfigMap ns/a"}
	tests := map[string]struct {
		data string
		want []string
		err  string
	}{
		"empty":              {"", nil, ""},
		"comments":           {"# a\n---\n# b\n---\n\n", nil, ""},
		"null":               {"null\n---\n~\n", nil, ""},
		"one":                {config, one, ""},
		"byte order mark":    {"\ufeff" + config, one, ""},
		"CRLF":               {strings.ReplaceAll("---\n"+config+"---\n", "\n", "\r\n"), one, ""},
		"two":                {config + "---\n" + config, append(one, one...), ""},
		"comment on a rule":  {"--- # first\n" + config + "---   \n" + config, append(one, one...), ""},
		"text on a rule":     {"--- {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n", []string{"Namespace x"}, ""},
		"document end":       {config + "...\n" + config, append(one, one...), ""},
		"rule in a value":    {config + "data:\n  x: |\n    ---\n    ...\n  y: ---z\n", one, ""},
		"JSON":               {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"ns"}}`, one, ""},
		"list":               {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: z}}\n", []string{"Namespace x", "ConfigMap z"}, ""},
		"typed list":         {"apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: x}}\n", []string{"ConfigMap x"}, ""},
		"empty list":         {"apiVersion: v1\nkind: List\nitems: []\n", nil, ""},
		"kind named list":    {"apiVersion: x.io/v1\nkind: AllowList\nmetadata: {name: x}\nspec: {items: []}\n", []string{"AllowList x"}, ""},
		"alias":              {config + "data: &d {a: b}\nbinaryData: *d\n", one, ""},
		"duplicate key":      {config + "kind: Secret\n", nil, "document at line 1: "},
		"second is broken":   {config + "---\n\ta\n", nil, "document at line 4: "},
		"a scalar":           {"hello\n", nil, "document at line 1: is not an object"},
		"a sequence":         {"- 1\n", nil, "document at line 1: is not an object"},
		"no apiVersion":      {"kind: Pod\nmetadata: {name: x}\n", nil, "has no apiVersion"},
		"odd apiVersion":     {"apiVersion: a/b/c\nkind: Pod\nmetadata: {name: x}\n", nil, `apiVersion "a/b/c" is not`},
		"climbing version":   {"apiVersion: ../v1\nkind: Pod\nmetadata: {name: x}\n", nil, `apiVersion "../v1" is not`},
		"no kind":            {"apiVersion: v1\nmetadata: {name: x}\n", nil, "has no kind"},
		"no name":            {"apiVersion: v1\nkind: Pod\n", nil, "Pod has no metadata.name"},
		"generated name":     {"apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n", nil, "Pod has a generateName"},
		"climbing name":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: ..}\n", nil, `Pod ".."`},
		"climbing namespace": {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a/b}\n", nil, `in namespace "a/b"`},
		"broken item":        {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n", nil, "item 0: Pod has no metadata.name"},
		"deep lists":         {strings.Repeat("{apiVersion: v1, kind: List, items: [", 6) + strings.Repeat("]}", 6), nil, "lists lie too deep"},
		"yes for a name":     {"apiVersion: v1\nkind: Pod\nmetadata: {name: y}\n", nil, "read its kind and name"}, // YAML 1.1, as kubectl reads it
		"number for a name":  {"apiVersion: v1\nkind: Pod\nmetadata: {name: 7}\n", nil, "read its kind and name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			objects, err := ParseManifest([]byte(tt.data))
			var got []string
			for _, o := range objects {
				got = append(got, o.String())
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

// The document is sent as it was written, but for the annotation: numbers keep their digits.
func TestObjectJSON(t *testing.T) {
	objects, err := ParseManifest([]byte(config + "data: {b: x, a: '<&>'}\nsize: 9007199254740993\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := objects[0]
	want := `{"apiVersion":"v1","data":{"a":"\u003c\u0026\u003e","b":"x"},"kind":"ConfigMap","metadata":{"annotations":{"` + AppliedHash + `":"` + o.Hash + `"},"name":"a","namespace":"ns"},"size":9007199254740993}`
	if diff := cmp.Diff(want, string(o.JSON)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

// What is sent, parsed again, is the same object with the same hash: a manifest made from the
// live object is not taken for another one.
func FuzzParseManifest(f *testing.F) {
	for _, seed := range []string{
		config, config + "---\n" + config, "---\n--- x\n...\n", "kind: List\napiVersion: v1\nitems: [null, {}]\n",
		"apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}}]\n", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {x: y}}\n",
		`{"apiVersion":"v1","kind":"Pod","metadata":null,"Metadata":{"name":"x"}}`, "? a\n: b\n", "a: *b\n", "%YAML 1.2\n---\na: b\n", "\ufeff---\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := ParseManifest(data)
		if err != nil && objects != nil {
			t.Error("objects and an error")
		}
		for _, o := range objects {
			if !json.Valid(o.JSON) || o.Kind == "" || o.Name == "" || strings.Contains(o.Name+o.Namespace, "/") {
				t.Fatalf("%+v", o)
			}
			again, err := ParseManifest(o.JSON)
			if err != nil || len(again) != 1 {
				t.Fatalf("%s, parsed again: %v, %v", o.JSON, again, err)
			}
			if again[0].Hash != o.Hash || string(again[0].JSON) != string(o.JSON) {
				t.Errorf("%s, parsed again: %s", o.JSON, again[0].JSON)
			}
		}
	})
}
