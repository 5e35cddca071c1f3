package crash_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/test/crash"
)

// programs are what the test binary can be as a child.
func programs() map[string]func(args []string) error {
	return map[string]func([]string) error{
		// Many goroutines at once, each of whose calls leaves one thing behind.
		"directories": func(args []string) error {
			var wg sync.WaitGroup
			errs := make([]error, goroutines)
			for g := range goroutines {
				wg.Go(func() {
					for i := range each {
						name := filepath.Join(args[0], fmt.Sprintf("%d-%d", g, i))
						errs[g] = errors.Join(errs[g], os.Mkdir(name, 0o700))
					}
				})
			}
			wg.Wait()
			return errors.Join(errs...)
		},
		// What nobody should do: a file is written in place.
		"no file": func([]string) error {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			if err != nil {
				return err
			}
			_, err = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			return err
		},
		"in place": func(args []string) error { return os.WriteFile(args[0], []byte("new"), 0o600) },
	}
}

const goroutines, each = 8, 10

func child(t *testing.T, program string, args ...string) crash.Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return crash.Command{Args: append([]string{self}, args...), Env: []string{childOf + "=" + program}}
}

func shell(dir, script string, args ...string) crash.Command {
	return crash.Command{
		Args: append([]string{"/bin/sh", "-c", script, "sh"}, args...),
		Env:  []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, Dir: dir,
	}
}

func run(t *testing.T, c crash.Command, n int) crash.Result {
	t.Helper()
	r, err := crash.Run(t.Context(), c, n)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	return r
}

func last(r crash.Result) string { return r.Log[len(r.Log)-1].String() }

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// One counter over all threads: killed in place of the nth call, n-1 have been made, however
// many threads made them.
func TestRunIsExact(t *testing.T) {
	for n := 1; n <= goroutines*each; n++ {
		dir := t.TempDir()
		r := run(t, child(t, "directories", dir), n)
		if !r.Killed || r.Calls != n || r.ExitCode != 128+int(syscall.SIGKILL) || !strings.HasPrefix(last(r), "mkdir") {
			t.Fatalf("in place of call %d: %+v", n, r)
		}
		if have := len(names(t, dir)); have != n-1 {
			t.Errorf("in place of call %d: %d directories, want %d", n, have, n-1)
		}
	}
	dir := t.TempDir()
	r := run(t, child(t, "directories", dir), goroutines*each+1)
	if r.Killed || r.Calls != goroutines*each || r.ExitCode != 0 || len(names(t, dir)) != r.Calls {
		t.Errorf("beyond the last call: %+v", r)
	}
}

// What counts, and what it is called, in the words of real programs.
func TestRunCounts(t *testing.T) {
	tests := map[string]struct {
		script string
		want   string // what is to be left when it is killed in place of the last call
		last   string
		calls  int
	}{
		"nothing":          {"echo to a pipe; cat /dev/null; test -e x; echo >&2", "", "", 0},
		"making":           {"mkdir one; mkdir two", "one", "two", 2},
		"children":         {"(mkdir a; (mkdir b; (mkdir c)))", "a b", "c", 3},
		"creating":         {": >file", "", "file", 1},
		"writing":          {"echo x >file", "file", "write DIR/file", 2},
		"reading":          {"echo x >file; cat <file >/dev/null; cat file", "file", "write DIR/file", 2},
		"removing":         {"mkdir a; rmdir a", "a", "DIR/a", 2},
		"renaming":         {"mkdir a; mv a b", "a", "DIR/b", 2},
		"linking":          {"ln -s nowhere a", "", "symlink", 1},
		"mode":             {"mkdir a; chmod 700 a", "a", "chmod", 2},
		"program replaced": {"mkdir a; exec mkdir b", "a", "DIR/b", 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			whole := run(t, shell(t.TempDir(), test.script), 0)
			// dash opens /dev/null with O_CREAT: that counts, and does no harm.
			calls := whole.Calls
			if strings.Contains(test.script, ">/dev/null") {
				calls--
			}
			if whole.Killed || whole.ExitCode != 0 || calls != test.calls {
				t.Fatalf("left alone: %+v, want %d calls", whole, test.calls)
			}
			if test.calls == 0 {
				return
			}
			dir := t.TempDir()
			r := run(t, shell(dir, test.script), test.calls)
			if !r.Killed || !strings.Contains(last(r), strings.ReplaceAll(test.last, "DIR", dir)) {
				t.Errorf("killed: %+v, want the last call to be %q", r, test.last)
			}
			if have := strings.Join(names(t, dir), " "); have != test.want {
				t.Errorf("left %q, want %q", have, test.want)
			}
		})
	}
}

