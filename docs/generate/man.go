package generate

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:embed nodeagent.8.tmpl
var manTemplate string

// manPage is nodeagent(8), in mdoc: the template with all commands and flags.
func manPage(root *cobra.Command, commands []command) ([]byte, error) {
	page, err := template.New("nodeagent.8").Funcs(template.FuncMap{"text": roff, "flags": manFlags}).Parse(manTemplate)
	if err != nil {
		return nil, err
	}
	type entry struct {
		Path, About string
		Flags       *pflag.FlagSet
	}
	data := struct {
		Global   *pflag.FlagSet
		Commands []entry
	}{Global: root.PersistentFlags()}
	for _, c := range commands {
		path := c.path
		if path == "completion" {
			path = c.usage
		}
		data.Commands = append(data.Commands, entry{path, c.about, c.NonInheritedFlags()})
	}
	var out bytes.Buffer
	err = page.Execute(&out, data)
	return out.Bytes(), err
}

// roff is prose as mdoc takes it: a sentence a line is not needed, but no line may look like a
// macro, a blank line is a paragraph, and a backslash is written \e.
func roff(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.ReplaceAll(strings.TrimSpace(line), `\`, `\e`)
		switch {
		case line == "":
			line = ".Pp"
		case line[0] == '.' || line[0] == '\'':
			line = `\&` + line
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// manFlags is a list of flags.
func manFlags(flags *pflag.FlagSet) string {
	if !flags.HasAvailableFlags() {
		return ""
	}
	var b strings.Builder
	b.WriteString(".Bl -tag -width Ds\n")
	flags.VisitAll(func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString(".It ")
		if f.Shorthand != "" {
			fmt.Fprintf(&b, "Fl %s , ", f.Shorthand)
		}
		fmt.Fprintf(&b, "Fl -%s", f.Name)
		if value != "" {
			fmt.Fprintf(&b, " Ar %s", value)
		}
		text := sentence(usage)
		if f.DefValue != "" && f.DefValue != "[]" {
			text += "\nThe default is " + f.DefValue + "."
		}
		b.WriteString("\n" + roff(text) + "\n")
	})
	b.WriteString(".El\n")
	return b.String()
}

const configManHead = `.\" Written by make generate; edits are lost.
.Dd November 21, 2026
.Dt NODEAGENT-CONFIG 5
.Os
.Sh NAME
.Nm nodeagent-config
.Nd the configuration of nodeagent
.Sh DESCRIPTION
.Pa /etc/nodeagent/config.yaml
describes the node to
.Xr nodeagent 8 .
It is YAML, and only
.Cm role
has to be there.
Unknown keys are errors.
A list in the file replaces the default list.
.Pp
A file that somebody else than root or the user who runs the command can write or replace is refused.
Keys that name a file with a secret take
.Cm credential:NAME
too, a credential of the unit
.Pq Xr systemd.exec 5 , Cm LoadCredential ;
such a file is refused when others can read it.
What is passed through to kubeadm cannot hold what the agent sets itself.
.Pp
The keys, where a dot leads into a section and
.Cm []
into the entries of a list:
.Bl -tag -width Ds
`

const configManFoot = `.El
.Sh EXAMPLES
.Bd -literal
role: control-plane
network:
  cni: bridge
.Ed
.Sh SEE ALSO
.Xr nodeagent 8
`

// configMan is nodeagent-config(5).
func configMan(keys []key) string {
	var b strings.Builder
	b.WriteString(configManHead)
	for _, k := range keys {
		fmt.Fprintf(&b, ".It Cm %s Pq %s\n%s\n", k.path, k.kind, roff(strings.ReplaceAll(k.meaning, "`", "")))
		switch {
		case k.required:
			b.WriteString("It must be given.\n")
		case k.def != "":
			fmt.Fprintf(&b, "Default: %s\n", roff(k.def))
		}
	}
	b.WriteString(configManFoot)
	return b.String()
}
