package kube

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// AppliedHash is the annotation that every applied object carries: the sha256 of its document,
// as canonical JSON without this annotation. By it a later run tells a document that was edited
// from an object that somebody has changed in the API.
const AppliedHash = "nodeagent.dev/applied-hash"

// Object is one document of a manifest.
type Object struct {
	APIVersion string
	Kind       string
	Namespace  string // as written; empty also for a namespaced object of the default one
	Name       string
	// JSON is the document, with the annotation AppliedHash. Keys are sorted.
	JSON []byte
	// Hash is the value of the annotation.
	Hash string
}

// String names the object as kubectl would: "ConfigMap kube-system/coredns".
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// ID is equal for two documents of one object, whatever version of its kind they are in.
func (o Object) ID() string {
	namespace := o.Namespace
	if namespace == "" {
		namespace = "default" // for an object that is in none this does not matter
	}
	return o.groupKind() + " " + namespace + "/" + o.Name
}

// ParseManifest splits a manifest into its objects, in their order: YAML documents, JSON, and
// the items of lists. Empty documents and comments are passed over. Every object has an
// apiVersion, a kind and a name; a key that is there twice is an error. Errors name the line
// that the document begins at.
func ParseManifest(data []byte) ([]Object, error) {
	var out []Object
	for _, d := range split(data) {
		body, err := yaml.YAMLToJSONStrict(d.text)
		if err != nil {
			return nil, fmt.Errorf("document at line %d: %w", d.line, err)
		}
		objects, err := decode(body, meta{}, 0)
		if err != nil {
			return nil, fmt.Errorf("document at line %d: %w", d.line, err)
		}
		out = append(out, objects...)
	}
	return out, nil
}

type document struct {
	line int // counts from 1
	text []byte
}

// split cuts at the lines "---" and "...", which YAML allows nowhere else at the start of a
// line. What follows "---" on its line belongs to the document.
func split(data []byte) []document {
	var (
		out  []document
		at   = 1
		text []byte
		line = 0
	)
	flush := func(next int) {
		out = append(out, document{at, text})
		at, text = next, nil
	}
	for l := range bytes.Lines(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		line++
		bare := bytes.TrimRight(l, " \t\r\n")
		switch {
		case bytes.Equal(bare, []byte("---")) || bytes.HasPrefix(bare, []byte("--- ")) || bytes.HasPrefix(bare, []byte("---\t")):
			flush(line)
			text = append(text, l[len("---"):]...)
		case bytes.Equal(bare, []byte("...")):
			flush(line)
		default:
			text = append(text, l...)
		}
	}
	flush(line)
	return out
}

// meta is what names a document.
type meta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name         string            `json:"name"`
		Namespace    string            `json:"namespace"`
		GenerateName string            `json:"generateName"`
		Annotations  map[string]string `json:"annotations"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// maxDepth is how deep lists may lie in lists.
const maxDepth = 4

// decode makes objects of one document. An item of a typed list takes the kind and version
// that it lacks from implied.
func decode(body []byte, implied meta, depth int) ([]Object, error) {
	if body = bytes.TrimSpace(body); len(body) == 0 || bytes.Equal(body, []byte("null")) {
		return nil, nil
	}
	if body[0] != '{' {
		return nil, errors.New("is not an object: an apiVersion, a kind and a name are needed")
	}
	m := implied
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("read its kind and name: %w", err)
	}
	if m.Items != nil && strings.HasSuffix(m.Kind, "List") {
		if depth == maxDepth {
			return nil, errors.New("lists lie too deep in lists")
		}
		var inner meta
		if kind := strings.TrimSuffix(m.Kind, "List"); kind != "" {
			inner.Kind, inner.APIVersion = kind, m.APIVersion
		}
		var out []Object
		for i, item := range m.Items {
			objects, err := decode(item, inner, depth+1)
			if err != nil {
				return nil, fmt.Errorf("item %d: %w", i, err)
			}
			out = append(out, objects...)
		}
		return out, nil
	}
	object, err := newObject(m, body)
	if err != nil {
		return nil, err
	}
	return []Object{object}, nil
}

func newObject(m meta, body []byte) (Object, error) {
	o := Object{APIVersion: m.APIVersion, Kind: m.Kind, Namespace: m.Metadata.Namespace, Name: m.Metadata.Name}
	group, version, grouped := strings.Cut(o.APIVersion, "/")
	switch {
	case o.APIVersion == "":
		return Object{}, errors.New("has no apiVersion")
	case !isSegment(group) || grouped && !isSegment(version):
		return Object{}, fmt.Errorf("apiVersion %q is not a version, nor a group and a version", o.APIVersion)
	case o.Kind == "":
		return Object{}, errors.New("has no kind")
	case o.Name == "" && m.Metadata.GenerateName != "":
		return Object{}, fmt.Errorf("%s has a generateName: it would be made anew each time; give it a name", o.Kind)
	case o.Name == "":
		return Object{}, fmt.Errorf("%s has no metadata.name", o.Kind)
	case !isSegment(o.Name) || o.Namespace != "" && !isSegment(o.Namespace):
		return Object{}, fmt.Errorf("%s %q in namespace %q: not a name the API knows", o.Kind, o.Name, o.Namespace)
	}
	return annotate(o, m, body)
}

// annotate sets Hash and JSON.
func annotate(o Object, m meta, body []byte) (Object, error) {
	var top, metadata map[string]json.RawMessage
	if err := json.Unmarshal(body, &top); err != nil {
		return Object{}, fmt.Errorf("read its fields: %w", err)
	}
	if err := json.Unmarshal(top["metadata"], &metadata); err != nil || metadata == nil {
		return Object{}, errors.New("has no metadata")
	}
	annotations := m.Metadata.Annotations
	delete(annotations, AppliedHash)
	if len(annotations) == 0 {
		annotations = nil
	}
	put := func(into map[string]json.RawMessage, key string, value any) error {
		raw, err := json.Marshal(value)
		into[key] = raw
		return err
	}
	build := func() error {
		return errors.Join(
			put(metadata, "annotations", annotations), put(top, "metadata", metadata),
			put(top, "apiVersion", o.APIVersion), put(top, "kind", o.Kind),
		)
	}
	if err := build(); err != nil {
		return Object{}, err
	}
	plain, err := json.Marshal(top)
	if err != nil {
		return Object{}, err
	}
	sum := sha256.Sum256(plain)
	o.Hash = hex.EncodeToString(sum[:])
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AppliedHash] = o.Hash
	if err := build(); err != nil {
		return Object{}, err
	}
	o.JSON, err = json.Marshal(top)
	return o, err
}

// isSegment says whether a name may stand in a path of the API: not empty, no step up, no
// slash and nothing to escape.
func isSegment(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/%")
}
