package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

func (a *app) applyCommand() *cobra.Command {
	var flags stepFlags
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make this host as its configuration says",
		Long: `Apply makes this host as its configuration says, step by step, and checks each
step again afterwards. It stops at the first step that fails; run again, it goes
on from there, since every step looks at the host before it does anything.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := a.machine()
			if err != nil {
				return err
			}
			steps, err := flags.of(m)
			if err != nil {
				return err
			}
			progress := newProgress(a.stderr)
			defer progress.end()
			results, err := m.apply(cmd.Context(), steps, flags.all(), progress.observe)
			progress.end()
			if err != nil {
				return fmt.Errorf("apply: %w", err)
			}
			return writeApplied(a.stderr, results)
		},
	}
	flags.add(cmd)
	return cmd
}

func writeApplied(w io.Writer, results []step.Result) error {
	applied, waiting := 0, []string{}
	for _, rs := range spans(results) {
		switch rs[0].Outcome {
		case step.Applied:
			applied++
		case step.Waiting:
			waiting = append(waiting, spanName(rs))
		case step.Clean, step.Differs, step.Stopped, step.Failed:
		}
	}
	text := fmt.Sprintf("%d steps, %d changed", len(results), applied)
	if len(waiting) > 0 {
		text += "; wait for boot: " + strings.Join(waiting, ", ")
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// apply applies steps under the host's lock, and those that only wait for others after it.
// When they are all the host's steps it puts the marks of a bootstrap: begun, if nothing of a
// cluster is there, and complete at the end.
func (m *machine) apply(ctx context.Context, steps []step.Step, all bool, observe func(step.Event)) ([]step.Result, error) {
	unlock, err := m.lock(ctx, host.LockHost, "apply")
	if err != nil {
		return nil, err
	}
	held := true
	release := func() {
		if held {
			unlock()
		}
		held = false
	}
	defer release()

	marks := all && !m.host.Offline
	// A part of kubeadm's phases begins the whole: what is half-made is the agent's to finish.
	if marks || !m.host.Offline && slices.ContainsFunc(steps, isPhase) {
		if err := m.begin(); err != nil {
			return nil, err
		}
	}
	waits := slices.IndexFunc(steps, func(s step.Step) bool {
		return s.Name == bootstrap.NodeReadyStep || s.Name == bootstrap.AddonsReadyStep
	})
	if waits < 0 {
		waits = len(steps)
	}
	results, err := step.Apply(ctx, steps[:waits], func(e step.Event) {
		e.Total = len(steps)
		observe(e)
	})
	if err != nil {
		return results, err
	}
	release()
	waited, err := step.Apply(ctx, steps[waits:], func(e step.Event) {
		e.Index, e.Total = e.Index+waits, len(steps)
		observe(e)
	})
	results = append(results, waited...)
	if err != nil {
		return results, err
	}
	if marks {
		wanted, err := m.wanted()
		if err != nil {
			return results, err
		}
		return results, agent.CompleteBootstrap(m.host, wanted)
	}
	return results, nil
}

func isPhase(s step.Step) bool { return strings.HasPrefix(s.Name, "kubeadm/") }

func (m *machine) begin() error {
	building, err := agent.Building(m.host, bootstrap.MemberFiles)
	if err != nil || !building {
		return err
	}
	return agent.BeginBootstrap(m.host)
}

func waitsForBoot(r step.Result) bool {
	var blocked step.Blocked
	return errors.As(r.Err, &blocked) && blocked.On == step.Boot
}
