package host_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func shell(script string, args ...string) host.Command {
	return host.Command{Path: "/bin/sh", Args: append([]string{"-c", script, "sh"}, args...)}
}

func TestExecHasAFixedEnvironment(t *testing.T) {
	for _, name := range []string{"NOTIFY_SOCKET", "http_proxy", "LANGUAGE", "SECRET"} {
		t.Setenv(name, "leaked")
	}
	t.Setenv("LANG", "de_DE.UTF-8")
	out, err := host.Exec(t.Context(), host.Command{Path: "/usr/bin/env", Env: []string{"KUBECONFIG=/x"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LANG=C.UTF-8
LC_ALL=C.UTF-8
HOME=/root
DEBIAN_FRONTEND=noninteractive
KUBECONFIG=/x
`
	// PWD is added by os/exec where the directory is set.
	have := strings.ReplaceAll(string(out), "PWD=/\n", "")
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("environment (- wanted, + had):\n%s", diff)
	}
	again, err := host.Exec(t.Context(), host.Command{Path: "/usr/bin/env"})
	if err != nil || strings.Contains(string(again), "KUBECONFIG") {
		t.Errorf("one command's environment is the next one's: %q, %v", again, err)
	}
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		command host.Command
		want    string
	}{
		"arguments are not split":  {host.Command{Path: "/bin/echo", Args: []string{"a  b", "$HOME", "*"}}, "a  b $HOME *\n"},
		"stdin":                    {host.Command{Path: "/bin/cat", Stdin: []byte("in")}, "in"},
		"no stdin is an empty one": {host.Command{Path: "/bin/cat"}, ""},
		"stderr is not the output": {shell("echo out; echo err >&2"), "out\n"},
		"directory":                {host.Command{Path: "/bin/pwd", Dir: dir}, dir + "\n"},
		"directory otherwise":      {host.Command{Path: "/bin/pwd"}, "/\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := host.Exec(t.Context(), test.command)
			if err != nil || string(out) != test.want {
				t.Errorf("got %q, %v, want %q", out, err, test.want)
			}
		})
	}
}

func TestExecFailure(t *testing.T) {
	tests := map[string]struct {
		command host.Command
		code    int
		stderr  string
		says    string
	}{
		"code":        {shell("echo out; echo no such thing >&2; exit 7"), 7, "no such thing", "exit status 7: no such thing"},
		"silent":      {host.Command{Path: "/bin/false"}, 1, "", "run false: exit status 1"},
		"signal":      {shell("kill -9 $$"), -1, "", "signal: killed"},
		"long stderr": {shell("seq 1 100 >&2; exit 1"), 1, "96\n97\n98\n99\n100", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := host.Exec(t.Context(), test.command)
			var failed *host.CommandError
			if !errors.As(err, &failed) {
				t.Fatalf("%v is no CommandError", err)
			}
			if failed.Code != test.code || failed.Stderr != test.stderr || !strings.HasSuffix(err.Error(), test.says) {
				t.Errorf("code %d, stderr %q, %q; want %d, %q, %q", failed.Code, failed.Stderr, err, test.code, test.stderr, test.says)
			}
		})
	}
	out, err := host.Exec(t.Context(), shell("echo kept; exit 1"))
	if err == nil || string(out) != "kept\n" {
		t.Errorf("the output of a command that fails is %q, %v", out, err)
	}
}

func TestExecThatCannotStart(t *testing.T) {
	for _, path := range []string{"true", "./true", ""} {
		if _, err := host.Exec(t.Context(), host.Command{Path: path}); err == nil || !strings.Contains(err.Error(), "is not absolute") {
			t.Errorf("path %q: %v, want it refused", path, err)
		}
	}
	_, err := host.Exec(t.Context(), host.Command{Path: "/no/such/program"})
	var failed *host.CommandError
	if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &failed) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestRun(t *testing.T) {
	var ran []host.Command
	h := host.New(t.TempDir())
	h.Exec = func(_ context.Context, c host.Command) ([]byte, error) {
		ran = append(ran, c)
		return []byte("out"), nil
	}
	if _, err := h.Run(t.Context(), "/bin/rm", "-rf"); err == nil || !strings.Contains(err.Error(), "run rm -rf: the tree at "+h.Root+" is not a running machine") {
		t.Errorf("on an image: %v, want it refused", err)
	}
	if _, err := h.RunCommand(t.Context(), host.Command{Path: "/bin/rm"}); err == nil {
		t.Error("on an image a command was run")
	}
	h.Offline = false
	out, err := h.Run(t.Context(), "/bin/echo", "a", "b")
	if err != nil || string(out) != "out" {
		t.Errorf("got %q, %v", out, err)
	}
	if diff := cmp.Diff([]host.Command{{Path: "/bin/echo", Args: []string{"a", "b"}}}, ran); diff != "" {
		t.Errorf("run (- wanted, + had):\n%s", diff)
	}
}

// The command starts a child, which tells that it is there; then the context ends.
func TestExecEndsTheWholeGroup(t *testing.T) {
	tests := map[string]string{
		"obedient": `sleep 1000 & echo $! >"$1.new"; mv "$1.new" "$1"; wait`,
		// The shell itself goes on SIGTERM; what it started does not, nor does it hold our pipes.
		"child that ignores SIGTERM": `(trap "" TERM; sleep 1000 & echo $! >"$1.new"; mv "$1.new" "$1"; wait) >/dev/null 2>&1 & wait`,
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			why := errors.New("deadline of the step")
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := host.Exec(ctx, shell(script, file))
				ended <- err
			}()
			var pid string
			eventually(t, "the child to start", func() bool {
				data, err := os.ReadFile(file)
				pid = strings.TrimSpace(string(data))
				return err == nil
			})
			if !alive(pid) {
				t.Fatalf("process %s is not there", pid)
			}
			t.Cleanup(func() { // where the code under test did not
				if n, err := strconv.Atoi(pid); err == nil && alive(pid) {
					_ = syscall.Kill(n, syscall.SIGKILL)
				}
			})
			cancel(why)
			if err := <-ended; !errors.Is(err, why) || !strings.HasPrefix(err.Error(), "run sh -c ") {
				t.Errorf("error %v, want the context's cause", err)
			}
			eventually(t, "the child to end", func() bool { return !alive(pid) })
		})
	}
}

// alive is false for a process that has ended, reaped or not: a container's init may not reap.
func alive(pid string) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// eventually waits for what has to come; its deadline is for a test that has failed.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 2000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
