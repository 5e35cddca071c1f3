package crash_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnsynced(t *testing.T) {
	tests := map[string]struct {
		script string
		want   []string
	}{
		"nothing":               {"true", nil},
		"content":               {"echo x >f; sync .", []string{"DIR/f was written"}},
		"name":                  {"echo x >f; sync f", []string{"DIR/f is not synced in its directory: open"}},
		"both":                  {"echo x >f; sync f .", nil},
		"written again":         {"echo x >f; sync f .; echo y >>f", []string{"DIR/f was written", "DIR/f is not synced in its directory"}},
		"directory":             {"mkdir d", []string{"DIR/d is not synced in its directory: mkdir"}},
		"directory and above":   {"mkdir d d/e; sync d", []string{"DIR/d is not synced in its directory: mkdir"}},
		"link":                  {"ln -s x l", []string{"DIR/l is not synced in its directory: symlink"}},
		"removed":               {"mkdir d; sync .; rmdir d", []string{"DIR/d is not synced in its directory: rmdir"}},
		"renamed":               {"echo x >f; sync f; mv f g; sync .", nil},
		"renamed before":        {"echo x >f; mv f g; sync g .", []string{"DIR/g may be left empty"}},
		"renamed, no directory": {"echo x >f; sync f .; mv f g", []string{"DIR/g is not synced in its directory: rename"}},
		"moved":                 {"mkdir d e; sync .; mkdir d/x; sync d; mv d/x e; sync e", []string{"DIR/d/x is not synced in its directory: rename"}},
		"passed over":           {"mkdir run; sync .; echo x >run/f", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := run(t, shell(dir, test.script), 0)
			if r.ExitCode != 0 {
				t.Fatalf("%+v", r)
			}
			found := r.Unsynced(dir + "/run")
			ok := len(found) == len(test.want)
			for i := range found {
				ok = ok && strings.HasPrefix(found[i], strings.ReplaceAll(test.want[i], "DIR", dir))
			}
			if !ok {
				t.Errorf("found (- wanted, + had):\n%s%v", cmp.Diff(test.want, found), r.Log)
			}
		})
	}
}

// What the program says is done, a loss of power does not undo.
func TestDurable(t *testing.T) {
	origin, client := etcdMachine(t)
	origin.encrypts()
	put(t, client)
	bare := newMachine(t, "bare", "077")
	bare.remove("/etc/nodeagent/config.yaml")
	bare.remove("/etc/nodeagent")
	for name, test := range map[string]struct {
		machine
		args []string
	}{
		"apply":         {newMachine(t, "own-files", ""), []string{"apply"}},
		"apply, bare":   {newMachine(t, "bare", "077"), []string{"apply"}},
		"config init":   {bare, []string{"config", "init"}},
		"snapshot save": {origin, []string{"snapshot", "save"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, test.nodeagent(test.args...), 0)
			if r.ExitCode != 0 || r.Calls < 5 {
				t.Fatalf("%+v", r)
			}
			for _, what := range r.Unsynced(test.path("/run")) {
				t.Error(what)
			}
		})
	}
}
