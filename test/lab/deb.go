package lab

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Deb is what a Debian package is packed from.
type Deb struct {
	Name, Version string
	Arch          string            // amd64 when empty
	Fields        string            // further lines of its control file, each with its newline
	Description   string            // one line
	Files         []DebFile         // owned by root
	Scripts       map[string]string // postinst, prerm, postrm: what a shell runs
}

// DebFile is one file of a package: the content of the file Source, or Content.
type DebFile struct {
	Path            string // absolute
	Source, Content string
	Mode            fs.FileMode // 0644 when 0
	Config          bool        // a conffile: dpkg keeps what the administrator made of it
}

// Write packs the package into the directory and returns its file. zstd, since the tests unpack
// it on an emulated processor, where xz takes many times as long.
func (d Deb) Write(ctx context.Context, dir string) (file string, err error) {
	if d.Arch == "" {
		d.Arch = "amd64"
	}
	file = filepath.Join(dir, fmt.Sprintf("%s_%s_%s.deb", d.Name, d.Version, d.Arch))
	tree, err := os.MkdirTemp(dir, ".tree-")
	if err != nil {
		return "", fmt.Errorf("pack %s: %w", d.Name, err)
	}
	defer os.RemoveAll(tree)
	if err := d.stage(tree); err != nil {
		return "", fmt.Errorf("pack %s: %w", d.Name, err)
	}
	if err := packTree(ctx, tree, file); err != nil {
		return "", fmt.Errorf("pack %s: %w", d.Name, err)
	}
	return file, nil
}

// stage lays the package out as dpkg-deb wants it.
func (d Deb) stage(tree string) error {
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	var size int64
	var conffiles strings.Builder
	for _, f := range d.Files {
		if f.Mode == 0 {
			f.Mode = 0o644
		}
		if f.Config {
			fmt.Fprintln(&conffiles, f.Path)
		}
		n, err := f.write(filepath.Join(tree, f.Path))
		if err != nil {
			return err
		}
		size += n
	}
	control := []DebFile{{Path: "control", Content: fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nPriority: optional\nInstalled-Size: %d\n%sDescription: %s\n",
		d.Name, d.Version, d.Arch, size>>10, d.Fields, d.Description), Mode: 0o644}}
	if conffiles.Len() > 0 {
		control = append(control, DebFile{Path: "conffiles", Content: conffiles.String(), Mode: 0o644})
	}
	for name, script := range d.Scripts {
		control = append(control, DebFile{Path: name, Content: "#!/bin/sh\nset -e\n" + script, Mode: 0o755})
	}
	for _, f := range control {
		if _, err := f.write(filepath.Join(tree, "DEBIAN", f.Path)); err != nil {
			return err
		}
	}
	return nil
}

// write makes the file and returns its size.
func (f DebFile) write(target string) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return 0, err
	}
	content := []byte(f.Content)
	if f.Source != "" {
		var err error
		if content, err = os.ReadFile(f.Source); err != nil {
			return 0, err
		}
	}
	if err := os.WriteFile(target, content, f.Mode); err != nil {
		return 0, err
	}
	return int64(len(content)), os.Chmod(target, f.Mode) // whatever the umask is
}

// packTree makes a package of a tree that has DEBIAN in it.
func packTree(ctx context.Context, tree, file string) error {
	_, err := execute(ctx, nil, []string{"SOURCE_DATE_EPOCH=1790000000"}, "dpkg-deb", "--root-owner-group", "-Zzstd", "-z3", "--build", tree, file)
	return err
}

// unpack lays a package out with DEBIAN in it.
func unpack(ctx context.Context, deb, tree string) error {
	_, err := execute(ctx, nil, nil, "dpkg-deb", "--raw-extract", deb, tree)
	return err
}

// controlOf is the text of a package's control file.
func controlOf(ctx context.Context, deb string) ([]byte, error) {
	text, err := execute(ctx, nil, nil, "dpkg-deb", "--field", deb)
	return bytes.TrimRight(text, "\n"), err
}
