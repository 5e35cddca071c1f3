package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// app is what every command has: the global flags and the streams.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	configPath string
	root       string
	output     string

	lockTimeout time.Duration
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "nodeagent",
		Short: "Make this host a node of a kubeadm cluster, keep it so and show it",
		Long: `nodeagent makes a host a node of a kubeadm cluster, keeps it so and shows it.

One file describes the node, /etc/nodeagent/config.yaml. "nodeagent plan" prints
how the host differs from it, "nodeagent apply" makes it so, and the daemon,
"nodeagent run", takes etcd snapshots, watches certificates and serves metrics.

Exit codes: 0 fine, 1 failed, 2 the host differs (plan) or is not well (status),
5 a lock is held, 64 usage, 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          needsCommand,
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", config.DefaultPath, "configuration `file`")
	flags.StringVar(&a.root, "root", "/", "work on the machine image at this `directory`, not on this host")
	flags.StringVarP(&a.output, "output", "o", "table", "output `format`: table, json or yaml")
	flags.DurationVar(&a.lockTimeout, "lock-timeout", lockPatience, "how long to wait for another nodeagent that holds a lock")
	root.AddCommand(
		a.planCommand(), a.applyCommand(), a.runCommand(), a.statusCommand(),
		a.snapshotCommand(), a.certsCommand(), a.configCommand(), a.versionCommand(),
	)
	root.CompletionOptions.HiddenDefaultCmd = false
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.checkFlags() }
	root.InitDefaultCompletionCmd()
	argumentErrors(root)
	return root
}

// checkFlags looks at the global flags.
func (a *app) checkFlags() (err error) {
	switch a.output {
	case "table", "json", "yaml":
	default:
		return usageError{fmt.Errorf("output format %q is none of table, json, yaml", a.output)}
	}
	a.configPath, err = filepath.Abs(a.configPath)
	return err
}

// needsCommand is the RunE of a command that only groups others: cobra would print help and
// exit 0 on a misspelled sub-command.
func needsCommand(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usageError{fmt.Errorf("%s: needs a command: %s", cmd.CommandPath(), strings.Join(names, ", "))}
}

// argumentErrors makes a wrong number of arguments, or an unknown command, a usage error.
func argumentErrors(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	if !cmd.Runnable() { // cobra's own "completion": help would be a success
		cmd.RunE = needsCommand
	}
	cmd.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
	for _, c := range cmd.Commands() {
		argumentErrors(c)
	}
}

func (a *app) host() *host.Host { return host.New(a.root) }

// errNoConfig is a host that nobody has written a configuration for.
var errNoConfig = errors.New("there is no configuration")

// loadConfig reads the file that --config names; below --root it is the image's own, or else
// this host's. What somebody else can write is not read, and one with a secret in it is refused
// if somebody else can read it.
func (a *app) loadConfig(h *host.Host) (config.Config, error) {
	data, err := h.ReadTrusted(a.configPath, config.MaxSize)
	if h.Offline && errors.Is(err, fs.ErrNotExist) {
		h = host.New("/")
		data, err = h.ReadTrusted(a.configPath, config.MaxSize)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return config.Config{}, fmt.Errorf("%w: %s does not exist; `nodeagent config init` writes one", errNoConfig, a.configPath)
	case errors.Is(err, fs.ErrPermission):
		return config.Config{}, fmt.Errorf("read configuration: %w; run this as root", err)
	case err != nil:
		return config.Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := config.Parse(a.configPath, data)
	if err != nil {
		return cfg, err
	}
	if secrets := cfg.Secrets(); len(secrets) > 0 {
		if err := h.CheckSecret(a.configPath); err != nil {
			return config.Config{}, fmt.Errorf("read configuration: it holds a secret, %s: %w", secrets[0], err)
		}
	}
	return cfg, nil
}

// print writes value in the format of --output; table is the function that knows the table.
func print[T any](a *app, value T, table func(io.Writer) error) error {
	var out []byte
	var err error
	switch a.output {
	case "json":
		if out, err = json.MarshalIndent(value, "", "  "); err == nil {
			out = append(out, '\n')
		}
	case "yaml":
		out, err = yaml.Marshal(value)
	default:
		return table(a.stdout)
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	_, err = a.stdout.Write(out)
	return err
}
