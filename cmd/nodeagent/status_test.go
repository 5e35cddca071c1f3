package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/agent"
)

// pty is a terminal of so many columns, and what is written to it.
func pty(t *testing.T, columns int) (tty *os.File, written func() string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil { //nolint:gosec // it is 60
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		out, _ := io.ReadAll(master) // ends with EIO when the other side is closed
		text <- string(out)
	}()
	return tty, func() string {
		if err := tty.Close(); err != nil {
			t.Error(err)
		}
		return strings.ReplaceAll(<-text, "\r\n", "\n")
	}
}

func wordy() agent.Status {
	s := newStatus(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	s.Host, s.Role, s.Standing, s.StepsTotal = "node-1", "control-plane", agent.Bootstrapped, 28
	s.Problems = []agent.Problem{
		{Severity: agent.Warning, What: "node node-1 takes no new pods", Remedy: "kubectl uncordon node-1"},
		{Severity: agent.Error, What: strings.Repeat("the disk is full and nobody has seen it yet ", 5), Remedy: "crictl logs " + strings.Repeat("0123456789", 7)},
	}
	s.Certificates = []agent.CertificateStatus{{Path: "/etc/kubernetes/pki/apiserver.crt", NotAfter: s.Now.Add(-time.Hour)}}
	s.Judge()
	return s
}

// On a terminal lines fit into it, but for what has to be copied, and the verdict has a color
// unless NO_COLOR forbids it.
func TestStatusOnATerminal(t *testing.T) {
	for _, noColor := range []string{"", "1"} {
		t.Setenv("TERM", "xterm")
		t.Setenv("NO_COLOR", noColor)
		tty, written := pty(t, 60)
		if err := writeStatus(tty, wordy(), terminalOf(tty)); err != nil {
			t.Fatal(err)
		}
		got := written()
		if colored := strings.Contains(got, "\x1b["); colored != (noColor == "") {
			t.Errorf("NO_COLOR=%q, colored %v:\n%q", noColor, colored, got)
		}
		plain := got
		for _, p := range []string{string(green), string(red), string(yellow), string(faint), "\x1b[0m"} {
			plain = strings.ReplaceAll(plain, p, "")
		}
		wantAll(t, plain, "node-1 is not well: 1 problem, 1 warning\n\nProblem       the disk is full and nobody has seen it yet\n              the disk is full",
			"\n              type: crictl logs "+strings.Repeat("0123456789", 7)+"\nWarning       node node-1 takes no new pods\n", "the first expired 1h 0m ago:\n")
		for line := range strings.Lines(plain) {
			if n := utf8.RuneCountInString(line) - 1; n > 60 && !strings.Contains(line, "type: ") {
				t.Errorf("%d columns: %q", n, line)
			}
		}
	}
}

// A dumb terminal and a file get neither color nor broken lines.
func TestStatusElsewhere(t *testing.T) {
	t.Setenv("TERM", "dumb")
	tty, written := pty(t, 60)
	var file bytes.Buffer
	if terminalOf(tty) != (terminal{}) || terminalOf(&file) != (terminal{}) {
		t.Error("taken for a terminal that can do something")
	}
	written()
}

// A well node is told in less than a screen.
func TestStatusIsOnePage(t *testing.T) {
	l := newLive(t)
	text := &bytes.Buffer{}
	if err := writeStatus(text, l.status(t.Context(), time.Now()), terminal{width: 80}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), "\n"); n > 23 {
		t.Errorf("%d lines:\n%s", n, text)
	}
}

// A job that has not ended although its time is up says that the daemon does not run, and one that
// fails says so instead; the agent's unit is told too where there is one.
func TestStatusWithoutADaemon(t *testing.T) {
	l := newLive(t)
	now := time.Now()
	l.units[agentUnit] = failedUnit
	snapshotAt := func(ago time.Duration) agent.JobState { return agent.JobState{Next: now.Add(-ago)} }
	err := agent.UpdateState(t.Context(), l.host, func(s *agent.State) {
		s.Jobs[jobDrift] = snapshotAt(11 * time.Minute)
		s.Jobs[jobCerts] = snapshotAt(5 * time.Minute)
		s.Jobs[jobSnapshot] = snapshotAt(50 * time.Minute)
	})
	if err != nil {
		t.Fatal(err)
	}
	s := l.status(t.Context(), now)
	got := page(t, s)
	wantAll(t, got, "Problem unit nodeagent.service is failed (failed), enabled ; type: journalctl -u nodeagent.service ;",
		"Problem job drift was due 11m ago and has not ended: does the daemon run? ; type: systemctl status nodeagent ;", "Units 2 of 3 running")
	if strings.Contains(got, "job certificates") || strings.Contains(got, "job snapshot") {
		t.Errorf("these may still be at it:\n%s", got)
	}
}

// Waiting ends with the node well, with the time up, or with what makes waiting futile; what is
// waited for is told when it changes.
func TestStatusWait(t *testing.T) {
	verdicts := func(all ...agent.Verdict) func(context.Context) (agent.Status, error) {
		n := 0
		return func(context.Context) (agent.Status, error) {
			v := all[min(n, len(all)-1)]
			n++
			return agent.Status{Verdict: v, Summary: string(v), Problems: []agent.Problem{{What: "w"}}}, nil
		}
	}
	t.Run("well in the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var told bytes.Buffer
			began := time.Now()
			w := waitFlags{wait: true, timeout: time.Minute}
			s, err := w.status(t.Context(), &told, verdicts(agent.Idle, agent.Unfinished, agent.Unfinished, agent.Wrong, agent.Well))
			if err != nil || s.Verdict != agent.Well || time.Since(began) != 4*pollInterval {
				t.Errorf("%v, %v after %s", s.Verdict, err, time.Since(began))
			}
			if told.String() != "waiting: idle\nwaiting: unfinished\nwaiting: wrong: w\n" {
				t.Errorf("%q", told.String())
			}
		})
	})
	t.Run("not in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var told bytes.Buffer
			began := time.Now()
			w := waitFlags{wait: true, timeout: 5 * time.Second}
			s, err := w.status(t.Context(), &told, verdicts(agent.Unfinished))
			if err != nil || s.Verdict != agent.Unfinished || time.Since(began) != 5*time.Second || !strings.HasSuffix(told.String(), "nodeagent: not well after 5s\n") {
				t.Errorf("%v, %v after %s: %q", s.Verdict, err, time.Since(began), told.String())
			}
		})
	})
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			w := waitFlags{wait: true, timeout: time.Hour}
			if _, err := w.status(ctx, io.Discard, verdicts(agent.Wrong)); exitCode(ctx, err) != exitInterrupted {
				t.Errorf("%v", err)
			}
		})
	})
	t.Run("it cannot tell", func(t *testing.T) {
		broken := errors.New("broken")
		w := waitFlags{wait: true, timeout: time.Hour}
		if _, err := w.status(t.Context(), io.Discard, func(context.Context) (agent.Status, error) { return agent.Status{}, broken }); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	})
}

// A configuration that comes while it waits is taken up.
func TestStatusReaderTakesUpAConfiguration(t *testing.T) {
	l := newLive(t)
	a := &app{root: l.host.Root, configPath: "/etc/nodeagent/config.yaml"}
	read := a.statusReader()
	if s, err := read(t.Context()); err != nil || s.Verdict != agent.Idle {
		t.Fatalf("%v, %v", s.Verdict, err)
	}
	write(t, l.host, a.configPath, "role: control-plane\n")
	if s, err := read(t.Context()); err != nil || s.Verdict != agent.Well {
		t.Errorf("%v, %v, %v", s.Verdict, s.Problems, err)
	}
}
