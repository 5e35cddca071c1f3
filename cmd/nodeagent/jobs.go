package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/certs"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	jobSnapshot = agent.SnapshotJob
	jobCerts    = "certificates"
	jobDrift    = "drift"
	jobNode     = "node"
	// certInterval is how often certificates are looked at: it is cheap, and a file that was
	// replaced by hand is to be seen while whoever did it is still looking.
	certInterval = time.Minute
	// nodeInterval is how often the node, its units and its versions are looked at: each run is
	// a small request, and a write of what is remembered of the job.
	nodeInterval = time.Minute
	// snapshotDeadline is generous: a store may be slow, and a snapshot that is cut off is none.
	snapshotDeadline = time.Hour
)

// jobDeadline is how long a run of the job may take.
func jobDeadline(name string) time.Duration {
	switch name {
	case jobSnapshot:
		return snapshotDeadline
	case jobDrill:
		return drillDeadline + 10*time.Minute // systemd ends the unit at its own
	case jobDrift:
		return 5 * time.Minute
	}
	if isUpload(name) {
		return uploadDeadline
	}
	return time.Minute
}

// jobs are the periodic work of this host's role.
func (s *session) jobs(ctx context.Context) []agent.Job {
	jobs := []agent.Job{
		{Name: jobCerts, Next: every(certInterval), Deadline: jobDeadline(jobCerts), Run: s.scanCertificates},
		{Name: jobDrift, Next: every(s.machine.cfg.Drift.Interval), Deadline: jobDeadline(jobDrift), Run: s.lookForDrift},
	}
	if !s.host.Offline {
		jobs = append(jobs, agent.Job{Name: jobNode, Next: every(nodeInterval), Deadline: jobDeadline(jobNode), Run: s.lookAtNode})
	}
	if s.machine.cfg.Role == bootstrap.Worker {
		return jobs
	}
	if s.machine.drills() {
		jobs = append(jobs, s.drillJob(ctx))
	}
	jobs = append(jobs, s.uploadJobs(ctx)...)
	s.exportSnapshots(ctx)
	return append(jobs, agent.Job{
		Name: jobSnapshot, Next: s.nextSave, Last: s.resume(ctx),
		Deadline: jobDeadline(jobSnapshot), Run: s.snapshot,
	})
}

// every is a job that is due at once and then after each interval.
func every(interval time.Duration) func(time.Time) time.Time {
	return func(last time.Time) time.Time { return last.Add(interval) }
}

// announce makes the series of all jobs and steps, with what is remembered of them, and drops
// those of jobs that are no longer there.
func (s *session) announce(jobs []agent.Job) {
	state, err := agent.LoadState(s.host)
	if err != nil {
		s.log.Warn("state not read", "err", err)
	}
	s.forgetUploads(state, jobs)
	var stores []string
	if s.machine.cfg.Role != bootstrap.Worker {
		for _, store := range s.machine.stores() {
			stores = append(stores, store.String())
		}
	}
	s.daemon.metrics.Stores(stores...)
	names := []string{jobCerts, jobDrift, jobNode, jobSnapshot, jobDrill}
	for _, r := range s.machine.remotes {
		names = append(names, r.job())
	}
	for _, name := range names {
		i := slices.IndexFunc(jobs, func(j agent.Job) bool { return j.Name == name })
		if i < 0 {
			s.daemon.metrics.JobGone(name)
			continue
		}
		was := state.Jobs[name]
		s.daemon.metrics.JobKnown(name, was.LastRun, was.LastSuccess)
		due := time.Time{}
		if !was.LastSuccess.IsZero() {
			due = jobs[i].Next(was.LastSuccess)
		}
		s.daemon.metrics.JobDue(name, due)
	}
	for _, st := range s.machine.steps {
		if st.Apply != nil || st.Wait > 0 {
			s.daemon.metrics.StepKnown(st.Name, state.Steps[st.Name].ApplyTook)
		}
	}
}

