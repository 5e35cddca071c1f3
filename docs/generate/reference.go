package generate

import (
	"fmt"
	"strings"
)

const referenceHead = `# The configuration of nodeagent on this host; nodeagent-config(5) has all of this too.
#
# Every key is here with its default. To change one, take away the # before it and change the
# value. A section that has no value has its defaults.
# Then: nodeagent config check; nodeagent plan; nodeagent apply.

`

// referenceWidth is how long a line of help may be.
const referenceWidth = 98

// configReference is a configuration in which everything is commented out, but for role and the
// names of sections: so each key can be opened alone. "# " begins help, "#" and no blank a key.
func configReference(keys []key) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for i, k := range keys {
		if k.element {
			continue // told with the list that it is in
		}
		depth := strings.Count(k.path, ".")
		indent := strings.Repeat("  ", depth)
		if depth == 0 && i > 0 {
			b.WriteString("\n")
		}
		help(&b, indent+"# ", plain(k.meaning))
		for _, inner := range keys[i+1:] {
			inside, is := strings.CutPrefix(inner.path, k.path)
			if is && inner.element && !k.mapping && strings.ContainsAny(inside[:1], ".[") {
				inside = strings.TrimLeft(inside, ".[]")
				help(&b, indent+"#   ", fmt.Sprintf("%s (%s): %s", inside, inner.kind, plain(inner.meaning)))
			}
		}
		name := k.path[strings.LastIndex(k.path, ".")+1:]
		switch {
		case k.required:
			fmt.Fprintf(&b, "%s%s: control-plane\n", indent, name)
		case k.mapping:
			fmt.Fprintf(&b, "%s%s:\n", indent, name)
		default:
			fmt.Fprintf(&b, "%s#%s: %s\n", indent, name, k.def)
		}
	}
	return b.String()
}

func plain(text string) string { return strings.ReplaceAll(text, "`", "") }

// help writes text on as many lines as it needs, each with a beginning of its own.
func help(b *strings.Builder, begin, text string) {
	line := begin
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > referenceWidth && line != begin {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = begin
		}
		line += word + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}
