package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// NodeFilesStep is the name of the step that sets the modes of files.
const NodeFilesStep = "node/files"

// fileMode is the widest mode that a file may have, or each file of a directory whose name
// matches.
type fileMode struct {
	path string
	each string // pattern of names in path; "" for path itself
	mode fs.FileMode
}

// fileModes are those of the CIS benchmark, chapters 1.1 and 4.1. kubeadm 1.36 writes the
// kubelet's configuration, its flags and nothing else of these readable for everybody; packages do
// so with units, and add-ons with the CNI's files.
func fileModes(pkiDir string) []fileMode {
	modes := []fileMode{
		{ManifestDir, "*", 0o600},
		{"/etc/cni/net.d", "*", 0o600},
		{etcdDataDir, "", 0o700},
		{kubeletConfig, "", 0o600},
		{"/var/lib/kubelet/instance-config.yaml", "", 0o600},
		{"/var/lib/kubelet/kubeadm-flags.env", "", 0o600},
	}
	for _, name := range kubeconfigs { // and no other: a cloud's configuration may be a pod's to read
		modes = append(modes, fileMode{filepath.Join(kubernetesDir, name), "", 0o600})
	}
	for _, dir := range []string{"/usr/lib/systemd/system/", "/etc/systemd/system/"} {
		modes = append(modes, fileMode{dir + kubeletUnit, "", 0o600}, fileMode{dir + kubeletUnit + ".d", "*.conf", 0o600})
	}
	for _, dir := range []string{pkiDir, pkiDir + "/etcd"} {
		modes = append(modes, fileMode{dir, "*.crt", 0o644}, fileMode{dir, "*.key", 0o600})
	}
	return modes
}

// NodeFiles makes the step "node/files": what of a node's files is open to more than the CIS
// benchmark has it is closed, and nothing is opened. Files that are not there yet, and links,
// whose targets somebody has chosen, are left alone. So are files that are not root's: they are
// findings.
func NodeFiles(h *host.Host, kubeadm KubeadmConfig) step.Step {
	modes := fileModes(Init{Cluster: Cluster{Kubeadm: kubeadm}}.pkiDir())
	check := func(context.Context) ([]step.Change, error) {
		wide, err := tooWide(h, modes)
		var changes []step.Change
		for _, f := range wide {
			changes = append(changes, f.change())
		}
		return changes, err
	}
	apply := func(context.Context) error {
		wide, err := tooWide(h, modes)
		if err != nil {
			return err
		}
		for _, f := range wide {
			if !f.roots {
				continue
			}
			if err := h.Narrow(f.path, f.mode); err != nil {
				return err
			}
		}
		return nil
	}
	return step.Step{Name: NodeFilesStep, Check: check, Apply: apply}
}

// wideFile is a file that is open to more than it may be, or not root's.
type wideFile struct {
	fileMode
	have  fs.FileMode
	roots bool
}

func (f wideFile) change() step.Change {
	if !f.roots {
		return step.Change{Subject: f.path, Have: "not root's", Want: fmt.Sprintf("mode %04o, root:root: chown root:root %s", f.mode, f.path), Manual: true}
	}
	return step.Change{Subject: f.path, Have: fmt.Sprintf("mode %04o", f.have), Want: fmt.Sprintf("mode %04o", f.have&f.mode)}
}

func tooWide(h *host.Host, modes []fileMode) ([]wideFile, error) {
	var wide []wideFile
	for _, m := range modes {
		paths := []string{m.path}
		if m.each != "" {
			var err error
			if paths, err = filesIn(h, m.path, m.each); err != nil {
				return nil, err
			}
		}
		for _, path := range paths {
			info, err := h.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read file mode: %w", err)
			}
			perm := info.Mode().Perm()
			isOne := info.Mode().IsRegular() || info.IsDir() && m.each == "" && path == etcdDataDir
			// Who owns etcd's data is not judged: the benchmark has it be a user of its own.
			roots := info.IsDir() || host.OwnedByRoot(info)
			if isOne && (perm&^m.mode != 0 || !roots) {
				wide = append(wide, wideFile{fileMode{path: path, mode: m.mode}, perm, roots})
			}
		}
	}
	return wide, nil
}

// filesIn are the paths in a directory whose names match.
func filesIn(h *host.Host, dir, pattern string) ([]string, error) {
	entries, err := h.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read file modes: %w", err)
	}
	var paths []string
	for _, entry := range entries {
		if is, err := filepath.Match(pattern, entry.Name()); err == nil && is {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	return paths, nil
}
