package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

const holderRoot = "NODEAGENT_TEST_HOLDER_ROOT"

// TestMain makes the test binary, where the environment asks for it, a process that takes the
// host lock, says so, and holds it until it is killed.
func TestMain(m *testing.M) {
	root := os.Getenv(holderRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	if _, err := host.New(root).TryLock(host.LockHost, "apply"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func heldBy(t *testing.T, err error, lock, holder string) {
	t.Helper()
	var held *host.HeldError
	if !errors.As(err, &held) || held.Lock != lock || held.Holder != holder {
		t.Errorf("error %v, want lock %q held by %q", err, lock, holder)
	}
}

func TestTryLock(t *testing.T) {
	h := host.New(t.TempDir())
	me := func(purpose string) string { return fmt.Sprintf("%s (pid %d)", purpose, os.Getpid()) }
	unlock, err := h.TryLock(host.LockHost, "renew certificates")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.TryLock(host.LockHost, "apply")
	heldBy(t, err, "host", me("renew certificates"))
	if want := fmt.Sprintf(`take lock "host": held by renew certificates (pid %d)`, os.Getpid()); err.Error() != want {
		t.Errorf("it says %q, want %q", err, want)
	}
	other, err := h.TryLock(host.LockBackup, "save")
	if err != nil {
		t.Errorf("the other lock: %v", err)
	} else {
		other()
	}
	unlock()
	unlock, err = h.TryLock(host.LockHost, "apply") // a shorter purpose than the one before
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	_, err = h.TryLock(host.LockHost, "drift")
	heldBy(t, err, "host", me("apply"))
	unlock()
	unlock() // twice does no harm
	if info, err := h.Stat("/run/nodeagent/host.lock"); err != nil || info.Mode() != 0o600 {
		t.Errorf("lock file: %v, %v, want mode 0600", info, err)
	}
}

func TestTryLockRefusesALink(t *testing.T) {
	h, outside := inner(t)
	if err := h.MkdirAll("/run/nodeagent", 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, h, outside+"/x", "run/nodeagent/host.lock")
	var held *host.HeldError
	if _, err := h.TryLock(host.LockHost, "apply"); err == nil || errors.As(err, &held) {
		t.Errorf("got %v, want the link refused", err)
	}
}

func TestLockIsFreedWhenItsProcessEnds(t *testing.T) {
	h := host.New(t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	holder := exec.Command(self)
	holder.Env = append(os.Environ(), holderRoot+"="+h.Root)
	if _, err := holder.StdinPipe(); err != nil { // stays open: the holder ends when it is killed
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 5)
	if _, err := io.ReadFull(stdout, line); err != nil || string(line) != "held\n" {
		t.Errorf("the holder says %q, %v", line, err)
	}
	_, err = h.TryLock(host.LockHost, "status")
	heldBy(t, err, "host", fmt.Sprintf("apply (pid %d)", holder.Process.Pid))
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err == nil {
		t.Error("the holder ended by itself")
	}
	unlock, err := h.TryLock(host.LockHost, "status")
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	unlock()
}

func TestLockWaits(t *testing.T) {
	h := host.New(t.TempDir())
	unlock, err := h.TryLock(host.LockHost, "upgrade")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	tell := func(holder string) {
		told = append(told, holder)
		unlock()
	}
	second, err := h.Lock(t.Context(), host.LockHost, "apply", tell)
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "upgrade (pid ") {
		t.Errorf("told %q, want once, of the upgrade", told)
	}
	_, err = h.TryLock(host.LockHost, "drift")
	heldBy(t, err, "host", fmt.Sprintf("apply (pid %d)", os.Getpid()))
	second()
	third, err := h.Lock(t.Context(), host.LockHost, "apply", tell)
	if err != nil || len(told) != 1 {
		t.Fatalf("a free lock: %v, told %q", err, told)
	}
	third()
}

// Two daemons that come again as soon as they have given the lock back do not keep a third from it.
func TestLockIsFair(t *testing.T) {
	h := host.New(t.TempDir())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var turns atomic.Int64
	defer wg.Wait()
	defer close(stop)
	for _, daemon := range []string{"one", "two"} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				unlock, err := h.Lock(t.Context(), host.LockBackup, daemon, nil)
				if err != nil {
					t.Error(err)
					return
				}
				turns.Add(1)
				time.Sleep(10 * time.Millisecond) // its work
				unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	for turns.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	for range 5 {
		var since int64
		unlock, err := h.Lock(t.Context(), host.LockBackup, "by hand", func(string) { since = turns.Load() })
		if err != nil {
			t.Fatal(err)
		}
		// Each of the two may have been before it in the queue, and one of them not have counted yet.
		if waited := turns.Load() - since; since > 0 && waited > 6 {
			t.Errorf("it waited for %d turns of the others", waited)
		}
		unlock()
	}
}

// Whoever has given up does not take the lock later.
func TestLockGivenUpIsNotTaken(t *testing.T) {
	h := host.New(t.TempDir())
	unlock, err := h.TryLock(host.LockHost, "upgrade")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := h.Lock(ctx, host.LockHost, "apply", func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	unlock()
	unlock, err = h.Lock(t.Context(), host.LockHost, "drift", nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestLockGivesUpWithItsContext(t *testing.T) {
	h := host.New(t.TempDir())
	unlock, err := h.TryLock(host.LockHost, "upgrade")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	told := 0
	_, err = h.Lock(ctx, host.LockHost, "apply", func(string) {
		told++
		cancel(why)
	})
	heldBy(t, err, "host", fmt.Sprintf("upgrade (pid %d)", os.Getpid()))
	if !errors.Is(err, why) || told != 1 {
		t.Errorf("got %v, told %d times, want %v joined", err, told, why)
	}
	if _, err := h.Lock(ctx, host.LockHost, "apply", nil); !errors.Is(err, why) {
		t.Errorf("without anybody to tell: %v", err)
	}
}
