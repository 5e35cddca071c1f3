package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	// LabnetArchive is the archive that Labnet makes.
	LabnetArchive = "labnet.tar"
	// LabnetImage is its image's reference.
	LabnetImage = "nodeagent.test/labnet:1"
	// labnetFormat is raised when the code below makes something else of the same inputs.
	labnetFormat = "labnet 1"
)

// labnet is the image of a network add-on: busybox, and CNI plugins under names that nobody
// else's have, which its container copies to the host. It shares the layer of kube-proxy's base.
func labnet() artefact {
	return artefact{
		name:   "labnet",
		needs:  []string{"proxybase", "debianpackages"},
		inputs: func(_ *lab, w io.Writer) error { _, err := fmt.Fprintln(w, labnetFormat); return err },
		make: func(ctx context.Context, l *lab, dir string, needs map[string]string) error {
			scratch, err := os.MkdirTemp(l.cache, ".labnet-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			found, err := filepath.Glob(filepath.Join(needs["debianpackages"], "containernetworking-plugins_*.deb"))
			if err != nil || len(found) != 1 {
				return fmt.Errorf("find the package of the CNI plugins: %q, %w", found, err)
			}
			if err := unpack(ctx, found[0], filepath.Join(scratch, "plugins")); err != nil {
				return err
			}
			base, err := copyLayer(filepath.Join(scratch, "base"), filepath.Join(needs["proxybase"], "rootfs.tar"))
			if err != nil {
				return err
			}
			from := filepath.Join(scratch, "plugins", "usr", "lib", "cni")
			plugins, err := writeLayer(filepath.Join(scratch, "layer"), []entry{
				{path: "cni/labnet-bridge", source: filepath.Join(from, "bridge")},
				{path: "cni/labnet-ipam", source: filepath.Join(from, "host-local")},
			})
			if err != nil {
				return err
			}
			return writeArchive(filepath.Join(dir, LabnetArchive), []image{{ref: LabnetImage, layers: []layer{base, plugins}}})
		},
	}
}
