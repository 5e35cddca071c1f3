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
	unpacked := func(archive string) func(*testing.T) machine {
		return func(t *testing.T) machine { return newMachine(t, archive, "") }
	}
	for name, test := range map[string]struct {
		fresh   func(*testing.T) machine
		command []string
		atLeast int // paths, so that the test cannot be of nothing
	}{
		"apply, own files":  {unpacked("own-files"), []string{"apply"}, 30},
		"apply, bare image": {unpacked("bare"), []string{"apply"}, 25},
		"config init":       {unpacked("bare"), []string{"config", "init", "--config", "/etc/nodeagent/new/config.yaml"}, 3},
		"snapshot save":     {copies(t), []string{"snapshot", "save"}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := test.fresh(t)
			r := run(t, whole.nodeagent(test.command...), 0)
			if r.ExitCode != 0 {
				t.Fatalf("exits %d:\n%s", r.ExitCode, r.Output)
			}
			paths := whole.changed(r)
			if len(paths) < test.atLeast {
				t.Fatalf("changes %d paths only: %q", len(paths), paths)
			}
			t.Logf("%d paths", len(paths))
			command := func(t *testing.T, m machine) string {
				c := m.nodeagent(test.command...)
				cmd := exec.CommandContext(t.Context(), c.Args[0], c.Args[1:]...)
				cmd.Env, cmd.Dir = []string{}, "/"
				out, err := cmd.CombinedOutput() // refused or not: what counts is what is left
				return fmt.Sprintf("%v, %s", err, out)
			}
			for _, path := range paths {
				isDir := attackPath(t, whole, path, test.fresh, command)
				if isDir {
					t.Run("root's"+path, func(t *testing.T) {
						t.Parallel()
						moved(test.fresh(t), test.command, path)
					})
				}
			}
		})
	}
}

// copies are copies of a machine with a member of etcd.
func copies(t *testing.T) func(*testing.T) machine {
	origin, _ := etcdMachine(t)
	return func(t *testing.T) machine {
		m := machine{t: t, root: filepath.Join(t.TempDir(), "root")}
		if err := os.CopyFS(m.root, os.DirFS(origin.root)); err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// attackPath tries both kinds of links in place of a path, and says whether it is a directory on
// a machine where the program has been.
func attackPath(t *testing.T, whole machine, path string, fresh func(*testing.T) machine, command func(*testing.T, machine) string) (isDir bool) {
	info, err := os.Lstat(whole.path(path))
	isDir = err == nil && info.IsDir()
	for name, foreign := range map[string]bool{"foreign": true, "replaceable": false} {
		t.Run(name+path, func(t *testing.T) {
			t.Parallel()
			attack(fresh(t), command, path, isDir, foreign)
		})
	}
	return isDir
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
func attack(m machine, command func(*testing.T, machine) string, path string, isDir, foreign bool) {
	t := m.t
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
	out := command(t, m)
	for at, tree := range trees() {
		for _, d := range tree.Differences(before[at]) {
			t.Errorf("behind the link %s\n%s", d, out)
		}
	}
}

// moved puts a link of root's in the place of a directory, as on a host with a disk for its data:
// the program goes on as if it were the directory.
func moved(m machine, command []string, path string) {
	t := m.t
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
