package crash_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/test/crash"
)

// machine is a directory that is to be taken for a machine's root.
type machine struct {
	t     *testing.T
	root  string
	umask string // of whoever runs the program

	identities etcdbackup.Identities // that open its backups
}

// newMachine unpacks an archive of testdata. Programs can be run, and where the test may give
// files away one of the user's belongs to somebody else.
func newMachine(t *testing.T, archive, umask string) machine {
	t.Helper()
	files, err := txtar.ParseFile(filepath.Join("testdata", archive+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	m := machine{t: t, root: filepath.Join(t.TempDir(), "root"), umask: umask}
	for _, f := range files.Files {
		mode := fs.FileMode(0o644)
		if dir := filepath.Dir(f.Name); dir == "usr/lib/cni" || dir == "opt/cni/bin" {
			mode = 0o755
		}
		if target, is := strings.CutPrefix(string(f.Data), "-> "); is {
			m.link(strings.TrimSpace(target), "/"+f.Name)
			continue
		}
		m.write("/"+f.Name, f.Data, mode)
		if os.Geteuid() == 0 && f.Name == "etc/containerd/config.toml" {
			if err := os.Chown(m.path("/"+f.Name), 4242, 4343); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

func (m machine) write(name string, data []byte, mode fs.FileMode) {
	m.t.Helper()
	path := m.path(name)
	// The directories are made whole by the one and given their mode by the other, whatever
	// the umask of the test is.
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Dir(path), 0o755) },
		func() error { return os.WriteFile(path, data, mode) },
		func() error { return os.Chmod(path, mode) },
	} {
		if err := step(); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m machine) link(target, name string) {
	m.t.Helper()
	err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755)
	if err == nil {
		err = os.Symlink(target, m.path(name))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) remove(name string) {
	m.t.Helper()
	if err := os.Remove(m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// nodeagent is the command line of the program on this machine.
func (m machine) nodeagent(args ...string) crash.Command {
	m.t.Helper()
	args = append([]string{nodeagent(m.t), "--root", m.root}, args...)
	if m.umask != "" {
		args = append([]string{"/bin/sh", "-c", `umask "$0" && exec "$@"`, m.umask}, args...)
	}
	return crash.Command{Args: args}
}

// does runs the program to its end, which has to be the exit code wanted, and returns its
// standard output.
func (m machine) does(code int, args ...string) string {
	m.t.Helper()
	c := m.nodeagent(args...)
	cmd := exec.CommandContext(m.t.Context(), c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = []string{}, "/"
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	if have := cmd.ProcessState.ExitCode(); have != code {
		m.t.Errorf("nodeagent %s exits %d, not %d:\n%s%s", strings.Join(args, " "), have, code, &out, &messages)
	}
	return out.String()
}

// tree is all that a boot leaves of the machine.
func (m machine) tree() crash.Tree {
	m.t.Helper()
	tree, err := crash.ReadTree(m.root, "/run")
	if err != nil {
		m.t.Fatal(err)
	}
	return tree
}

// whole is all that there is of the machine, with what a boot would take away.
func (m machine) whole() crash.Tree {
	m.t.Helper()
	tree, err := crash.ReadTree(m.root)
	if err != nil {
		m.t.Fatal(err)
	}
	return tree
}

// litter says whether a path is a temporary one of the agent's, which nothing else reads: what
// is to be renamed, and the configuration that containerd is tried with.
func litter(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(name string) bool {
		return strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".nodeagent") || strings.HasPrefix(name, ".nodeagent-"))
	})
}

// oldOrNew fails the test for whatever is neither as it was before nor as it will be after, but
// for litter.
func oldOrNew(t *testing.T, have, before, after crash.Tree) {
	t.Helper()
	for path, e := range have {
		old, was := before[path]
		next, will := after[path]
		switch {
		case litter(path), was && e == old, will && e == next:
		default:
			t.Errorf("the killed program left %s: %s, neither the old nor the new one", path, e)
		}
	}
	for path := range before {
		_, there := have[path]
		if _, stays := after[path]; stays && !there {
			t.Errorf("the killed program left no %s", path)
		}
	}
}
