package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Command is one program to run. Secrets go to Stdin or to a file, never into Args.
type Command struct {
	Path  string // absolute
	Args  []string
	Stdin []byte
	Env   []string // added to the fixed environment
	Dir   string   // "/" when empty
}

func (c Command) String() string {
	return strings.Join(append([]string{filepath.Base(c.Path)}, c.Args...), " ")
}

// CommandError is a command that ran and failed.
type CommandError struct {
	Command Command
	Code    int    // exit code; -1 when a signal ended it
	Stderr  string // its last lines
	Err     error
}

func (e *CommandError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("run %s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("run %s: %v: %s", e.Command, e.Err, e.Stderr)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Run runs a command on the host and returns its standard output. An Offline host runs none.
func (h *Host) Run(ctx context.Context, path string, args ...string) ([]byte, error) {
	return h.RunCommand(ctx, Command{Path: path, Args: args})
}

// RunCommand is Run for a command with more to it than arguments.
func (h *Host) RunCommand(ctx context.Context, c Command) ([]byte, error) {
	if h.Offline {
		return nil, fmt.Errorf("run %s: the tree at %s is not a running machine", c, h.Root)
	}
	return h.Exec(ctx, c)
}

// fixedEnv is all that a command sees of the environment: no locale, no proxy, no NOTIFY_SOCKET.
var fixedEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive",
}

// waitDelay is how long a command has between SIGTERM, when ctx is done, and SIGKILL.
const waitDelay = 10 * time.Second

// Exec runs a command with a fixed environment and returns its standard output. When ctx is
// done its process group gets SIGTERM, and what is left of the group SIGKILL when the command
// has ended, ten seconds later at the latest; the error is then that of ctx. A command that
// fails is a *CommandError.
func Exec(ctx context.Context, c Command) ([]byte, error) {
	if !filepath.IsAbs(c.Path) {
		return nil, fmt.Errorf("run %s: path %q is not absolute", c, c.Path)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = append(append([]string{}, fixedEnv...), c.Env...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		if cmd.Process != nil {
			// WaitDelay kills the command alone. Nobody left in the group is fine.
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		return stdout.Bytes(), fmt.Errorf("run %s: %w", c, context.Cause(ctx))
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, fmt.Errorf("run %s: %w", c, err)
	}
	return stdout.Bytes(), &CommandError{Command: c, Code: exit.ExitCode(), Stderr: lastLines(stderr.String(), 5), Err: err}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
