package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
)

// writeStatus writes the page. Steps and jobs are aligned among themselves: one long line
// would else push everything apart.
func writeStatus(w io.Writer, s agent.Status) error {
	var errs []error
	table := func(rows func(t io.Writer)) {
		t := tabwriter.NewWriter(w, len("Certificates")+2, 0, 2, ' ', 0)
		rows(t)
		errs = append(errs, t.Flush())
	}
	table(func(t io.Writer) { fmt.Fprintf(t, "Node\t%s, %s, %s\n", s.Host, s.Role, s.Standing) })
	table(func(t io.Writer) { writeNode(t, s) })
	table(func(t io.Writer) {
		for _, u := range s.Units {
			fmt.Fprintf(t, "Unit\t%s\t%s\t%s\n", u.Unit, u, since(u.Since, s.Now))
		}
	})
	table(func(t io.Writer) {
		for _, p := range s.StaticPods {
			fmt.Fprintf(t, "Static pod\t%s\t%s\t%s\t%s\n", p.Name, p.State, count(p.Restarts, "restart"), since(p.Since, s.Now))
		}
	})
	table(func(t io.Writer) {
		for _, steps := range alike(s.Steps) {
			fmt.Fprintf(t, "Step\t%s\t%s\t%s\n", alikeName(steps), steps[0].Outcome, ago(oldest(steps), s.Now))
		}
	})
	table(func(t io.Writer) {
		for _, j := range s.Jobs {
			fmt.Fprintf(t, "Job\t%s\tlast success %s\tnext %s\n", j.Name, ago(j.LastSuccess, s.Now), in(j.Next, s.Now))
		}
	})
	table(func(t io.Writer) {
		snapshots := "none"
		if len(s.Snapshots) > 0 {
			newest := s.Snapshots[0]
			snapshots = fmt.Sprintf("%d, the newest %s, %s", len(s.Snapshots), newest.Name, ago(newest.Taken, s.Now))
		}
		fmt.Fprintf(t, "Snapshots\t%s\n", snapshots)
		if first := firstToExpire(s.Certificates); first != nil {
			fmt.Fprintf(t, "Certificates\t%d, the first to expire %s (%s)\n", len(s.Certificates), first.Path, days(first.NotAfter, s.Now))
		}
		for _, p := range s.Problems {
			fmt.Fprintf(t, "Problem\t%s\n", p.What)
			if p.Remedy != "" {
				fmt.Fprintf(t, "\ttype: %s\n", p.Remedy)
			}
		}
		if len(s.Problems) == 0 {
			fmt.Fprintln(t, "Problems\tnone known")
		}
	})
	return errors.Join(errs...)
}

// writeNode writes what the API says of the node.
func writeNode(t io.Writer, s agent.Status) {
	switch n := s.Node; {
	case n == nil:
	case !n.Known:
		fmt.Fprintf(t, "Kubernetes\tthe API does not say how the node is: %s\n", n.Error)
	default:
		text := n.KubeletVersion + ", Ready"
		if !n.Ready {
			text = n.KubeletVersion + ", not Ready"
		}
		if n.Unschedulable {
			text += ", unschedulable"
		}
		fmt.Fprintf(t, "Kubernetes\t%s\n", text)
		for _, c := range n.Conditions {
			fmt.Fprintf(t, "Condition\t%s is %s: %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
	}
}

// alike puts neighbouring steps of one area that ended alike together: a clean cluster's phases
// are one line.
func alike(steps []agent.StepStatus) [][]agent.StepStatus {
	var out [][]agent.StepStatus
	for _, st := range steps {
		if n := len(out); n > 0 && area(out[n-1][0].Name) == area(st.Name) && out[n-1][0].Outcome == st.Outcome {
			out[n-1] = append(out[n-1], st)
			continue
		}
		out = append(out, []agent.StepStatus{st})
	}
	return out
}

// area is what a step's name begins with, up to the slash.
func area(name string) string {
	area, _, _ := strings.Cut(name, "/")
	return area
}

// alikeName is the one step's name, or "kubeadm (13 steps)".
func alikeName(steps []agent.StepStatus) string {
	if len(steps) == 1 {
		return steps[0].Name
	}
	return area(steps[0].Name) + " (" + count(len(steps), "step") + ")"
}

// oldest is when the step that was looked at longest ago was.
func oldest(steps []agent.StepStatus) time.Time {
	first := steps[0].At
	for _, st := range steps {
		if st.At.Before(first) {
			first = st.At
		}
	}
	return first
}

func firstToExpire(list []agent.CertificateStatus) *agent.CertificateStatus {
	var first *agent.CertificateStatus
	for i := range list {
		if first == nil || list[i].NotAfter.Before(first.NotAfter) {
			first = &list[i]
		}
	}
	return first
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return max(now.Sub(t), 0).Round(time.Second).String() + " ago"
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return "since " + max(now.Sub(t), 0).Round(time.Second).String()
}

func in(t, now time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return "in " + max(t.Sub(now), 0).Round(time.Second).String()
}
