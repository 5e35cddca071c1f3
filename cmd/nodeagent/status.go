package main

import (
	"cmp"
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
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say on one page whether this node is all right, and what to type if not",
		Long: `Status says on one page whether this node is all right, and what to type if not.
The format of -o json is described in docs/status.schema.json.

It exits 0 when the node is well, warnings or not, 2 when something is wrong, when
the host is not made yet or has no configuration, and 1 when it cannot tell. With
--wait it waits until the node is well, says on standard error what it waits for,
and exits 2 when that has not come in time.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wait.check(cmd); err != nil {
				return err
			}
			s, err := wait.status(cmd.Context(), a.stderr, a.statusReader())
			if err != nil {
				return err
			}
			err = print(a, s, func(w io.Writer) error { return writeStatus(w, s, terminalOf(w)) })
			if err == nil && s.Verdict != agent.Well {
				err = errDiffers
			}
			return err
		},
	}
	wait.add(cmd)
	return cmd
}

// statusReader returns what reads the status, again and again: without a configuration it looks
// for one each time.
func (a *app) statusReader() func(context.Context) (agent.Status, error) {
	h := a.host()
	var m *machine
	return func(ctx context.Context) (agent.Status, error) {
		if m == nil {
			cfg, err := a.loadConfig(h)
			if errors.Is(err, errNoConfig) {
				hostname, err := hostnameOf(h)
				return a.idleStatus(hostname, time.Now()), err
			}
			if err != nil {
				return agent.Status{}, err
			}
			if m, err = newMachine(h, cfg); err != nil {
				return agent.Status{}, err
			}
		}
		return m.status(ctx, time.Now()), nil
	}
}

// newStatus is a page with nothing on it. Lists that are empty are so in JSON too.
func newStatus(now time.Time) agent.Status {
	return agent.Status{
		APIVersion: "nodeagent/v1", Version: thisBuild().Version, Now: now,
		Problems: []agent.Problem{}, Units: []agent.UnitStatus{}, StaticPods: []agent.StaticPodStatus{}, Steps: []agent.StepStatus{},
		Jobs: []agent.JobStatus{}, Certificates: []agent.CertificateStatus{}, Snapshots: []agent.SnapshotStatus{}, RemoteStores: []agent.RemoteStatus{}, BackupNotes: []string{},
	}
}

// idleStatus is the page of a host that nobody has asked anything of.
func (a *app) idleStatus(hostname string, now time.Time) agent.Status {
	s := newStatus(now)
	s.Host, s.Standing = hostname, agent.Unconfigured
	f := &findings{&s.Problems}
	f.warn("nodeagent config init", "%s does not exist", a.configPath)
	s.Judge()
	s.Summary = errNoConfig.Error()
	return s
}

// findings collects problems. One without a list drops them.
type findings struct{ list *[]agent.Problem }

// wrong is a problem that makes the node unwell; remedy is the command or file to go to.
func (f *findings) wrong(remedy, format string, args ...any) {
	f.add(agent.Error, remedy, fmt.Sprintf(format, args...))
}

// warn is one that is to be looked at soon.
func (f *findings) warn(remedy, format string, args ...any) {
	f.add(agent.Warning, remedy, fmt.Sprintf(format, args...))
}

func (f *findings) add(severity agent.Severity, remedy, what string) {
	if f.list != nil {
		*f.list = append(*f.list, agent.Problem{Severity: severity, What: what, Remedy: remedy})
	}
}

// status gathers what the host and the agent's memory tell. What cannot be read is a problem
// on the page, not the end of it.
func (m *machine) status(ctx context.Context, now time.Time) agent.Status {
	s := newStatus(now)
	s.Host, s.Role, s.StepsTotal = m.nodeName(), string(m.cfg.Role), len(m.steps)
	f := &findings{&s.Problems}
	var err error
	s.Standing, err = agent.StandingOf(m.host, bootstrap.MemberFiles)
	switch {
	case errors.Is(err, agent.ErrNoMachineID) && m.host.Offline: // an image has none until it boots
	case errors.Is(err, agent.ErrNoMachineID):
		f.wrong("systemd-machine-id-setup", "%v", err)
	case err != nil:
		f.wrong("ls -la /var/lib/nodeagent /etc/kubernetes", "%v", err)
	}
	if !m.host.Offline {
		m.addNode(&s, m.lookAround(ctx), f)
	}
	state, err := agent.LoadState(m.host)
	if err != nil {
		f.warn("/var/lib/nodeagent/state.json", "%v", err)
	}
	if err := agent.StateTrouble(m.host); err != nil && !m.host.Offline {
		f.wrong(diskRemedy(err), "the agent cannot %v", err)
	}
	m.addSteps(&s, state, f)
	m.addJobs(&s, state, f)
	m.addCertificates(&s, f)
	m.addSnapshots(ctx, &s, f)
	m.addRemotes(ctx, &s, state, f)
	m.addDrills(&s, state, f)
	s.Problems = append(clockProblems(s, m.synced), s.Problems...)
	s.Judge()
	return s
}

func made(s *agent.Status) bool {
	return s.Standing == agent.Bootstrapped || s.Standing == agent.Adopted
}

func (m *machine) addSteps(s *agent.Status, state agent.State, f *findings) {
	for _, st := range m.steps {
		was, ran := state.Steps[st.Name]
		if !ran {
			continue
		}
		s.Steps = append(s.Steps, agent.StepStatus{Name: st.Name, Outcome: was.Outcome, Changes: was.Changes, Error: was.Error, At: was.At})
		switch was.Outcome {
		case step.Failed, step.Stopped:
			f.wrong("nodeagent apply", "step %s: %s", st.Name, cmp.Or(was.Error, step.Result{Changes: was.Changes}.Why()))
		case step.Differs:
			f.warn("nodeagent plan --only "+st.Name, "step %s: the host differs from its configuration", st.Name)
		case step.Clean, step.Applied, step.Waiting:
		}
	}
}

func (m *machine) addJobs(s *agent.Status, state agent.State, f *findings) {
	for _, name := range slices.Sorted(maps.Keys(state.Jobs)) {
		job := state.Jobs[name]
		s.Jobs = append(s.Jobs, agent.JobStatus{Name: name, JobState: job})
		late := s.Now.Sub(job.Next) - jobDeadline(name)
		switch {
		case isUpload(name): // of those, and of their stores, there is more to tell
		case job.Error != "":
			f.wrong("journalctl -u nodeagent", "job %s failed: %s", name, job.Error)
		// Nothing runs in an image, and what was due when it was taken is not late.
		case !m.host.Offline && !job.Next.IsZero() && late > lateness:
			f.wrong("systemctl status nodeagent", "job %s was due %s and has not ended: does the daemon run?", name, agent.Ago(job.Next, s.Now))
		}
	}
}

// lateness is how much longer than it may take a job is out before that is a problem: the daemon
// may have just been started.
const lateness = 5 * time.Minute

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

func (m *machine) addCertificates(s *agent.Status, f *findings) {
	list, unreadable, err := certs.Inventory(m.host)
	if err != nil {
		f.wrong("ls -la /etc/kubernetes/pki", "%v", err)
	}
	for _, p := range unreadable {
		f.wrong("ls -l "+p.Path, "%s", p)
	}
	for _, c := range certs.ByFile(list) {
		row := agent.CertificateStatus{Path: c.Path, User: c.User, Kind: string(c.Kind), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
		s.Certificates = append(s.Certificates, row)
		end := row.NotAfter.UTC().Format(time.DateOnly)
		switch row.State(s.Now) {
		case "early":
			f.wrong("timedatectl", "%s is valid only from %s", row.Path, row.NotBefore.UTC().Format(time.DateTime)+" UTC")
		case "expired":
			f.wrong(renewal(c), "%s expired %s, %s", row.Path, agent.Ago(row.NotAfter, s.Now), end)
		case "error":
			f.wrong(renewal(c), "%s expires %s, %s", row.Path, agent.In(row.NotAfter, s.Now), end)
		case "warning":
			f.warn(renewal(c), "%s expires %s, %s", row.Path, agent.In(row.NotAfter, s.Now), end)
		}
	}
}

// renewal is how a certificate is renewed: kubeadm renews its own and no authority, and the kubelet
// rotates its own.
func renewal(c certs.Certificate) string {
	switch {
	case c.Kind == certs.KubeletClient || c.Kind == certs.KubeletServer || c.Path == bootstrap.KubeletConf:
		return "journalctl -u kubelet"
	case c.Kind == certs.CA:
		return "https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/"
	}
	return "kubeadm certs renew all"
}

func (m *machine) addSnapshots(ctx context.Context, s *agent.Status, f *findings) {
	s.BackupNotes = m.backupNotes()
	for _, store := range m.locals() {
		catalog, err := etcdbackup.List(ctx, store)
		if err != nil {
			f.wrong("journalctl -u nodeagent", "%v", err)
			continue
		}
		for _, b := range catalog.Backups {
			s.Snapshots = append(s.Snapshots, snapshotRow(store, b))
		}
		m.addProofs(ctx, s, store, f)
		if !made(s) || m.host.Offline || !m.savesEtcd() {
			continue
		}
		newest, there := catalog.Newest(s.Now)
		if !there {
			f.warn("nodeagent snapshot save", "%s holds no snapshot of etcd yet", store)
			continue
		}
		// The one after the newest may be late; that two are due is a problem.
		next := m.nextBackup()
		if due := next(next(newest.Time)); s.Now.Sub(due) > snapshotDeadline {
			f.wrong("nodeagent snapshot save", "the newest snapshot of etcd in %s was taken %s", store, agent.Ago(newest.Time, s.Now))
		}
	}
}

func snapshotRow(store etcdbackup.Store, b etcdbackup.Manifest) agent.SnapshotStatus {
	return agent.SnapshotStatus{
		Name: b.Object.Name, Store: store.String(), Taken: b.Time, Size: b.Snapshot.Size, Revision: b.Snapshot.Revision,
		SHA256: b.Object.SHA256, Encrypted: len(b.Recipients) > 0,
	}
}
