package lab

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// packageFiles are the units and configuration files of the packages.
//
//go:embed packages
var packageFiles embed.FS

// packagesFormat is raised when the code below makes something else of the same inputs.
const packagesFormat = "repository 2"

// debianNames are the packages that the second repository has from Debian: what the root file
// system lacks, ways to have swap, what Ansible has apt install for itself, and what they depend on.
const debianNames = "containerd runc containernetworking-plugins systemd-zram-generator zram-tools bc dphys-swapfile dc " +
	"python3-apt python-apt-common distro-info-data"

// kubePackages are the programs of the community's packages, each by itself. Most of the work
// is compiling, and where the artefact "kubernetes" was built before that is done.
func kubePackages() artefact {
	var ps []program
	for _, name := range []string{"kubeadm", "kubelet", "kubectl"} {
		ps = append(ps, program{"kubernetes", "k8s.io/kubernetes/cmd/" + name, name, kubernetesProgram().ldflags})
	}
	return programs("kubepackages", ps, nil)
}

// debianPackages is packages of Debian's, fetched and verified by apt.
func debianPackages() artefact {
	return artefact{
		name:   "debianpackages",
		inputs: func(_ *lab, w io.Writer) error { _, err := fmt.Fprintln(w, release, debianNames); return err },
		make: func(ctx context.Context, l *lab, dir string, _ map[string]string) error {
			scratch, err := os.MkdirTemp(l.cache, ".apt-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			// An empty system: of it nothing is used but its apt.
			return l.debian(ctx, filepath.Join(scratch, "rootfs"), []string{
				"--mode=root", "--variant=custom", "--skip=check/empty",
				fmt.Sprintf("--extract-hook=cd '%s' && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -o APT::Sandbox::User=root download %s", dir, debianNames),
			})
		},
	}
}

// repository is the two repositories and the keys that sign them.
func repository() artefact {
	return artefact{
		name:  "repository",
		needs: []string{"kubepackages", "containerd2", "crictl", "debianpackages"},
		inputs: func(_ *lab, w io.Writer) error {
			fmt.Fprintln(w, packagesFormat)
			return hashFS(w, packageFiles)
		},
		make: func(ctx context.Context, l *lab, dir string, needs map[string]string) error {
			scratch, err := os.MkdirTemp(l.cache, ".debs-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			debian, err := repackDebian(ctx, scratch, needs["debianpackages"])
			if err != nil {
				return err
			}
			debs, err := kubernetesDebs(needs, debian.trees)
			if err != nil {
				return err
			}
			if err := writeSigned(ctx, dir, "kubernetes", scratch, communityOrigin(), debs, nil); err != nil {
				return err
			}
			docker, err := dockerDebs(needs, debian.trees)
			if err != nil {
				return err
			}
			return writeSigned(ctx, dir, "debian", scratch, origin{"nodeagent test lab", "Debian"}, docker, debian.debs)
		},
	}
}

// writeSigned packs debs and makes a repository of them and of those packed already, and keeps
// the key that signed it.
func writeSigned(ctx context.Context, dir, name, scratch string, o origin, debs []Deb, packed []string) error {
	for _, d := range debs {
		file, err := d.Write(ctx, scratch)
		if err != nil {
			return err
		}
		packed = append(packed, file)
	}
	key, err := NewKey(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".key"), key.Private, 0o600); err != nil {
		return err
	}
	return writeRepository(ctx, filepath.Join(dir, name), o, packed, key)
}

// repacked is Debian's packages with another compression, and what is in them by their names.
type repacked struct {
	debs  []string
	trees map[string]string
}

func repackDebian(ctx context.Context, scratch, source string) (repacked, error) {
	r := repacked{trees: map[string]string{}}
	found, err := filepath.Glob(filepath.Join(source, "*.deb"))
	if err != nil {
		return r, err
	}
	for _, deb := range found {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		r.trees[name] = filepath.Join(scratch, name)
		if err := unpack(ctx, deb, r.trees[name]); err != nil {
			return r, err
		}
		file := filepath.Join(scratch, filepath.Base(deb))
		if err := packTree(ctx, r.trees[name], file); err != nil {
			return r, err
		}
		r.debs = append(r.debs, file)
	}
	if len(found) != len(strings.Fields(debianNames)) {
		return r, fmt.Errorf("repack Debian's packages: %d of %q", len(found), debianNames)
	}
	return r, nil
}

func hashFS(w io.Writer, files fs.FS) error {
	return fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, path)
		_, write := fmt.Fprintf(w, "%s %d\n%s", path, len(content), content)
		return errors.Join(err, write)
	})
}
