package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/certs"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/step"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say on one page whether this node is all right, and what to type if not",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := a.host()
			cfg, err := a.loadConfig(h)
			if errors.Is(err, errNoConfig) {
				_, err := fmt.Fprintf(a.stdout, "idle: %v\n", err)
				return err
			}
			if err != nil {
				return err
			}
			m, err := newMachine(h, cfg)
			if err != nil {
				return err
			}
			status := m.status(cmd.Context(), time.Now())
			return print(a, status, func(w io.Writer) error { return writeStatus(w, status) })
		},
	}
}

// certWarning is how long before a certificate's end it is a problem; kubeadm's live a year.
const certWarning = 28 * 24 * time.Hour

// status gathers what the host and the agent's memory tell. What cannot be read is a problem
// on the page, not the end of it.
func (m *machine) status(ctx context.Context, now time.Time) agent.Status {
	s := agent.Status{
		APIVersion: "nodeagent/v1", Host: m.nodeName(), Role: string(m.cfg.Role), Version: thisBuild().Version, Now: now,
		Problems: []agent.Problem{}, Units: []agent.UnitStatus{}, StaticPods: []agent.StaticPodStatus{},
	}
	problem := func(remedy, format string, args ...any) {
		s.Problems = append(s.Problems, agent.Problem{What: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	var err error
	s.Standing, err = agent.StandingOf(m.host, bootstrap.MemberFiles)
	switch {
	case errors.Is(err, agent.ErrNoMachineID) && m.host.Offline: // an image has none until it boots
	case errors.Is(err, agent.ErrNoMachineID):
		problem("systemd-machine-id-setup", "%v", err)
	case err != nil:
		problem("", "%v", err)
	}
	if !m.host.Offline {
		m.addNode(&s, m.lookAround(ctx), problem)
	}
	state, err := agent.LoadState(m.host)
	if err != nil {
		problem("", "%v", err)
	}
	if err := agent.StateTrouble(m.host); err != nil && !m.host.Offline {
		problem(diskRemedy(err), "the agent cannot %v", err)
	}
	for _, st := range m.steps {
		was, ran := state.Steps[st.Name]
		if !ran {
			continue
		}
		s.Steps = append(s.Steps, agent.StepStatus{Name: st.Name, Outcome: was.Outcome, Changes: was.Changes, Error: was.Error, At: was.At})
		switch was.Outcome {
		case step.Failed, step.Stopped:
			problem("nodeagent apply", "step %s: %s", st.Name, was.Error)
		case step.Differs:
			problem("nodeagent plan", "step %s: the host differs from its configuration", st.Name)
		case step.Clean, step.Applied, step.Waiting:
		}
	}
	for _, name := range slices.Sorted(maps.Keys(state.Jobs)) {
		job := state.Jobs[name]
		s.Jobs = append(s.Jobs, agent.JobStatus{Name: name, JobState: job})
		if job.Error != "" {
			problem("journalctl -u nodeagent", "job %s failed: %s", name, job.Error)
		}
	}
	m.addCertificates(&s, problem)
	m.addSnapshots(ctx, &s, problem)
	return s
}

// diskRemedy is what to type about a file that cannot be written.
func diskRemedy(err error) string {
	var at *fs.PathError
	if !errors.As(err, &at) {
		return ""
	}
	if errors.Is(err, syscall.ENOSPC) {
		return "df -h " + at.Path + "; df -i " + at.Path
	}
	return "findmnt -T " + at.Path
}

func (m *machine) addCertificates(s *agent.Status, problem func(remedy, format string, args ...any)) {
	list, unreadable, err := certs.Inventory(m.host)
	if err != nil {
		problem("", "%v", err)
	}
	for _, p := range unreadable {
		problem("", "%s", p)
	}
	for _, c := range certs.ByFile(list) {
		s.Certificates = append(s.Certificates, agent.CertificateStatus{Path: c.Path, User: c.User, Kind: string(c.Kind), NotAfter: c.NotAfter})
		if c.NotAfter.Sub(s.Now) < certWarning {
			problem("kubeadm certs renew all", "%s expires %s", c.Path, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
}

func (m *machine) addSnapshots(ctx context.Context, s *agent.Status, problem func(remedy, format string, args ...any)) {
	for _, store := range m.stores() {
		catalog, err := etcdbackup.List(ctx, store)
		if err != nil {
			problem("", "%v", err)
		}
		for _, b := range catalog.Backups {
			s.Snapshots = append(s.Snapshots, agent.SnapshotStatus{
				Name: b.Object.Name, Store: store.String(), Taken: b.Time, Size: b.Snapshot.Size, Revision: b.Snapshot.Revision,
			})
		}
	}
}
