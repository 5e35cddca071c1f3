package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// File is a file that a member was started with, as its process sees it.
type File struct {
	Path string // absolute
	Mode fs.FileMode
	Data []byte
}

// Files are what a member is made anew with beside its data: its configuration file, its authorities with
// their keys where those lie beside them, and its certificates with theirs. What is not there is left out.
func (l Local) Files(h *host.Host) ([]File, error) {
	var files []File
	for _, f := range l.own {
		data, err := f.read(h)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("collect files of etcd: %w", err)
		}
		mode, err := f.mode(h)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is being replaced
		}
		if err != nil {
			return nil, fmt.Errorf("collect files of etcd: %w", err)
		}
		files = append(files, File{f.path, mode, data})
	}
	return files, nil
}

func (f file) mode(h *host.Host) (fs.FileMode, error) {
	if f.pid != 0 {
		h = inside(h, f.pid)
	}
	info, err := h.Stat(f.path)
	if err != nil {
		return 0, err
	}
	return info.Mode().Perm(), nil
}

// own are the files of Files, each of which may be missing.
func (p process) own() []file {
	var own []file
	seen := map[string]bool{"": true}
	add := func(paths ...string) {
		for _, path := range paths {
			if !seen[path] {
				seen[path] = true
				own = append(own, file{p.pid, path})
			}
		}
	}
	add(p.configFile)
	for _, ca := range []string{p.caFile, p.peerCAFile} {
		add(ca)
		add(keysOf(ca)...)
	}
	for _, n := range []names{p.server, p.client, p.peer} {
		add(n.cert, n.key)
	}
	return own
}

// keysOf are where the key of an authority may lie beside its certificate, as kubeadm, easy-rsa and cfssl
// name it.
func keysOf(cert string) []string {
	if cert == "" {
		return nil
	}
	base := strings.TrimSuffix(cert, path.Ext(cert))
	return []string{base + ".key", base + "-key.pem", base + ".key.pem"}
}
