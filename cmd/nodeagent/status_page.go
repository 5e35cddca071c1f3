package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// statusPage is the page as it is written.
type statusPage struct {
	terminal
	b strings.Builder
}

// writeStatus writes the page: the verdict, what is wrong with what to type, and then how things
// are. What is well is told in a line, what is not each by itself.
func writeStatus(w io.Writer, s agent.Status, t terminal) error {
	p := &statusPage{terminal: t}
	p.verdict(s)
	p.problems(s)
	p.row("Node", s.Host+", "+strings.Join(words(s.Role, string(s.Standing)), ", ")+"; nodeagent "+s.Version)
	p.kubernetes(s)
	p.units(s)
	p.pods(s)
	p.steps(s)
	p.backups(s)
	p.certificates(s)
	p.jobs(s)
	_, err := io.WriteString(w, p.b.String())
	return err
}

// words are those that are not empty.
func words(all ...string) (out []string) {
	for _, w := range all {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func (p *statusPage) verdict(s agent.Status) {
	color := map[agent.Verdict]paint{agent.Well: green, agent.Wrong: red}[s.Verdict]
	if color == "" {
		color = yellow
	}
	for _, line := range p.wrap(s.Title()+": "+s.Summary, 0) {
		fmt.Fprintln(&p.b, p.paint(color, line))
	}
	fmt.Fprintln(&p.b)
}

// labelWidth is the width of the first column.
const labelWidth = len("Certificates") + 2

// row writes text beside a label, and its further lines below.
func (p *statusPage) row(label, text string) { p.colored("", label, text) }

func (p *statusPage) colored(color paint, label, text string) {
	for i, line := range p.wrap(text, labelWidth) {
		head := ""
		if i == 0 {
			head = label
		}
		head = fmt.Sprintf("%-*s", labelWidth, head)
		if color != "" && i == 0 && label != "" {
			head = p.paint(color, head)
		}
		fmt.Fprintln(&p.b, strings.TrimRight(head+line, " "))
	}
}

// problems are each with its remedy, on a line of its own that can be copied.
func (p *statusPage) problems(s agent.Status) {
	for _, problem := range s.Problems {
		label, color := "Warning", yellow
		if problem.Severity == agent.Error {
			label, color = "Problem", red
		}
		p.colored(color, label, problem.What)
		if problem.Remedy != "" {
			fmt.Fprintf(&p.b, "%*s%s %s\n", labelWidth, "", p.paint(faint, remedyVerb(problem.Remedy)), problem.Remedy)
		}
	}
	if len(s.Problems) > 0 {
		fmt.Fprintln(&p.b)
	}
}

// remedyVerb is what to do with a remedy: read a file or a page, type a command.
func remedyVerb(remedy string) string {
	if strings.HasPrefix(remedy, "/") || strings.HasPrefix(remedy, "https:") {
		return "see:"
	}
	return "type:"
}

// kubernetes is what the API says of the node.
func (p *statusPage) kubernetes(s agent.Status) {
	switch n := s.Node; {
	case n == nil:
	case !n.Known:
		p.row("Kubernetes", "the API does not say how the node is: "+n.Error)
	default:
		text := n.KubeletVersion + ", Ready"
		if !n.Ready {
			text = n.KubeletVersion + ", not Ready"
		}
		if n.Unschedulable {
			text += ", unschedulable"
		}
		p.row("Kubernetes", text)
		for _, c := range n.Conditions {
			p.row("", fmt.Sprintf("%s is %s: %s: %s", c.Type, c.Status, c.Reason, c.Message))
		}
	}
}

// goodOf writes how many of a kind are well, and each that is not.
func goodOf[T interface{ Good() bool }](p *statusPage, label string, list []T, well string, tell func(T) string) {
	var bad []string
	for _, item := range list {
		if !item.Good() {
			bad = append(bad, tell(item))
		}
	}
	if len(list) > 0 {
		p.row(label, fmt.Sprintf("%d of %d %s", len(list)-len(bad), len(list), well))
	}
	for _, line := range bad {
		p.row("", line)
	}
}

func (p *statusPage) units(s agent.Status) {
	goodOf(p, "Units", s.Units, "running", func(u agent.UnitStatus) string {
		return strings.Join(words(u.Unit+" "+u.String(), since(u.Since, s.Now)), ", ")
	})
}

func (p *statusPage) pods(s agent.Status) {
	goodOf(p, "Static pods", s.StaticPods, "running", func(pod agent.StaticPodStatus) string {
		return strings.Join(words(pod.Name+" "+pod.State, count(pod.Restarts, "restart"), since(pod.Since, s.Now)), ", ")
	})
}

// steps are those that are not as they should be; those that wait are counted by what for, and
// neighbours that ended alike are one line.
func (p *statusPage) steps(s agent.Status) {
	if s.StepsTotal == 0 {
		return
	}
	good := 0
	waiting := map[string]int{}
	var rest []string
	for _, steps := range alike(s.Steps) {
		switch {
		case steps[0].Good():
			good += len(steps)
		case steps[0].Outcome == step.Waiting:
			for _, st := range steps {
				waiting[st.Error]++
			}
		default:
			text := fmt.Sprintf("%s %s, %s", alikeName(steps), steps[0].Outcome, agent.Ago(oldest(steps), s.Now))
			if why := steps[0].Error; why != "" && len(steps) == 1 {
				text += ": " + why
			}
			rest = append(rest, text)
		}
	}
	counts := []string{fmt.Sprintf("%d of %d clean", good, s.StepsTotal)}
	for _, why := range slices.Sorted(maps.Keys(waiting)) {
		counts = append(counts, fmt.Sprintf("%d %s", waiting[why], why))
	}
	p.row("Steps", strings.Join(counts, ", "))
	for _, line := range rest {
		p.row("", line)
	}
}

// backups are, store by store, how many there are and how old the newest is. One is listed only
// if it could be verified.
func (p *statusPage) backups(s agent.Status) {
	label := "Backups"
	for i, b := range s.Snapshots {
		if i > 0 && s.Snapshots[i-1].Store == b.Store {
			continue
		}
		n := 0
		for _, other := range s.Snapshots {
			if other.Store == b.Store {
				n++
			}
		}
		p.row(label, fmt.Sprintf("%d in %s, the newest verified %s: %s", n, b.Store, agent.Ago(b.Taken, s.Now), withHash(b)))
		label = ""
		p.row("", s.ProvenIn(b.Store))
	}
	for _, r := range s.RemoteStores {
		for _, line := range remoteLines(r, s.Now) {
			p.row(label, line)
			label = ""
		}
	}
	next := s.NextSnapshot()
	switch {
	case !next.IsZero() && label != "":
		p.row(label, "none; the first "+agent.In(next, s.Now))
	case !next.IsZero():
		p.row("", "the next "+agent.In(next, s.Now))
	case label != "" && s.Role != "worker" && s.Role != "":
		p.row(label, "none")
	}
	for _, note := range s.BackupNotes {
		p.row("", note)
	}
}

func (p *statusPage) certificates(s agent.Status) {
	if first := firstToExpire(s.Certificates); first != nil {
		when := "expires " + agent.In(first.NotAfter, s.Now)
		if !first.NotAfter.After(s.Now) {
			when = "expired " + agent.Ago(first.NotAfter, s.Now)
		}
		p.row("Certificates", fmt.Sprintf("%d, the first %s: %s", len(s.Certificates), when, first.Path))
	}
}

// jobs are a line each, in columns.
func (p *statusPage) jobs(s agent.Status) {
	name, last := 0, 0
	lasts := make([]string, len(s.Jobs))
	for i, j := range s.Jobs {
		lasts[i] = "succeeded " + agent.Ago(j.LastSuccess, s.Now)
		if j.Error != "" {
			lasts[i] = "failed " + agent.Ago(j.LastRun, s.Now) + ", " + lasts[i]
		}
		name, last = max(name, len(j.Name)), max(last, len(lasts[i]))
	}
	for i, j := range s.Jobs {
		label := ""
		if i == 0 {
			label = "Jobs"
		}
		p.row(label, fmt.Sprintf("%-*s  %-*s  next %s", name, j.Name, last, lasts[i], agent.In(j.Next, s.Now)))
	}
}

// alike puts neighbouring steps of one area that ended alike together: the phases of kubeadm that
// wait for a boot are one line.
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

func since(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return "for " + agent.Span(now.Sub(t))
}
