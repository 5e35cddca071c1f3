package crash_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	textfile     = "/var/lib/prometheus/node-exporter/nodeagent.prom"
	daemonConfig = "metrics: {listen: '', textfile: " + textfile + "}\nlog: {level: debug}\n"
	// daemonWait bounds a daemon that an attack has kept from what it is waited for.
	daemonWait = 30 * time.Second
)

// What the daemon writes is attacked like what commands write: its state, locks and textfile,
// the backups of its job. What its bootstrap makes is what apply makes; its marks, which an image
// that is no running machine does not get, are attacked in pkg/agent. A daemon does not end, so that its
// paths are those that differ afterwards, with the names that their drafts have.
func TestDaemonLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make a link that belongs to somebody else")
		return
	}
	adopted := copies(t)
	for name, test := range map[string]struct {
		fresh func(*testing.T) machine
		done  *regexp.Regexp // what the daemon logs when it is through, or has been refused
		want  []string       // paths among those attacked
	}{
		"fresh host": {
			func(t *testing.T) machine { return configured(newMachine(t, "bare", ""), "role: worker\n") },
			regexp.MustCompile(`bootstrap (complete|failed|not begun)`),
			[]string{"/var/lib/nodeagent/state.json", "/var/lib/nodeagent/.state.json.nodeagent",
				"/run/nodeagent/host.lock", "/run/nodeagent/state.lock", textfile},
		},
		"adopted host": {
			func(t *testing.T) machine {
				return configured(adopted(t), "role: control-plane\nbackup: {interval: 1s}\n")
			},
			regexp.MustCompile(`msg="job (done|failed)" job=snapshot`),
			[]string{backups, "/var/lib/nodeagent/state.json", "/run/nodeagent/backup.lock", filepath.Dir(textfile) + "/.nodeagent.prom.nodeagent"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := func(t *testing.T, m machine) string { return m.daemon(test.done) }
			whole := test.fresh(t)
			before := whole.whole()
			out := command(t, whole)
			paths := map[string]bool{}
			for path, e := range whole.whole() {
				if old, there := before[path]; there && old == e {
					continue
				}
				if !strings.HasSuffix(path, ".lock") { // those are not renamed
					paths[filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".nodeagent")] = true
				}
				for ; path != "/"; path = filepath.Dir(path) {
					paths[path] = true
				}
			}
			for _, path := range test.want {
				if !paths[path] {
					t.Errorf("it has not written %s: %s", path, out)
				}
			}
			for _, path := range slices.Sorted(maps.Keys(paths)) {
				steps := !strings.HasPrefix(path, "/var") && !strings.HasPrefix(path, "/run") // as apply makes them, in TestLinks
				if !steps && !strings.HasPrefix(path, backups+"/") {                          // those have other names each time: pkg/etcdbackup/file
					attackPath(t, whole, path, test.fresh, command)
				}
			}
		})
	}
}

func configured(m machine, config string) machine {
	m.t.Helper()
	m.write("/etc/nodeagent/config.yaml", []byte(config+daemonConfig), 0o600)
	if err := os.MkdirAll(filepath.Dir(m.path(textfile)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	return m
}

// log is what a process prints, for another goroutine to look at.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// daemon runs the daemon until it has logged that it is through and its textfile is there or has
// been refused, and ends it as systemd does. One that ends by itself has been refused as well.
func (m machine) daemon(done *regexp.Regexp) string {
	m.t.Helper()
	c := m.nodeagent("run")
	cmd := exec.CommandContext(m.t.Context(), c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = []string{}, "/"
	out := &log{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	through := func() bool {
		_, err := os.Stat(m.path(textfile))
		return done.MatchString(out.String()) && (err == nil || strings.Contains(out.String(), "textfile not written"))
	}
	for deadline := time.Now().Add(daemonWait); time.Now().Before(deadline) && !through(); {
		select {
		case err := <-ended:
			return out.String() + " ended by itself: " + errorText(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Log(err) // it has ended this moment
	}
	return out.String() + " ended: " + errorText(<-ended)
}

func errorText(err error) string {
	if err == nil {
		return "well"
	}
	return err.Error()
}
