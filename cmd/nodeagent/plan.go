package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// stepFlags are --only and --skip.
type stepFlags struct{ only, skip []string }

func (f *stepFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.only, "only", nil, "only these `steps`, or areas: kernel/swap, kernel")
	cmd.Flags().StringSliceVar(&f.skip, "skip", nil, "all but these `steps`, or areas")
}

func (f *stepFlags) all() bool { return len(f.only)+len(f.skip) == 0 }

func (f *stepFlags) of(m *machine) ([]step.Step, error) {
	steps, err := step.Select(m.steps, f.only, f.skip)
	if err != nil {
		return nil, usageError{err}
	}
	m.partial = !f.all()
	return steps, nil
}

func (a *app) planCommand() *cobra.Command {
	var flags stepFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what apply would change, and change nothing",
		Long: `Plan prints how this host differs from its configuration, step by step.

It exits 0 when apply has nothing to do, 2 when apply would change something or
be stopped, and 1 when it cannot tell.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := a.machine()
			if err != nil {
				return err
			}
			steps, err := flags.of(m)
			if err != nil {
				return err
			}
			results := step.Plan(cmd.Context(), steps, nil)
			if err := print(a, planOf(results), func(w io.Writer) error { return writePlan(w, results) }); err != nil {
				return err
			}
			return planError(results)
		},
	}
	flags.add(cmd)
	return cmd
}

// plannedStep is a step's result in JSON and YAML.
type plannedStep struct {
	Step    string        `json:"step"`
	Outcome step.Outcome  `json:"outcome"`
	Changes []step.Change `json:"changes,omitempty"`
	Error   string        `json:"error,omitempty"`
}

func planOf(results []step.Result) []plannedStep {
	out := make([]plannedStep, len(results))
	for i, r := range results {
		out[i] = plannedStep{Step: r.Step, Outcome: r.Outcome, Changes: r.Changes, Error: errorText(r.Err)}
	}
	return out
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// planError is the result of a plan as an exit code says it.
func planError(results []step.Result) error {
	var failed []string
	differs := false
	for _, r := range results {
		switch r.Outcome {
		case step.Failed:
			failed = append(failed, fmt.Sprintf("%s: %v", r.Step, r.Err))
		case step.Differs, step.Stopped:
			differs = true
		case step.Waiting:
			differs = differs || !waitsForBoot(r)
		case step.Clean, step.Applied:
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("plan: %s", strings.Join(failed, "; "))
	}
	if differs {
		return errDiffers
	}
	return nil
}

func writePlan(w io.Writer, results []step.Result) error {
	var b strings.Builder
	changes, failed := 0, 0
	for _, rs := range spans(results) {
		for _, r := range rs {
			changes += len(r.Pending())
			if r.Outcome == step.Failed {
				failed++
			}
		}
		writeResult(&b, spanName(rs), rs[0])
	}
	switch {
	case failed > 0:
		fmt.Fprintf(&b, "%s; %d of %d steps cannot be checked\n", count(changes, "change"), failed, len(results))
	case changes == 0:
		fmt.Fprintf(&b, "%d steps checked, nothing to change\n", len(results))
	default:
		fmt.Fprintf(&b, "%s; `nodeagent apply` makes them\n", count(changes, "change"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// count is a number of things in words: "1 change", "2 changes".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// spans puts steps that wait together with their neighbours of the same area that wait for the
// same: the phases of kubeadm, which all wait for the boot.
func spans(results []step.Result) [][]step.Result {
	var out [][]step.Result
	for _, r := range results {
		if n := len(out); n > 0 && r.Outcome == step.Waiting {
			first := out[n-1][0]
			if first.Outcome == step.Waiting && area(first.Step) == area(r.Step) && errorText(first.Err) == errorText(r.Err) {
				out[n-1] = append(out[n-1], r)
				continue
			}
		}
		out = append(out, []step.Result{r})
	}
	return out
}

// spanName is "kubelet", "preflight/host, preflight/time" or "kubeadm/config … kubeadm/addon".
func spanName(results []step.Result) string {
	first, last := results[0].Step, results[len(results)-1].Step
	switch len(results) {
	case 1:
		return first
	case 2:
		return first + ", " + last
	}
	return first + " … " + last
}

// writeResult writes a step and how the host differs, as a diff; a clean step takes no lines.
func writeResult(b *strings.Builder, name string, r step.Result) {
	switch {
	case r.Outcome == step.Failed:
		fmt.Fprintf(b, "%s: cannot be checked: %v\n", name, r.Err)
		return
	case r.Outcome == step.Waiting:
		fmt.Fprintf(b, "%s: %v\n", name, r.Err)
		return
	case len(r.Changes) == 0:
		return
	case r.Outcome == step.Stopped:
		fmt.Fprintf(b, "%s: apply would stop here\n", name)
	default:
		fmt.Fprintf(b, "%s\n", name)
	}
	for _, c := range r.Changes {
		note := ""
		if c.Disruptive {
			note = "   (restarts something)"
		}
		if c.Manual {
			note = "   (only you can mend this)"
		}
		fmt.Fprintf(b, "  %s%s\n    - %s\n    + %s\n", c.Subject, note, c.Have, c.Want)
	}
}
