package generate

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/config"
)

const module = "github.com/nodeagent/nodeagent/"

// key is one key of the configuration, in the order of the file.
type key struct {
	path     string // kernel.sysctls[].name
	section  bool   // a mapping of further keys, at the top of the file
	mapping  bool   // a mapping of further keys, anywhere
	element  bool   // within what is a list's element, or absent unless it is given
	kind     string
	required bool
	def      string // as it would be written; "" where a list's element has none
	meaning  string
}

// configKeys reads the keys and defaults from the types and what they mean from the comments
// in their sources. A key without a comment is an error.
func configKeys(checkout string) ([]key, error) {
	cfg := config.Default()
	r := &reader{checkout: checkout, tag: "yaml", docs: map[reflect.Type]map[string]string{}}
	var missing string
	if err := cfg.Validate(); err != nil {
		missing = err.Error()
	}
	if err := r.fields(reflect.ValueOf(cfg), "", true); err != nil {
		return nil, err
	}
	for i, k := range r.keys {
		r.keys[i].required = strings.Contains("\n"+missing, "\n"+k.path+": is missing")
	}
	return r.keys, nil
}

type reader struct {
	checkout string
	tag      string // the kind of tag that names a field in the file
	keys     []key
	docs     map[reflect.Type]map[string]string // type → field → its comment
}

// fields adds the keys of a struct. Those of a list's elements have no default of their own.
func (r *reader) fields(v reflect.Value, path string, defaults bool) error {
	docs, err := r.comments(v.Type())
	if err != nil {
		return err
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "" {
			return fmt.Errorf("field %s of %s has no tag", field.Name, v.Type())
		}
		k := key{path: strings.TrimPrefix(path+"."+name, "."), kind: kindOf(field.Type), meaning: docs[field.Name]}
		if k.meaning == "" {
			return fmt.Errorf("%s: field %s of %s has no comment", k.path, field.Name, v.Type())
		}
		inner, element := v.Field(i), field.Type
		if element.Kind() == reflect.Slice {
			element = element.Elem()
		}
		if element.Kind() == reflect.Pointer {
			element = element.Elem()
		}
		nested := element.Kind() == reflect.Struct && element != reflect.TypeFor[bootstrap.Passthrough]()
		k.mapping = nested && element == field.Type && defaults
		k.section = k.mapping && path == ""
		k.element = !defaults
		if defaults && !k.section {
			if k.def, err = flow(inner.Interface()); err != nil {
				return err
			}
		}
		r.keys = append(r.keys, k)
		switch {
		case nested && element == field.Type:
			err = r.fields(inner, k.path, defaults)
		case nested && field.Type.Kind() == reflect.Slice:
			err = r.fields(reflect.New(element).Elem(), k.path+"[]", false)
		case nested:
			err = r.fields(reflect.New(element).Elem(), k.path, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flow is a value as it would be written on one line of the file.
func flow(value any) (string, error) {
	var node yaml.Node
	if err := node.Encode(value); err != nil {
		return "", err
	}
	if node.Kind == yaml.SequenceNode || node.Kind == yaml.MappingNode {
		node.Style = yaml.FlowStyle
	}
	out, err := yaml.Marshal(&node)
	return strings.TrimSpace(string(out)), err
}

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.Slice:
		return "list of " + map[string]string{"string": "strings", "mapping": "mappings"}[kindOf(t.Elem())]
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "number"
	}
	return "mapping"
}

// comments are those of a type's fields, before or behind them, on one line, with the names of
// fields as they are in the file.
func (r *reader) comments(t reflect.Type) (map[string]string, error) {
	if docs, ok := r.docs[t]; ok {
		return docs, nil
	}
	dir := filepath.Join(r.checkout, strings.TrimPrefix(t.PkgPath(), module))
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		if object := file.Scope.Lookup(t.Name()); object != nil {
			spec, ok := object.Decl.(*ast.TypeSpec)
			if !ok {
				break
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				break
			}
			r.docs[t] = fieldComments(fields, t, r.tag)
			return r.docs[t], nil
		}
	}
	return nil, errors.New("no source of type " + t.String())
}

func fieldComments(fields *ast.StructType, t reflect.Type, tag string) map[string]string {
	docs := map[string]string{}
	for _, field := range fields.Fields.List {
		text := field.Doc.Text()
		if text == "" {
			text = field.Comment.Text()
		}
		text = strings.Join(strings.Fields(text), " ")
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get(tag), ",")
			word := regexp.MustCompile(`\b` + field.Name + `\b`)
			text = word.ReplaceAllLiteralString(text, "`"+name+"`")
		}
		for _, name := range field.Names {
			if tag == "yaml" { // what JSON holds is described in words that are values too
				text = sentence(text)
			}
			docs[name.Name] = text
		}
	}
	return docs
}

