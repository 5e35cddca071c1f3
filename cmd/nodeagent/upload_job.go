package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/metrics"
)

const (
	// jobUpload, a space and the store's name is the job of a remote store.
	jobUpload = "upload"
	// uploadInterval is how often the spool is looked at, beside each time that the daemon has saved:
	// what is saved by hand, and could not be uploaded then, lies there too.
	uploadInterval = 10 * time.Minute
	// uploadDeadline is no measure of how long an upload takes, which ends by itself when nothing moves.
	uploadDeadline = 24 * time.Hour
	// askedInterval is how old what is told of a store may be.
	askedInterval = time.Hour
)

func (r *remote) job() string { return jobUpload + " " + r.String() }

func isUpload(job string) bool { return strings.HasPrefix(job, jobUpload+" ") }

// uploadJobs are a job for each remote store: one that fails or hangs holds up no other.
func (s *session) uploadJobs(ctx context.Context) []agent.Job {
	var jobs []agent.Job
	for _, r := range s.machine.remotes {
		s.exportRemote(ctx, r)
		jobs = append(jobs, agent.Job{
			Name: r.job(), Next: every(uploadInterval), Deadline: uploadDeadline, Wake: r.wake,
			Run: func(ctx context.Context) error { return s.upload(ctx, r) },
		})
	}
	return jobs
}

// upload is the job of a store. The spool is what there is to do: it is there after a restart too.
func (s *session) upload(ctx context.Context, r *remote) error {
	defer s.exportRemote(ctx, r)
	waiting, err := r.waiting(ctx)
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		return s.lookIfOld(ctx, r)
	}
	s.exportRemote(ctx, r) // the upload may take a while
	report, err := s.machine.upload(ctx, r, "daemon: upload to "+r.String(), nil)
	if errors.Is(err, errUploads) {
		return agent.NothingToDo(err.Error())
	}
	for _, m := range report.Uploaded {
		s.log.Info("snapshot uploaded", "name", m.Object.Name, "store", r.String(), "bytes", m.Object.Size)
	}
	if tellErr := s.machine.tellUploaded(ctx, r, report.Uploaded); tellErr != nil {
		s.log.Warn("other members are not told of an upload", "store", r.String(), "err", tellErr)
	}
	for _, d := range report.Removed {
		s.log.Info("snapshot pruned", "name", d.Manifest.Object.Name, "store", r.String(), "why", d.Reason)
	}
	return err
}

// lookIfOld asks a store to which nothing waits to be uploaded when what is known of it is old, or when
// another member has uploaded to it since.
func (s *session) lookIfOld(ctx context.Context, r *remote) error {
	state, err := agent.LoadState(s.host)
	if err != nil {
		s.log.Warn("state not read", "err", err)
	}
	was := state.Remotes[r.String()]
	told, err := s.machine.toldUploaded(ctx, r)
	if err != nil {
		s.log.Debug("other members' uploads are not known", "store", r.String(), "err", err)
	}
	known := was.Newest != nil && !told.Saved.After(was.Newest.Taken)
	if (known || told.Backup == "") && was.Reason == "" && time.Since(was.Asked) < askedInterval && !was.Asked.After(time.Now()) {
		return nil
	}
	return s.machine.lookAgain(ctx, r)
}

// forgetUploads drops what is remembered of the jobs of stores that are no longer configured.
func (s *session) forgetUploads(state agent.State, jobs []agent.Job) {
	var gone []string
	for name := range state.Jobs {
		if isUpload(name) && !slices.ContainsFunc(jobs, func(j agent.Job) bool { return j.Name == name }) {
			gone = append(gone, name)
		}
	}
	if len(gone) == 0 {
		return
	}
	for _, name := range gone {
		s.daemon.metrics.JobGone(name)
	}
	s.remember(func(state *agent.State) {
		for _, name := range gone {
			delete(state.Jobs, name)
		}
	})
}

// exportRemote puts what is known of a remote store into the metrics. The store is not asked.
func (s *session) exportRemote(ctx context.Context, r *remote) {
	state, err := agent.LoadState(s.host)
	if err != nil {
		s.log.Warn("state not read", "err", err)
	}
	was := state.Remotes[r.String()]
	u := metrics.Upload{Attempt: was.Attempt, Success: was.Uploaded, Results: was.Results}
	waiting, err := r.waiting(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("spool not read", "err", err)
	}
	u.Waiting, u.Bytes, u.Oldest = sumOf(waiting)
	s.daemon.metrics.Uploads(r.String(), etcdbackup.UploadReasons(), u)
	newest := metrics.Snapshot{}
	if b := was.Newest; b != nil {
		newest = metrics.Snapshot{Taken: b.Taken, Due: s.machine.nextBackup()(b.Taken), Size: b.Size, Revision: b.Revision, Keys: was.Keys, Encrypted: b.Encrypted}
	}
	s.daemon.metrics.Snapshots(r.String(), was.Stored, newest)
	if s.machine.drills() {
		s.daemon.metrics.Drills(r.String(), metrics.Drill{Restored: was.Restored, Object: was.Object, Took: was.DrillSeconds, Restore: was.RestoreSeconds})
	}
}

// savedFor is when the newest backup was taken that a remote store has, as far as is remembered, or that
// waits for it.
func (s *session) savedFor(ctx context.Context, r *remote) time.Time {
	var newest time.Time
	if state, err := agent.LoadState(s.host); err == nil && state.Remotes[r.String()].Newest != nil {
		newest = state.Remotes[r.String()].Newest.Taken
	}
	if catalog, err := etcdbackup.List(ctx, r.spool); err == nil {
		if b, there := catalog.Newest(time.Now()); there && b.Time.After(newest) {
			newest = b.Time
		}
	}
	return newest
}

// sumOf is how many backups there are, what they take, and when the oldest was taken.
func sumOf(backups []etcdbackup.Manifest) (n int, bytes int64, oldest time.Time) {
	for _, b := range backups {
		bytes += b.Object.Size
		if b.Files != nil {
			bytes += b.Files.Size
		}
		if oldest.IsZero() || b.Time.Before(oldest) {
			oldest = b.Time
		}
	}
	return len(backups), bytes, oldest
}
