package generate

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// command is one that an operator can type.
type command struct {
	path  string // without the program's name
	usage string // with its arguments
	about string
	*cobra.Command
}

// commandList is every command that does something, in the order of the program's help. What
// cobra brings is described here: its own text is about shells.
func commandList(root *cobra.Command) []command {
	root.InitDefaultCompletionCmd()
	var list []command
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			path := strings.TrimPrefix(c.CommandPath(), root.Name()+" ")
			switch {
			case path == "completion":
				list = append(list, command{path, "completion bash|zsh|fish", "Print a completion script for the shell. The package installs them.", &cobra.Command{}})
			case c.IsAvailableCommand() && c.HasAvailableSubCommands():
				walk(c)
			case c.IsAvailableCommand() && c.Name() != "help":
				list = append(list, command{path, strings.TrimPrefix(c.UseLine(), root.Name()+" "), about(c), c})
			}
		}
	}
	walk(root)
	return list
}

// about is a command's description: the long one says everything that the short one does.
func about(c *cobra.Command) string {
	if c.Long != "" {
		return strings.TrimSpace(c.Long)
	}
	return sentence(c.Short)
}

func cliMarkdown(root *cobra.Command, commands []command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s# Commands\n\n%s\n", header, about(root))
	fmt.Fprintf(&b, "\nFlags of every command:\n\n```\n%s```\n", root.PersistentFlags().FlagUsages())
	b.WriteString("\nData goes to standard output, messages to standard error.\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "\n## nodeagent %s\n\n%s\n", c.path, c.about)
		fmt.Fprintf(&b, "\n```\nnodeagent %s\n", strings.TrimSuffix(c.usage, " [flags]"))
		if flags := c.NonInheritedFlags(); flags.HasAvailableFlags() {
			b.WriteString(flags.FlagUsages())
		}
		b.WriteString("```\n")
		if c.Example != "" {
			fmt.Fprintf(&b, "\nFor example:\n\n```\n%s\n```\n", unindented(c.Example))
		}
	}
	return b.String()
}

// unindented is a command's examples without the two spaces that cobra's help wants before each.
func unindented(example string) string {
	return strings.ReplaceAll(strings.TrimPrefix(example, "  "), "\n  ", "\n")
}