// observeJob reports what happens to a job: to the log, the metrics, the state.
func (s *session) observeJob(e agent.JobEvent) {
	if !e.Next.IsZero() {
		s.daemon.metrics.JobNext(e.Job, e.Next)
	}
	if errors.Is(e.Err, agent.ErrNothingToDo) {
		s.log.Debug("job has nothing to do", "job", e.Job, "why", e.Err)
		return
	}
	if !e.Ended.IsZero() {
		s.daemon.metrics.JobDone(e.Job, e.Err == nil, e.Took, e.Ended)
		if e.Err != nil {
			s.log.Error("job failed", "job", e.Job, "err", e.Err, "next", e.Next)
		} else {
			s.daemon.metrics.JobDue(e.Job, e.Next)
			s.log.Debug("job done", "job", e.Job, "took", e.Took.String())
		}
	}
	if e.Started {
		return
	}
	s.remember(func(state *agent.State) {
		job := state.Jobs[e.Job]
		job.Next = e.Next
		if !e.Ended.IsZero() {
			job.LastRun, job.Error = e.Ended, errorText(e.Err)
			if e.Err == nil {
				job.LastSuccess = e.Ended
			}
		}
		state.Jobs[e.Job] = job
	})
}

// snapshot takes a backup of the local etcd. While the host is still being made there may be
// no etcd, or one that does not answer yet; afterwards that is a failure. One that answers
// before kubeadm init has ended is empty: its backup would stand for a cluster until the next
// is due.
func (s *session) snapshot(ctx context.Context) error {
	if s.machine.cfg.Role == bootstrap.ControlPlane && !s.done.Load() && !s.cluster.Load() {
		return agent.NothingToDo("kubeadm init has not ended")
	}
	began := time.Now()
	if !s.round.goesOn(began, s.machine.nextBackup()) {
		s.round = round{}
	}
	report, err := s.saveInTurn(ctx)
	s.round.add(began, report.Stores)
	if err == nil {
		s.round.saved = nil
	}
	if err != nil && !report.Saved() && !s.done.Load() || errors.Is(err, etcd.ErrNoMember) && !s.machine.savesEtcd() {
		return agent.NothingToDo(err.Error())
	}
	for i, store := range s.machine.results(report) {
		if report.Stores[i].Saved {
			m := report.Manifest
			s.log.Info("snapshot saved", "name", m.Object.Name, "store", store.Store, "state", store.State,
				"revision", m.Snapshot.Revision, "keys", m.Snapshot.Keys, "bytes", m.Snapshot.Size, "removed", len(report.Stores[i].Removed))
		}
	}
	for _, r := range s.machine.remotes {
		r.due()
	}
	s.exportSnapshots(ctx)
	return err
}

// exportSnapshots puts what each store holds into the metrics.
func (s *session) exportSnapshots(ctx context.Context) {
	next := s.machine.nextBackup()
	soon := next(time.Now())
	s.daemon.metrics.SnapshotPolicy(s.machine.savesEtcd(), next(soon).Sub(soon), s.machine.offHost())
	s.daemon.metrics.PlaintextAllowed(s.machine.plaintextAllowed())
	for _, store := range s.machine.locals() {
		catalog, err := etcdbackup.List(ctx, store)
		if err != nil {
			if ctx.Err() == nil { // the daemon's end is no fault of the store's
				s.log.Error("backups not listed", "err", err)
			}
			return
		}
		var newest metrics.Snapshot
		if b, there := catalog.Newest(time.Now()); there {
			newest = metrics.Snapshot{Taken: b.Time, Due: s.machine.nextBackup()(b.Time), Size: b.Snapshot.Size, Revision: b.Snapshot.Revision, Keys: int64(b.Snapshot.Keys), Encrypted: len(b.Recipients) > 0}
		}
		s.daemon.metrics.Snapshots(store.String(), len(catalog.Backups), newest)
	}
	for _, r := range s.machine.remotes {
		s.exportRemote(ctx, r)
	}
}

