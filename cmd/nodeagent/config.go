package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, print or begin the configuration", Args: cobra.NoArgs, RunE: needsCommand}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Say everything that is wrong with the configuration",
			RunE: func(*cobra.Command, []string) error {
				h := a.host()
				cfg, err := a.loadConfig(h)
				if err != nil {
					return err
				}
				if _, err := webConfigFile(h, cfg); err != nil && !h.Offline {
					return err
				}
				if warning := cfg.Metrics.Warning(); warning != "" {
					fmt.Fprintf(a.stderr, "nodeagent: warning: metrics.%s\n", warning)
				}
				_, err = fmt.Fprintf(a.stderr, "%s is fine\n", a.configPath)
				return err
			},
		},
		&cobra.Command{
			Use:   "print",
			Short: "Print the effective configuration, every default included and no secret",
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
	out, err := cfg.Print()
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(out)
	return err
}

// webConfigFile is the path of metrics.webConfigFile, which others must not be able to read and
// which the server has to understand; "" where none is given.
func webConfigFile(h *host.Host, cfg config.Config) (string, error) {
	if cfg.Metrics.WebConfigFile == "" {
		return "", nil
	}
	path, err := h.SecretFile(cfg.Metrics.WebConfigFile)
	if err != nil {
		return "", fmt.Errorf("metrics.webConfigFile: %w", err)
	}
	if err := agent.CheckWebConfig(path); err != nil {
		return "", fmt.Errorf("metrics.webConfigFile: %w", err)
	}
	return path, nil
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

func (a *app) initConfig(role string) error {
	h := a.host()
	there, err := h.Exists(a.configPath)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if there {
		return fmt.Errorf("write configuration: %s is there already, and stays as it is", a.configPath)
	}
	if err := h.WriteFile(a.configPath, config.First(bootstrap.Role(role)), 0o600); err != nil {
		return err
	}
	_, err = io.WriteString(a.stderr, a.configPath+" is written: look it over, then `nodeagent plan` and `nodeagent apply`\n")
	return err
}
