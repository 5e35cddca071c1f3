package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	commandTimeout = time.Minute
	stopTimeout    = 20 * time.Second
	killTimeout    = 10 * time.Second
)

// Process is a running component: a direct child that cannot outlive the test binary.
type Process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for
}

// start runs a program until Stop. Its output is printed if the test fails.
func start(t testing.TB, path string, args ...string) *Process {
	t.Helper()
	name := filepath.Base(path)
	log, err := os.CreateTemp(t.TempDir(), name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &Process{name: name, log: log.Name(), cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = environment(), "/"
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // what it said of its end is in the log
		close(p.ended)
	}()
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			p.printLog(t)
		}
	})
	return p
}

// Stop ends the process as kubelet would, and fails the test if it has to be killed.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the process as a power failure would.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Kill()
	if !p.wait(killTimeout) {
		t.Fatalf("%s does not end, not even by SIGKILL", p.name)
	}
}

func (p *Process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	if p.wait(stopTimeout) {
		return nil
	}
	_ = p.cmd.Process.Kill()
	if !p.wait(killTimeout) {
		return fmt.Errorf("%s does not end, not even by SIGKILL", p.name)
	}
	return fmt.Errorf("%s had to be killed: it did not end within %s of SIGTERM", p.name, stopTimeout)
}

func (p *Process) wait(timeout time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(timeout):
		return false
	}
}

// until waits for ready to be nil, for as long as the process lives and timeout lasts.
func (p *Process) until(t testing.TB, timeout time.Duration, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("%s ended while it was waited for: %v", p.name, p.cmd.ProcessState)
		case <-ctx.Done():
			t.Fatalf("%s is not ready after %s: %v", p.name, timeout, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *Process) printLog(t testing.TB) {
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Log(err)
		return
	}
	const most = 16 << 10
	if len(log) > most {
		log = log[len(log)-most:]
	}
	t.Logf("the end of the log of %s:\n%s", p.name, log)
}

// command runs a program to its end and returns its stdout.
func command(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = environment(), "/"
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		err = errors.Join(err, ctx.Err())
		return stdout.String(), fmt.Errorf("run %s %s: %w\n%s%s", filepath.Base(path), strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func environment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run/home", "KUBECONFIG=" + SuperAdmin, "LANG=C.UTF-8"}
}
