package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
)

// waitFlags are --wait and --timeout.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

const (
	// defaultWait is longer than a bootstrap takes that has to download everything.
	defaultWait  = 15 * time.Minute
	pollInterval = 2 * time.Second
)

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until the node is well")
	cmd.Flags().DurationVar(&f.timeout, "timeout", defaultWait, "how long --wait waits")
}

func (f *waitFlags) check(cmd *cobra.Command) error {
	switch {
	case cmd.Flags().Changed("timeout") && !f.wait:
		return usageError{errors.New("--timeout is for --wait, which is not given")}
	case f.timeout <= 0:
		return usageError{fmt.Errorf("--timeout: %s is no time to wait", f.timeout)}
	}
	return nil
}

// status is what read says: at once, or the first that is well, or the last there was when the
// time was up. What is waited for is told on w, each time that it is something else.
func (f *waitFlags) status(ctx context.Context, w io.Writer, read func(context.Context) (agent.Status, error)) (agent.Status, error) {
	if !f.wait {
		return read(ctx)
	}
	deadline := time.Now().Add(f.timeout)
	for told := ""; ; {
		s, err := read(ctx)
		if ctx.Err() != nil {
			return s, fmt.Errorf("wait until the node is well: %w", context.Cause(ctx))
		}
		if err != nil || s.Verdict == agent.Well {
			return s, err
		}
		if why := reason(s); why != told {
			told = why
			fmt.Fprintf(w, "waiting: %s\n", why)
		}
		left := time.Until(deadline)
		if left <= 0 {
			fmt.Fprintf(w, "nodeagent: not well after %s\n", f.timeout)
			return s, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(pollInterval, left)):
		}
	}
}

// reason is what stands between the node and a good verdict, on one line.
func reason(s agent.Status) string {
	if s.Verdict == agent.Wrong {
		return s.Summary + ": " + s.Problems[0].What
	}
	return s.Summary
}
