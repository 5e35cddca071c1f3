package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// commandTimeout and waitTimeout are far more than it takes, for a busy machine.
	commandTimeout = 30 * time.Second
	waitTimeout    = time.Minute
	stopTimeout    = 15 * time.Second
	pollInterval   = 200 * time.Millisecond
)

// lines writes whole lines, from several goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) printf(format string, args ...any) { l.print("", fmt.Sprintf(format, args...)) }

// print writes text with prefix before each of its lines.
func (l *lines) print(prefix, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(text) {
		// The reader may have gone: nobody is left to tell.
		_, _ = io.WriteString(l.w, prefix+strings.TrimSuffix(line, "\n")+"\n")
	}
}

// prefixed is a writer of lines; what it is given is shown when its line is complete.
type prefixed struct {
	out    *lines
	prefix string
	rest   []byte
}

func (p *prefixed) Write(data []byte) (int, error) {
	p.rest = append(p.rest, data...)
	if i := bytes.LastIndexByte(p.rest, '\n'); i >= 0 {
		p.out.print(p.prefix, string(p.rest[:i+1]))
		p.rest = p.rest[i+1:]
	}
	return len(data), nil
}

// agent is the program under show and the machine that it is shown on.
type agent struct {
	binary string
	root   string
	out    *lines
}

func (a agent) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, a.binary, append([]string{"--root", a.root}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	// A Ctrl-C is the demo's to pass on, and what the demo started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// show runs a command of the agent in front of the audience. An exit code other than want is
// an error.
func (a agent) show(ctx context.Context, want int, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	a.out.printf("$ nodeagent --root $ROOT %s", strings.Join(args, " "))
	var output bytes.Buffer
	cmd := a.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	a.out.print("    ", output.String())
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return fmt.Errorf("run nodeagent %s: %w", args[0], errors.Join(err, context.Cause(ctx)))
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		return fmt.Errorf("nodeagent %s: exit code %d, expected %d", args[0], code, want)
	}
	return nil
}

// ask runs a command of the agent behind the scenes and returns its standard output.
func (a agent) ask(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := a.command(ctx, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("run nodeagent %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// daemon is `nodeagent run`.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (a agent) start() (*daemon, error) {
	a.out.printf("$ nodeagent --root $ROOT run &")
	log := &prefixed{out: a.out, prefix: "    daemon: "}
	cmd := a.command(context.Background(), "run")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // stop reads the exit code
		close(d.done)
	}()
	return d, nil
}

// stop ends the daemon as systemd would and says when it does not end well.
func (d *daemon) stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // one that has ended is told by its exit code
	select {
	case <-d.done:
	case <-time.After(stopTimeout):
		_ = d.cmd.Process.Kill()
		<-d.done
		return errors.New("stop daemon: it did not end by itself")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("stop daemon: it ended with %s", d.cmd.ProcessState)
	}
	return nil
}

// wait polls until ready returns true.
func (d *daemon) wait(ctx context.Context, what string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	for {
		ok, err := ready(ctx)
		if ok {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("wait for %s: the daemon has ended: %s", what, d.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(err, context.Cause(ctx)))
		case <-time.After(pollInterval):
		}
	}
}

// get is the body of a page of the daemon.
func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s: %s", url, response.Status)
	}
	return string(body), nil
}
