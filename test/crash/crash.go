// Package crash kills a program at each point at which a kill could leave something half done,
// and lets a test look at what is left.
//
// Run starts a program under ptrace and counts the system calls by which it changes the
// machine, with one counter over all its threads and those of all its children, and ends the
// whole tree by SIGKILL in place of the Nth: N-1 such calls have been carried out, the Nth has
// not. Sweep does so for every N until a run ends by itself, each time on a fresh machine. The
// program is the real one, as it is shipped: it has no hook for this and cannot know.
//
// What counts is in calls.go: calls that make, remove, rename or link files, open them to
// create or to cut them, write to them (writes to regular files and block devices, so files
// below /proc and /sys too), change their mode, owner, times, size or attributes; mounts, swap,
// kernel modules, host name and clock. Writes to pipes, sockets and terminals do not count, nor
// does fsync: for a process that is killed, before and after it are the same.
//
// What a sweep shows: no moment at which the program can be killed (kill -9, the kernel's out
// of memory killer, systemd's timeout) leaves a state that the next run does not mend, since
// between two changes there is no other state to be found. What it cannot show:
//
//   - A loss of power. What the killed program wrote stays in the page cache, synced or not.
//     What it failed to sync, Result.Unsynced finds in the order of its calls.
//   - A single call cut in two: a large write that ends half-way. It is found by reading that
//     nothing is written in place.
//   - What other processes do for the program: systemd by D-Bus, an API server, netlink. Those
//     calls are not counted, so that two of them in a row have no kill between them. Of the
//     bootstrap that leaves out what apt and dpkg do (killed in test/integration/packages) and the
//     phases of kubeadm that talk to the API (killed in test/e2e).
//   - Files changed through a shared mapping, by ioctl or by io_uring.
//   - Another order of threads than the one that happened to come up. With one thread at work
//     at a time, as in every step of the agent, a sweep is complete and repeats itself.
//
// It needs Linux on amd64 or arm64, may be used by any user for its own programs, and costs
// two stops for every system call.
package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is the program to run.
type Command struct {
	Args []string // the first is its absolute path
	Env  []string // all of its environment
	Dir  string   // "/" when empty
}

// Result is how a run ended.
type Result struct {
	Killed   bool   // it was killed in place of a call
	Calls    int    // that count; the one it was killed in place of is one of them
	Log      []Call // those calls, and fsync, as they were begun
	ExitCode int    // as a shell has it: 128 and the signal if one ended it
	Output   string // stdout and stderr
}

// Run runs a program and kills it, with its children, in place of the nth call that counts; it
// lets it be when n is 0 or the program makes fewer. Children that outlive the program are
// killed then. stdin is empty. When ctx is done the program is killed too, which is an error.
func Run(ctx context.Context, c Command, n int) (Result, error) {
	if len(c.Args) == 0 || !filepath.IsAbs(c.Args[0]) {
		return Result{}, fmt.Errorf("run %q: no absolute path of a program", c.Args)
	}
	var result Result
	ended := make(chan error, 1)
	go onOwnThread(func() {
		var err error
		result, err = run(ctx, c, n)
		ended <- err
	})
	if err := <-ended; err != nil {
		return result, fmt.Errorf("run %s: %w", filepath.Base(c.Args[0]), err)
	}
	return result, nil
}

// onOwnThread calls do on a thread that has no children and gets none but those that do starts,
// and that ends with it: ptrace is a matter of threads, and what a thread waits for is all that
// it has started. A thread that another goroutine has started a process from (os/exec) is no
// good, and neither is the first one, which inherits the children of those that end.
func onOwnThread(do func()) {
	runtime.LockOSThread()
	first := unix.Gettid() == unix.Getpid()
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WNOTHREAD|unix.WALL, nil)
	if !first && errors.Is(err, unix.ECHILD) {
		do() // and no unlocking: the thread ends with the goroutine
		return
	}
	done := make(chan struct{})
	go func() { // while this thread is taken, on another
		defer close(done)
		onOwnThread(do)
	}()
	<-done
	runtime.UnlockOSThread()
}

func run(ctx context.Context, c Command, n int) (Result, error) {
	process, output, err := start(c)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = process.Release() }() // it has been waited for
	stop := context.AfterFunc(ctx, func() { _ = process.Kill() })
	defer stop()

	t := tracer{main: process.Pid, killAt: n, threads: map[int]*thread{}}
	err = t.trace()
	out, readErr := output()
	result := Result{Killed: t.killed, Calls: t.calls, Log: t.log, ExitCode: t.code, Output: out}
	if ctx.Err() != nil && !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	return result, errors.Join(err, readErr)
}

// start starts the program, which stops before its first instruction. output returns what it
// and its children wrote, when they all have ended.
func start(c Command) (process *os.Process, output func() (string, error), err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	r, w, err := os.Pipe() // and no file: writing to one counts
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	process, err = os.StartProcess(c.Args[0], c.Args, &os.ProcAttr{
		Dir: dir, Env: append([]string{}, c.Env...), Files: []*os.File{null, w, w},
		Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	var buf bytes.Buffer
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(&buf, r)
		read <- errors.Join(err, r.Close())
	}()
	return process, func() (string, error) { err := <-read; return buf.String(), err }, nil
}
