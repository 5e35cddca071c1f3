package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// logged is a session whose log can be read.
func logged(t *testing.T) (s *session, page func() string, log *bytes.Buffer) {
	t.Helper()
	s, page = liveSession(t, liveMachine(t, "127.0.0.1:1"))
	log = &bytes.Buffer{}
	s.log = slog.New(slog.NewTextHandler(log, nil))
	return s, page, log
}

// A state that cannot be written is told when that begins and when it ends, and all the while by a metric.
func TestStateNotWritten(t *testing.T) {
	s, page, log := logged(t)
	const dir = "/var/lib/nodeagent"
	s.remember(func(*agent.State) {})
	wantAll(t, page(), "nodeagent_state_written 1\n")
	if err := s.host.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, s.host, dir, "a file in the way\n")
	for range 3 {
		s.remember(func(*agent.State) {})
	}
	wantAll(t, page(), "nodeagent_state_written 0\n")
	if err := s.host.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.remember(func(*agent.State) {})
	}
	wantAll(t, page(), "nodeagent_state_written 1\n")
	if text := log.String(); strings.Count(text, "state not written") != 1 || strings.Count(text, "state is written again") != 1 || strings.Count(text, "\n") != 2 {
		t.Errorf("the log says\n%s", text)
	}
}

// A difference is told when it comes and when it goes, also when it is never twice the same.
func TestDriftIsToldOnce(t *testing.T) {
	s, _, log := logged(t)
	for _, have := range []string{"30510 MiB free", "30514 MiB free", "30491 MiB free"} {
		result := step.Result{Step: "preflight/host", Outcome: step.Stopped, Changes: []step.Change{{Subject: "DiskSpace", Have: have, Want: "38702 MiB"}}}
		if err := s.reportDrift(agent.Drift{Results: []step.Result{result}}); err != nil {
			t.Error(err)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "30510 MiB free") {
		t.Errorf("the log says\n%s", text)
	}
	if err := s.reportDrift(agent.Drift{}); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "drift: is gone") {
		t.Errorf("the log says\n%s", text)
	}
}
