package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/certs"
)

func (a *app) certsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "certs", Short: "List the certificates of this host", Args: cobra.NoArgs, RunE: needsCommand}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List every certificate on this host, also those inside kubeconfigs",
		Long: `List every certificate below /etc/kubernetes/pki, in the kubeconfigs of
/etc/kubernetes and of the kubelet. Files that cannot be read are named on
standard error, and the exit code is 1. No configuration is needed.`,
		RunE: func(*cobra.Command, []string) error { return a.listCertificates(time.Now()) },
	})
	return cmd
}

func (a *app) listCertificates(now time.Time) error {
	list, problems, err := certs.Inventory(a.host())
	if err != nil {
		return err
	}
	err = print(a, list, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "FILE\tUSER\tKIND\tEXPIRES\tLEFT")
		for _, c := range list {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Path, c.User, c.Kind, c.NotAfter.UTC().Format(time.RFC3339), left(c, now))
		}
		return t.Flush()
	})
	if err != nil {
		return err
	}
	for _, p := range problems {
		fmt.Fprintf(a.stderr, "nodeagent: %s\n", p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("list certificates: %d files cannot be read", len(problems))
	}
	return nil
}

// left is how long a certificate is valid still.
func left(c certs.Certificate, now time.Time) string {
	switch span := c.NotAfter.Sub(now); {
	case span <= 0:
		return "expired"
	case now.Before(c.NotBefore):
		return "not yet valid"
	default:
		return fmt.Sprintf("%dd", int(span.Hours()/24))
	}
}
