package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blakesmith/ar"
	"github.com/ulikunitz/xz"
)

// input is a package of the real deploy/ around a stand-in for the program, a small one of Go,
// whose files lie in a new directory each time.
func input(t *testing.T) Input {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"nodeagent.bash", "nodeagent.zsh", "nodeagent.fish"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("stand-in for "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Input{
		Version: "0.1.0~dev", Arch: "amd64", Binary: goBuild(t, "./testdata/hello"), Generated: dir,
		Source: "..", Time: time.Unix(1_790_000_000, 0),
	}
}

func build(t *testing.T, in Input) []byte {
	t.Helper()
	path, err := Build(in, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if want := "nodeagent_" + in.Version + "_" + in.Arch + ".deb"; filepath.Base(path) != want {
		t.Errorf("package is named %s, want %s", filepath.Base(path), want)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSameInputsGiveSameBytes(t *testing.T) {
	first, second := input(t), input(t)
	// Times and modes on the builder's disk are not part of the input.
	if err := os.Chtimes(first.Binary, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(second.Binary, 0o755); err != nil {
		t.Fatal(err)
	}
	second.Time = second.Time.In(time.FixedZone("elsewhere", 5*3600))
	a, b := sha256.Sum256(build(t, first)), sha256.Sum256(build(t, second))
	if a != b {
		t.Errorf("two builds of the same input differ: %x, %x", a, b)
	}
	second.Time = second.Time.Add(time.Second)
	if sha256.Sum256(build(t, second)) == a {
		t.Error("the time given is in no file of the package")
	}
}

func TestContents(t *testing.T) {
	in := input(t)
	control, data := unpack(t, build(t, in))
	want := map[string]int64{ // and no other file
		"./usr/bin/nodeagent":                                     0o755,
		"./usr/lib/systemd/system/nodeagent.service":              0o644,
		"./usr/share/bash-completion/completions/nodeagent":       0o644,
		"./usr/share/doc/nodeagent/changelog.gz":                  0o644,
		"./usr/share/doc/nodeagent/copyright":                     0o644,
		"./usr/share/doc/nodeagent/examples/config.yaml":          0o644,
		"./usr/share/doc/nodeagent/examples/nodeagent.rules.yaml": 0o644,
		"./usr/share/doc/nodeagent/sbom.cdx.json":                 0o644,
		"./usr/share/fish/vendor_completions.d/nodeagent.fish":    0o644,
		"./usr/share/lintian/overrides/nodeagent":                 0o644,
		"./usr/share/man/man5/nodeagent-config.5.gz":              0o644,
		"./usr/share/man/man8/nodeagent.8.gz":                     0o644,
		"./usr/share/zsh/vendor-completions/_nodeagent":           0o644,
	}
	for name, f := range data {
		if f.header.Uid != 0 || f.header.Gid != 0 || !f.header.ModTime.Equal(in.Time) {
			t.Errorf("%s: uid %d, gid %d, time %s, want 0, 0, %s", name, f.header.Uid, f.header.Gid, f.header.ModTime, in.Time)
		}
		if f.header.Typeflag == tar.TypeDir {
			continue
		}
		if mode, ok := want[name]; !ok || mode != f.header.Mode {
			t.Errorf("%s: mode %o, want %o", name, f.header.Mode, mode)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
	if dir, ok := data["./etc/nodeagent/"]; !ok || dir.header.Mode != 0o750 {
		t.Errorf("/etc/nodeagent is %+v, want a directory, 0750", dir.header)
	}
	if _, ok := control["./conffiles"]; ok {
		t.Error("the package has conffiles: dpkg would ask about one that was written before")
	}
	for _, script := range []string{"./postinst", "./prerm", "./postrm"} {
		if f, ok := control[script]; !ok || f.header.Mode != 0o755 {
			t.Errorf("%s is missing or not executable", script)
		}
	}
	for _, field := range []string{"Package: nodeagent\n", "Version: 0.1.0~dev\n", "Architecture: amd64\n"} {
		if !strings.Contains(string(control["./control"].content), field) {
			t.Errorf("control lacks %q:\n%s", field, control["./control"].content)
		}
	}
}

func TestRefuses(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"a version with a revision":  func(in *Input) { in.Version = "0.1.0-1" },
		"a version with a v":         func(in *Input) { in.Version = "v0.1.0" },
		"an unknown architecture":    func(in *Input) { in.Arch = "x86_64" },
		"a binary that is not there": func(in *Input) { in.Binary += ".no" },
		"a binary that is not Go's":  func(in *Input) { in.Binary = "/bin/sh" },
		"completions not there":      func(in *Input) { in.Generated = t.TempDir() },
	} {
		in := input(t)
		change(&in)
		if path, err := Build(in, t.TempDir()); err == nil {
			t.Errorf("%s: built %s", name, path)
		}
	}
}

type file struct {
	header  *tar.Header
	content []byte
}

// unpack reads a .deb the way dpkg does: an ar of control.tar.gz and data.tar.xz.
func unpack(t *testing.T, deb []byte) (control, data map[string]file) {
	t.Helper()
	for r := ar.NewReader(bytes.NewReader(deb)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch strings.TrimRight(header.Name, "/ ") {
		case "control.tar.gz":
			control = untar(t, gunzip(t, r))
		case "data.tar.xz":
			plain, err := xz.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			data = untar(t, plain)
		}
	}
	if control == nil || data == nil {
		t.Fatal("not a .deb with control.tar.gz and data.tar.xz")
	}
	return control, data
}

func gunzip(t *testing.T, r io.Reader) io.Reader {
	t.Helper()
	plain, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func untar(t *testing.T, r io.Reader) map[string]file {
	t.Helper()
	files := map[string]file{}
	for tr := tar.NewReader(r); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = file{header, content}
	}
}
