package crash_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/crash"
)

const attacker = 4711

// Whatever the program writes, and each directory that leads there, is replaced by a link of
// somebody else's to where the program has no business, one at a time: nothing changes there. The
// paths are those that a run is seen to change, drafts among them, so that none is forgotten.
func TestLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make a link that belongs to somebody else")
		return
	}
	for name, test := range map[string]struct {
		archive string
		command []string
		atLeast int // paths, so that the test cannot be of nothing
	}{
		"apply, own files":  {"own-files", []string{"apply"}, 30},
		"apply, bare image": {"bare", []string{"apply"}, 25},
		"config init":       {"bare", []string{"config", "init", "--config", "/etc/nodeagent/new/config.yaml"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := newMachine(t, test.archive, "")
			r := run(t, whole.nodeagent(test.command...), 0)
			if r.ExitCode != 0 {
				t.Fatalf("exits %d:\n%s", r.ExitCode, r.Output)
			}
			paths := whole.changed(r)
			if len(paths) < test.atLeast {
				t.Fatalf("changes %d paths only: %q", len(paths), paths)
			}
			t.Logf("%d paths", len(paths))
			for _, path := range paths {
				info, err := os.Lstat(whole.path(path))
				isDir := err == nil && info.IsDir()
				t.Run("foreign"+path, func(t *testing.T) {
					t.Parallel()
					attack(t, test.archive, test.command, path, isDir, true)
				})
				t.Run("replaceable"+path, func(t *testing.T) {
					t.Parallel()
					attack(t, test.archive, test.command, path, isDir, false)
				})
				if isDir {
					t.Run("root's"+path, func(t *testing.T) {
						t.Parallel()
						moved(t, test.archive, test.command, path)
					})
				}
			}
		})
	}
}

// changed are the paths on the machine that a run has changed, with all directories above them.
func (m machine) changed(r crash.Result) []string {
	all := map[string]bool{}
	for _, call := range r.Log {
		if strings.HasPrefix(call.Name, "f") && strings.HasSuffix(call.Name, "sync") {
			continue
		}
		for _, path := range call.Paths {
			path, below := strings.CutPrefix(path, m.root+"/")
			for ; below && path != "."; path = filepath.Dir(path) {
				all["/"+path] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// elsewhere is a directory that the program has no business in: by the kernel's reckoning, and
// below the machine's root, where the machine's own links lead. What was at path has been moved to
// the latter, or it is a file with something in it.
func (m machine) elsewhere(path string, isDir bool) (target string, trees func() map[string]crash.Tree) {
	m.t.Helper()
	target = filepath.Join(m.t.TempDir(), "elsewhere")
	inside := filepath.Join(m.root, target)
	for _, dir := range []string{filepath.Dir(inside), filepath.Dir(m.path(path))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	for _, at := range []string{inside, target} {
		err := os.WriteFile(at, []byte("precious"), 0o640)
		if isDir {
			if err = os.Remove(at); err == nil {
				err = os.Mkdir(at, 0o750)
			}
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	if _, err := os.Lstat(m.path(path)); err == nil {
		if err := os.RemoveAll(inside); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Rename(m.path(path), inside); err != nil {
			m.t.Fatal(err)
		}
	}
	return target, func() map[string]crash.Tree {
		all := map[string]crash.Tree{}
		for _, at := range []string{inside, target} {
			tree, err := crash.ReadTree(at)
			if err != nil {
				m.t.Fatal(err)
			}
			all[at] = tree
		}
		return all
	}
}

// attack puts a link in the place of path, which is an attacker's or lies where they can replace
// it, and fails the test if something changes where it leads.
func attack(t *testing.T, archive string, command []string, path string, isDir, foreign bool) {
	m := newMachine(t, archive, "")
	target, trees := m.elsewhere(path, isDir)
	m.link(target, path)
	err := os.Lchown(m.path(path), attacker, attacker)
	if !foreign {
		err = os.Lchown(m.path(path), 0, 0)
		if err == nil {
			err = os.Chmod(filepath.Dir(m.path(path)), 0o777)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	before := trees()
	c := m.nodeagent(command...)
	cmd := exec.CommandContext(t.Context(), c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = []string{}, "/"
	out, err := cmd.CombinedOutput() // refused or not: what counts is what is left
	for at, tree := range trees() {
		for _, d := range tree.Differences(before[at]) {
			t.Errorf("behind the link %s\n%v, %s", d, err, out)
		}
	}
}

// moved puts a link of root's in the place of a directory, as on a host with a disk for its data:
// the program goes on as if it were the directory.
func moved(t *testing.T, archive string, command []string, path string) {
	m := newMachine(t, archive, "")
	target, trees := m.elsewhere(path, true)
	m.link(target, path)
	r := run(t, m.nodeagent(command...), 0)
	if r.ExitCode != 0 {
		t.Errorf("exit code %d, %s", r.ExitCode, r.Output)
	}
	written := false
	for _, p := range m.changed(r) {
		written = written || strings.HasPrefix(p, target)
	}
	if !written {
		t.Errorf("nothing was written behind the link: %s", r.Output)
	}
	if have := fmt.Sprint(trees()[target]); strings.Count(have, " 0:0 ") > 1 {
		t.Errorf("outside of the machine there is %s", have)
	}
}