// scanCertificates reads every certificate and exports it. A file that cannot be read is
// exported as such, and is no failure of the scan.
func (s *session) scanCertificates(context.Context) error {
	list, problems, err := certs.Inventory(s.host)
	if err != nil {
		return err
	}
	var rows []metrics.Certificate
	for _, c := range certs.ByFile(list) {
		rows = append(rows, metrics.Certificate{Path: c.Path, User: c.User, Kind: string(c.Kind), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	var unreadable []string
	for _, p := range problems {
		unreadable = append(unreadable, p.Path)
	}
	s.daemon.metrics.Certificates(rows, unreadable)
	return nil
}

// lookForDrift checks every step and, where the operator has not said otherwise and the host
// is the agent's own work, mends what is harmless. It never runs beside an apply, whose
// half-made changes are no drift.
func (s *session) lookForDrift(ctx context.Context) error {
	if !s.done.Load() {
		return agent.NothingToDo("the bootstrap is not complete")
	}
	unlock, err := s.host.TryLock(host.LockHost, "daemon: drift")
	var held *host.HeldError
	if errors.As(err, &held) {
		return agent.NothingToDo(held.Error())
	}
	if err != nil {
		return err
	}
	defer unlock()
	harmless, err := s.mendable()
	if err != nil {
		return err
	}
	var watch stopwatch
	d := agent.Mend(ctx, s.machine.steps, harmless, &s.flapping, time.Now(), func(e step.Event) {
		watch.observe(e, time.Now())
		if e.Stage == step.Done && ctx.Err() == nil {
			s.recordStep(e.Result, watch)
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.reportDrift(d)
}

// mendable says which steps drift may apply: none where it only reports, none on a host that
// somebody else has made, and none once the configuration or the agent is another than the one
// that was applied: what a person has not applied is not drift.
func (s *session) mendable() (func(name string) bool, error) {
	standing, err := agent.StandingOf(s.host, bootstrap.MemberFiles)
	if err != nil {
		return nil, err
	}
	applied, err := agent.Applied(s.host)
	if err != nil {
		return nil, err
	}
	wanted, err := s.machine.wanted()
	if err != nil {
		return nil, err
	}
	if s.machine.cfg.Drift.Mode != "mend" || standing != agent.Bootstrapped || applied != wanted {
		return func(string) bool { return false }, nil
	}
	return bootstrap.Harmless, nil
}

// reportDrift logs and counts what was found. A step that could not be checked or mended is
// the job's failure.
func (s *session) reportDrift(d agent.Drift) error {
	for _, c := range d.Corrected {
		s.log.Warn("drift mended", "step", c.Step, "subject", c.Change.Subject, "have", c.Change.Have, "want", c.Change.Want)
		s.daemon.metrics.DriftCorrected(c.Step)
	}
	flaps := map[string]int{}
	for _, c := range d.Flapping {
		flaps[c.Step]++
		s.log.Error("drift keeps coming back and is left alone: something else changes it",
			"step", c.Step, "subject", c.Change.Subject, "have", c.Change.Have, "want", c.Change.Want)
	}
	differs := map[string]string{}
	var failed []string
	for _, r := range d.Results {
		s.daemon.metrics.DriftFlapping(r.Step, flaps[r.Step])
		switch r.Outcome {
		case step.Failed:
			failed = append(failed, r.Step+": "+errorText(r.Err))
		case step.Differs, step.Stopped:
			for _, c := range r.Pending() {
				// Not by what it is now, which may be a figure that never stays the same.
				differs[r.Step+"\x00"+c.Subject+"\x00"+c.Want] = r.Step + ": " + c.String()
			}
		case step.Clean, step.Applied, step.Waiting:
		}
	}
	s.logDrift(differs)
	if len(failed) > 0 {
		return errors.New("check steps: " + strings.Join(failed, "; "))
	}
	return nil
}

// logDrift tells of each difference once, when it comes and when it goes.
func (s *session) logDrift(differs map[string]string) {
	for key, what := range differs {
		if _, told := s.drift[key]; !told {
			s.log.Warn("drift: the host differs from its configuration", "what", what)
		}
	}
	for key, what := range s.drift {
		if _, still := differs[key]; !still {
			s.log.Info("drift: is gone", "what", what)
		}
	}
	s.drift = differs
}