const configIntro = `# Configuration

One YAML file, ` + "`/etc/nodeagent/config.yaml`" + `, describes the node. Only ` + "`role`" + ` has to be there.
Unknown keys, keys given twice and values of another type are errors, which name the file, the line
and the nearest known key; all that is wrong is told at once. A duration needs its unit: ` + "`30s`, `10m`, `6h`" + `.
A list in the file replaces the default list. A section or key without a value has its default.

` + "`nodeagent config init`" + ` writes a first file, with every key commented out beside its default and its
help; ` + "`nodeagent config check`" + ` says what is wrong with it, ` + "`nodeagent config print`" + ` shows it with every
default and without secrets.

## Who may write it

The agent is root, and so is whoever writes its configuration. The file is refused when its group or others can
write it, when it belongs to neither root nor the user who runs the command, and when somebody else can put
another one in its place: a directory or link on the way to it belongs to another user, or a directory can be
written by others (everybody, or a group that is neither root's nor that user's own) and is not sticky. The error names
what it is about, its mode and the command that mends it. The same holds for every file that it names and that decides
what root does: add-ons, patches, image archives, the key of a repository, a registry's certificate authority, an audit
policy. With ` + "`--root`" + ` this is looked at from the image's root on. A file of more than
1 MiB is refused too.

## Secrets

The file holds no secrets. Keys whose name ends in ` + "`File`" + ` and whose meaning below speaks of a secret name a
file with it, which is refused unless it is a regular one of root's that nobody else can read or write. Instead of
a path they take ` + "`credential:NAME`" + `, a credential that systemd hands to the unit:

` + "```ini" + `
# /etc/systemd/system/nodeagent.service.d/credentials.conf
[Service]
LoadCredential=web:/etc/nodeagent/web.yaml
` + "```" + `

` + "```yaml" + `
metrics:
  webConfigFile: credential:web
` + "```" + `

A command that somebody types finds those of the running unit. What is passed through to kubeadm may hold a token
or a key; ` + "`config print`" + ` shows REDACTED in their place, and a file that has one is refused when others can read it.

## Passed through to kubeadm

What kubeadm knows and this file does not is given under ` + "`kubeadm`" + ` in its own words and merged over what the agent
renders. One rule keeps the two apart: what the agent sets itself cannot be given there, since the rest of the agent
goes by its own key. The exceptions, where yours wins, are the kubelet's argument ` + "`node-ip`" + `, since dual stack needs two
addresses, and all that ` + "`kubeadm.hardening`" + ` sets: [hardening.md](hardening.md). Arguments and volumes are merged by their name,
mappings by their keys; any other list takes the place of the agent's.

Files that this names are looked at before kubeadm runs: a patch in ` + "`kubeadm.patches`" + ` whose name kubeadm would ignore, or that somebody
else can write, a client certificate of an external etcd that is not its key's, or a key that others can read, is an
error of the step ` + "`kubeadm/config`" + `. So is a file that an argument of the control plane or the kubelet names, if somebody else can
write it, or, where it holds keys, tokens or a kubeconfig (` + "`encryption-provider-config`" + `, ` + "`token-auth-file`" + `, ` + "`tls-private-key-file`" + `), read it.

`

// ownKeys is the table of what cannot be passed through.
func ownKeys() string {
	var b strings.Builder
	b.WriteString("| Not below `kubeadm` | but |\n|---|---|\n")
	for _, k := range bootstrap.OwnKeys() {
		instead := "`" + k.Instead + "`"
		if k.Instead == "" {
			instead = "always `" + k.Always + "`, which may be said"
		}
		fmt.Fprintf(&b, "| `%s.%s` | %s |\n", k.Document, k.Path, instead)
	}
	return b.String()
}

func configMarkdown(keys []key) string {
	var b strings.Builder
	b.WriteString(header + configIntro + ownKeys())
	const columns = "\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
	b.WriteString("\n## At the top" + "\n" + columns)
	for _, k := range keys {
		if !strings.Contains(k.path, ".") && !k.section {
			b.WriteString(row(k, k.path))
		}
	}
	for i, k := range keys {
		switch {
		case k.section:
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", k.path, k.meaning)
			if i+1 < len(keys) && strings.HasPrefix(keys[i+1].path, k.path+".") {
				b.WriteString(columns)
			}
		case strings.Contains(k.path, "."):
			b.WriteString(row(k, k.path))
		}
	}
	return b.String()
}

func row(k key, name string) string {
	def := ""
	switch {
	case k.required:
		def = "none, it must be given"
	case k.def != "":
		def = "`" + k.def + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, k.kind, cell(def), cell(k.meaning))
}