// The Go runtime wakes its threads by what looks like a file and is none.
func TestRunCountsNoEventfd(t *testing.T) {
	if r := run(t, child(t, "no file"), 0); r.Calls != 0 || r.ExitCode != 0 {
		t.Errorf("%+v, want no calls", r)
	}
}

func TestRunResult(t *testing.T) {
	tests := map[string]struct {
		script string
		code   int
		output string
	}{
		"fine":                {"pwd", 0, "DIR\n"},
		"both streams":        {"echo a; echo b >&2", 0, "a\nb\n"},
		"exit code":           {"exit 7", 7, ""},
		"signal":              {"kill -TERM $$", 128 + 15, ""},
		"signal that is held": {"trap 'echo caught; exit 3' TERM; kill -TERM $$", 3, "caught\n"},
		"empty stdin":         {"cat; echo end", 0, "end\n"},
		"no environment":      {`echo "$HOME$USER"`, 0, "\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := run(t, shell(dir, test.script), 0)
			if r.ExitCode != test.code || r.Output != strings.ReplaceAll(test.output, "DIR", dir) || r.Killed {
				t.Errorf("%+v, want exit code %d and %q", r, test.code, test.output)
			}
		})
	}
	for _, args := range [][]string{nil, {"sh"}, {"/no/such/program"}} {
		if r, err := crash.Run(t.Context(), crash.Command{Args: args}, 0); err == nil {
			t.Errorf("%q: %+v, want an error", args, r)
		}
	}
}

// Nothing of the program is left, however its run ends.
func TestRunLeavesNoProcess(t *testing.T) {
	pid := func(t *testing.T, dir string) int {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const start = "sleep 1000 & echo $! >pid; mv pid pid.new; mv pid.new pid; "
	gone := func(t *testing.T, dir string) {
		t.Helper()
		if p := pid(t, dir); alive(p) {
			_ = syscall.Kill(p, syscall.SIGKILL)
			t.Error("the child is still there")
		}
	}
	t.Run("killed", func(t *testing.T) {
		dir := t.TempDir()
		if r := run(t, shell(dir, start+"mkdir a; mkdir b"), 6); !r.Killed || len(names(t, dir)) != 2 {
			t.Errorf("%+v, and left %q", r, names(t, dir))
		}
		gone(t, dir)
	})
	t.Run("ended by itself", func(t *testing.T) {
		dir := t.TempDir()
		if r := run(t, shell(dir, start), 0); r.Killed || r.ExitCode != 0 {
			t.Errorf("%+v", r)
		}
		gone(t, dir)
	})
	t.Run("out of time", func(t *testing.T) {
		dir := t.TempDir()
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := crash.Run(ctx, shell(dir, start+"mkdir ready; wait"), 0)
			ended <- err
		}()
		for !exists(filepath.Join(dir, "ready")) {
			time.Sleep(10 * time.Millisecond)
		}
		cancel(why)
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("error %v, want %v", err, why)
		}
		gone(t, dir)
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// alive is false for a process that has ended, reaped or not: a container's init may not reap.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// A sweep is worth something only if it sees a program that is not safe: one that writes a file
// in place has it empty for a moment.
func TestSweepFindsAFileCutShort(t *testing.T) {
	var mu sync.Mutex
	found := map[string]int{}
	points := crash.Sweep(t, func(t *testing.T) crash.Trial {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		return crash.Trial{Command: child(t, "in place", path), Check: func(t *testing.T, r crash.Result) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			found[fmt.Sprintf("%t %d %s", r.Killed, r.Calls, data)]++
		}}
	})
	want := map[string]int{"true 1 old": 1, "true 2 ": 1, "false 2 new": 2}
	if points != 2 || fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("%d points, found %v, want %v", points, found, want)
	}
}

// The test's other processes are none of ours, whichever thread they were started from.
func TestRunLeavesOthersToThemselves(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 0.01; echo mine").Output()
				if err != nil || string(out) != "mine\n" {
					t.Errorf("%q, %v", out, err)
				}
				r, err := crash.Run(t.Context(), shell("/", "echo ours; exit 3"), 0)
				if err != nil || r.ExitCode != 3 || r.Output != "ours\n" {
					t.Errorf("%+v, %v", r, err)
				}
			}
		})
	}
	wg.Wait()
}
