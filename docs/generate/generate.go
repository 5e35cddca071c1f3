// Package generate writes the parts of the documentation that the code knows best: every key
// of the configuration, every command, every metric, the JSON of status. A test of cmd/nodeagent compares them
// with the files, and with -update writes those.
package generate

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// header stands in each Markdown file.
const header = "<!-- Written by `make generate`; edits are lost. -->\n\n"

// Files are the generated files, by path from the checkout's root. root is the program's
// command.
func Files(checkout string, root *cobra.Command) (map[string][]byte, error) {
	keys, err := configKeys(checkout)
	if err != nil {
		return nil, fmt.Errorf("describe configuration: %w", err)
	}
	list, err := metricList()
	if err != nil {
		return nil, fmt.Errorf("describe metrics: %w", err)
	}
	status, err := statusSchema(checkout)
	if err != nil {
		return nil, fmt.Errorf("describe status: %w", err)
	}
	commands := commandList(root)
	page, err := manPage(root, commands)
	if err != nil {
		return nil, fmt.Errorf("write manual page: %w", err)
	}
	reference := []byte(configReference(keys))
	return map[string][]byte{
		"pkg/config/reference.yaml":     reference, // what config init writes
		"docs/config.md":                []byte(configMarkdown(keys)),
		"docs/metrics.md":               []byte(metricsMarkdown(list)),
		"docs/status.schema.json":       status,
		"docs/cli.md":                   []byte(cliMarkdown(root, commands)),
		"deploy/man/nodeagent.8":        page,
		"deploy/man/nodeagent-config.5": []byte(configMan(keys)),
	}, nil
}

// sentence is text with a capital at its beginning and a full stop at its end.
func sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	if !strings.HasPrefix(text, "`") {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// cell is text for a table of Markdown.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
