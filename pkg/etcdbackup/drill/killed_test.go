package drill_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/drill"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// A drill that is killed in the middle leaves the stored objects as they were; the next one
// removes what it has left in the scratch directory, and proves.
func TestSIGKILL(t *testing.T) {
	if at := os.Getenv("KILL_AT"); at != "" {
		killed(t, at)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, s := newStore(t)
	m := save(t, member(t), s, nil)
	before := content(t, h)
	for _, at := range []string{"fetching", "restoring", "opening"} {
		t.Run(at, func(t *testing.T) {
			o := options(t, etcdbackup.Identities{})
			_, err := host.Exec(t.Context(), host.Command{
				Path: self, Args: []string{"-test.run=^TestSIGKILL$"},
				Env: []string{"KILL_AT=" + at, "ROOT=" + h.Root, "OBJECT=" + m.Object.Name, "SCRATCH=" + o.Scratch},
			})
			var failed *host.CommandError
			if !errors.As(err, &failed) || failed.Code != -1 {
				t.Fatalf("the child ended with %v, want a signal", err)
			}
			left, err := os.ReadDir(o.Scratch)
			if err != nil || len(left) != 1 {
				t.Fatalf("the child left %v, %v: it proves nothing", left, err)
			}
			if !maps.Equal(before, content(t, h)) || len(proofs(t, s, m.Object.Name)) > 0 {
				t.Error("the store has changed")
			}
			// Of somebody else's it is not, of one that still runs it is not either.
			running := filepath.Join(o.Scratch, "nodeagent-drill-running")
			lock := locked(t, running)
			foreign := filepath.Join(o.Scratch, "lost+found")
			if err := os.Mkdir(foreign, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := drill.Sweep(o.Scratch); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadDir(o.Scratch)
			if err != nil || len(got) != 2 {
				t.Errorf("after the sweep: %v, %v", got, err)
			}
			if err := errors.Join(lock.Close(), os.Remove(running), os.Remove(foreign)); err != nil {
				t.Error(err)
			}
		})
	}
	// The next drill sweeps by itself.
	o := options(t, etcdbackup.Identities{})
	if err := os.MkdirAll(filepath.Join(o.Scratch, "nodeagent-drill-dead", "etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := drill.Run(t.Context(), s, m.Object.Name, o); err != nil {
		t.Error(err)
	}
	if !maps.Equal(before, content(t, h)) {
		t.Error("the store has changed")
	}
}

func locked(t *testing.T, dir string) *os.File {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return f
}

// killed is the child: it kills itself where it is told to.
func killed(t *testing.T, at string) {
	s := file.New(host.New(os.Getenv("ROOT")), dir, "cp1")
	_, err := drill.Run(t.Context(), s, os.Getenv("OBJECT"), drill.Options{
		Host: "cp1", Agent: "test", Scratch: os.Getenv("SCRATCH"), Now: time.Now,
		Free: func(context.Context) (int64, error) { return 1 << 40, nil },
		Progress: func(doing string, _, _ int64) {
			if strings.HasPrefix(doing, at) {
				if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		},
	})
	t.Fatal("survived:", err)
}

// A scratch directory where no more fits, at the fetch and at the restore: nothing is left in it,
// and nothing is proven. A limit of the kernel's on files stands for the disk.
func TestScratchFull(t *testing.T) {
	if limit := os.Getenv("LIMIT"); limit != "" {
		full(t, limit)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, s := newStore(t)
	m := save(t, member(t), s, nil)
	before := content(t, h)
	for at, limit := range map[string]int64{"fetch": m.Snapshot.Size / 2, "log": 32 << 20} {
		t.Run(at, func(t *testing.T) {
			o := options(t, etcdbackup.Identities{}) // looks whether the directory is empty
			out, err := host.Exec(t.Context(), host.Command{
				Path: self, Args: []string{"-test.run=^TestScratchFull$"},
				Env: []string{fmt.Sprint("LIMIT=", limit), "ROOT=" + h.Root, "OBJECT=" + m.Object.Name, "SCRATCH=" + o.Scratch},
			})
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if !maps.Equal(before, content(t, h)) || len(proofs(t, s, m.Object.Name)) > 0 {
				t.Error("the store has changed")
			}
		})
	}
}

// full is the child.
func full(t *testing.T, limit string) {
	most, err := strconv.ParseUint(limit, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		t.Fatal(err)
	}
	s := file.New(host.New(os.Getenv("ROOT")), dir, "cp1")
	o := options(t, etcdbackup.Identities{})
	o.Scratch = os.Getenv("SCRATCH")
	_, err = drill.Run(t.Context(), s, os.Getenv("OBJECT"), o)
	if got := drill.Reason(etcdbackup.Proof{}, err); got != drill.ReasonSpace {
		t.Errorf("reason %s: %v", got, err)
	}
}
