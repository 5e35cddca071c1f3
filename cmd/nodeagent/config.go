package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, print or begin the configuration", Args: cobra.NoArgs, RunE: needsCommand}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Say everything that is wrong with the configuration",
			RunE: func(*cobra.Command, []string) error {
				_, err := a.loadConfig(a.host())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.stderr, "%s is fine\n", a.configPath)
				return err
			},
		},
		&cobra.Command{
			Use:   "print",
			Short: "Print the effective configuration, every default included",
			RunE:  func(*cobra.Command, []string) error { return a.printConfig() },
		},
		a.configInitCommand(),
	)
	return cmd
}

func (a *app) printConfig() error {
	cfg, err := a.loadConfig(a.host())
	if err != nil {
		return err
	}
	enc := yaml.NewEncoder(a.stdout)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(cfg), enc.Close())
}

func (a *app) configInitCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration; one that is there is never replaced",
		RunE: func(*cobra.Command, []string) error {
			if err := bootstrap.Role(role).Validate(); err != nil {
				return usageError{fmt.Errorf("--%w", err)}
			}
			return a.initConfig(role)
		},
	}
	cmd.Flags().StringVar(&role, "role", string(bootstrap.ControlPlane), "the `role` of the host: control-plane, worker or etcd")
	return cmd
}

const firstConfig = `# The configuration of nodeagent on this host; "nodeagent config print" shows every default.
role: %s # control-plane | worker | etcd
network:
  cni: bridge # a single node, no add-on needed; or leave it out and give the manifests:
# addons: [/etc/nodeagent/addons/flannel.yaml]
`

func (a *app) initConfig(role string) error {
	h := a.host()
	there, err := h.Exists(a.configPath)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if there {
		return fmt.Errorf("write configuration: %s is there already, and stays as it is", a.configPath)
	}
	if err := h.WriteFile(a.configPath, fmt.Appendf(nil, firstConfig, role), 0o600); err != nil {
		return err
	}
	_, err = io.WriteString(a.stderr, a.configPath+" is written: look it over, then `nodeagent plan` and `nodeagent apply`\n")
	return err
}
