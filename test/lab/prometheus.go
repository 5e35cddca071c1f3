package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// prometheusNames are Debian's packages of what scrapes the agent, and of a proxy before it.
const prometheusNames = "prometheus prometheus-node-exporter nginx"

// Prometheus is a tree with prometheus, promtool and prometheus-node-exporter in usr/bin, and nginx
// in usr/sbin: Debian's packages, unpacked and not installed, so that no service is started.
func Prometheus(ctx context.Context) (string, error) { return Build(ctx, "prometheus") }

// Etcd34 is a tree with Debian's etcd 3.4 at usr/bin/etcd, as clusters had it before kubeadm 1.22.
func Etcd34(ctx context.Context) (string, error) { return Build(ctx, "etcd34") }

// unpacked is a tree with Debian's packages of the given names.
func unpacked(name, packages string) artefact {
	return artefact{
		name:   name,
		inputs: func(_ *lab, w io.Writer) error { _, err := fmt.Fprintln(w, release, packages); return err },
		make: func(ctx context.Context, l *lab, dir string, _ map[string]string) error {
			scratch, err := os.MkdirTemp(l.cache, ".apt-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			err = l.debian(ctx, filepath.Join(scratch, "rootfs"), []string{
				"--mode=root", "--variant=custom", "--skip=check/empty",
				fmt.Sprintf("--extract-hook=cd '%s' && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -o APT::Sandbox::User=root download %s", scratch, packages),
			})
			if err != nil {
				return err
			}
			debs, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
			if err != nil {
				return err
			}
			if want := len(strings.Fields(packages)); len(debs) != want {
				return fmt.Errorf("apt has fetched %d packages, not %d", len(debs), want)
			}
			for _, deb := range debs {
				if err := l.run(ctx, "", nil, nil, "dpkg-deb", "--extract", deb, dir); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
