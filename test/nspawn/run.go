package nspawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ScriptTimeout is the deadline of one Script.
const ScriptTimeout = 2 * time.Minute

// Run runs a program (an absolute path) in the container, as root, and returns what it wrote to
// stdout and stderr together. When ctx is done the program is killed.
func (m *Machine) Run(ctx context.Context, path string, args ...string) (string, error) {
	return m.run(ctx, nil, path, args...)
}

func (m *Machine) run(ctx context.Context, stdin io.Reader, path string, args ...string) (string, error) {
	if _, ok := ctx.Deadline(); !ok {
		return "", fmt.Errorf("run %s in %s: the context has no deadline", path, m.name)
	}
	var output bytes.Buffer
	enter := append(m.Enter(), path)
	cmd := exec.CommandContext(ctx, enter[0], append(enter[1:], args...)...)
	cmd.Env = baseEnv()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &output, &output
	// nsenter forks to enter the PID namespace: kill the group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return output.String(), fmt.Errorf("run %s in %s: %w\n%s", path, m.name, err, output.String())
	}
	return output.String(), nil
}

// Enter is what stands before a command of the host's to run it in the container, as root: for
// programs that reach a machine by a command.
func (m *Machine) Enter() []string {
	return []string{"nsenter", "--target", strconv.Itoa(m.leader), "--all", "--"}
}

// Script runs a shell script in the container and fails the test if any of its commands fails.
func (m *Machine) Script(t testing.TB, script string) string {
	t.Helper()
	out, err := m.TryScript(script)
	if err != nil {
		t.Fatalf("script %s\n%v", script, err)
	}
	return out
}

// TryScript is Script for one whose failure is no surprise. ExitCode reads the error.
func (m *Machine) TryScript(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ScriptTimeout)
	defer cancel()
	return m.Run(ctx, "/bin/sh", "-euc", script)
}

// ExitCode is what a program run in the container exited with: 0 for no error, -1 when it was
// killed or never ran.
func ExitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// Write makes a file in the container, and the directories above it.
func (m *Machine) Write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := m.copyIn(bytes.NewReader(data), path, mode); err != nil {
		t.Fatal(err)
	}
}

// CopyIn copies a file of the host, with its mode, to path in the container.
func (m *Machine) CopyIn(t testing.TB, source, path string) {
	t.Helper()
	f, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.copyIn(f, path, info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
}

func (m *Machine) copyIn(content io.Reader, path string, mode os.FileMode) error {
	ctx, cancel := context.WithTimeout(context.Background(), ScriptTimeout)
	defer cancel()
	const script = `mkdir -p "$1"; cat > "$2"; chmod "$3" "$2"`
	_, err := m.run(ctx, content, "/bin/sh", "-euc", script, "sh", filepath.Dir(path), path, fmt.Sprintf("%o", mode))
	return err
}

// Wait runs a script again and again until it succeeds, and fails the test when timeout is over.
func (m *Machine) Wait(t testing.TB, timeout time.Duration, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var last error
	for {
		out, err := m.Run(ctx, "/bin/sh", "-euc", script)
		if err == nil {
			return out
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not so within %s: %s\nlast: %v", timeout, script, last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// baseEnv is all that programs see of the environment.
func baseEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
	}
}

// childNamed is the child of parent with the given name, or 0.
func childNamed(parent int, name string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// "pid (name) state ppid ...": a process that has just gone is not an answer.
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), " (")
		i := strings.LastIndex(rest, ") ")
		if i < 0 || rest[:i] != name {
			continue
		}
		if fields := strings.Fields(rest[i+2:]); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			return pid
		}
	}
	return 0
}
