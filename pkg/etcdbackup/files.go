package etcdbackup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// maxFiles bounds what goes with a snapshot: keys, certificates and manifests are some hundred
// kilobytes, and they are held in memory.
const maxFiles = 32 << 20

// File is a file of the host that a snapshot alone cannot bring back.
type File struct {
	Path string // absolute
	Mode fs.FileMode
	Data []byte
}

// CollectFiles reads those of paths that are there; directories stand for the files that lie in
// them. What is neither file nor directory is passed over.
func CollectFiles(h *host.Host, paths []string) ([]File, error) {
	var files []File
	total := 0
	for _, path := range paths {
		info, err := h.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("collect files: %w", err)
		}
		if info.IsDir() {
			inside, err := h.ReadDir(path)
			if err != nil {
				return nil, fmt.Errorf("collect files: %w", err)
			}
			var names []string
			for _, e := range inside {
				if !e.IsDir() {
					names = append(names, strings.TrimSuffix(path, "/")+"/"+e.Name())
				}
			}
			more, err := CollectFiles(h, names)
			if err != nil {
				return nil, err
			}
			files = append(files, more...)
			continue
		}
		if !info.Mode().IsRegular() {
			continue
		}
		if total += int(min(info.Size(), maxFiles+1)); total > maxFiles {
			return nil, fmt.Errorf("collect files: they have more than %d MiB in all, with %s", maxFiles>>20, path)
		}
		data, err := h.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renewed this moment, under another name
		}
		if err != nil {
			return nil, fmt.Errorf("collect files: %w", err)
		}
		files = append(files, File{Path: path, Mode: info.Mode().Perm(), Data: data})
	}
	return files, nil
}

// packFiles makes the archive that goes with the snapshot of m, and says so in m. Without
// recipients there is none: these files are the cluster's keys, and never leave unencrypted.
func packFiles(files []File, to Recipients, m *Manifest) ([]byte, error) {
	if to.Empty() || len(files) == 0 {
		return nil, nil
	}
	name, err := ParseName(m.Object.Name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := newWrapper(&out, true, to)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(w)
	var paths []string
	for _, f := range files {
		header := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode), Size: int64(len(f.Data)), ModTime: m.Time, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if _, err := archive.Write(f.Data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		paths = append(paths, f.Path)
	}
	if err := errors.Join(archive.Close(), w.Close()); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	m.Files = &Files{StoredObject: w.object(name.FilesName()), Paths: paths}
	return out.Bytes(), nil
}
