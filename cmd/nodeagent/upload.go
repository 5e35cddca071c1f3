package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// upload moves what waits for a store to it, and remembers how that went and what the store holds then.
// It takes a lock of that store alone: saves go on beside it, and so do other uploads.
func (m *machine) upload(ctx context.Context, r *remote, purpose string, progress func(object string, done, total int64)) (etcdbackup.UploadReport, error) {
	unlock, err := m.lock(ctx, "upload-"+r.id, purpose)
	if held := (*host.HeldError)(nil); errors.As(err, &held) {
		err = fmt.Errorf("%w: %s", errUploads, held.Holder)
	}
	if err != nil {
		return etcdbackup.UploadReport{}, err
	}
	defer unlock()
	zone, err := m.cfg.Backup.Zone()
	if err != nil {
		return etcdbackup.UploadReport{}, err
	}
	report, err := etcdbackup.Upload(ctx, r.spool, r, etcdbackup.UploadRequest{
		Host: m.nodeName(), Now: time.Now().In(zone), Retention: m.cfg.Backup.Retention, Progress: progress,
	})
	if ctx.Err() != nil {
		return report, err // neither a success nor a failure of the store's
	}
	var found *lookedAt
	if err == nil || len(report.Uploaded) > 0 {
		l, lookErr := m.look(ctx, r)
		err = errors.Join(err, lookErr)
		if lookErr == nil {
			found = &l
		}
	}
	reason := etcdbackup.UploadReason(err)
	return report, errors.Join(err, m.rememberRemote(r, err, found, func(s *agent.RemoteState) {
		if s.Results == nil {
			s.Results = map[string]int{}
		}
		s.Results[reason]++
	}))
}

// lookedAt is what a remote store held when it was looked at.
type lookedAt struct {
	stored int
	newest *agent.SnapshotStatus
	proven *agent.SnapshotStatus // the newest that is
	keys   int64
	state  agent.RemoteState // its proofs
}

// surveyTimeout is how long a look at a whole store may take, which nobody waits for: many clusters may
// keep theirs in it, and there is a request for each backup and proof.
const surveyTimeout = 15 * time.Minute

var errSurveyedTooLong = fmt.Errorf("%w within %s", etcdbackup.ErrNoAnswer, surveyTimeout)

// look asks a remote store what it holds of this cluster.
func (m *machine) look(ctx context.Context, r *remote) (l lookedAt, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, surveyTimeout, errSurveyedTooLong)
	defer cancel()
	catalog, err := etcdbackup.List(ctx, r)
	if err != nil {
		return l, err
	}
	proofs, err := etcdbackup.Proofs(ctx, r)
	if err != nil {
		return l, err
	}
	mine := m.ofCluster(ctx, r, catalog)
	now := time.Now()
	for _, b := range catalog.Backups {
		if !mine(b) {
			delete(proofs, b.Object.Name)
			continue
		}
		l.stored++
		row := snapshotRow(r, b)
		addProof(&row, proofs, now)
		if l.newest == nil && !b.Time.After(now) {
			l.newest, l.keys = &row, int64(b.Snapshot.Keys)
		}
		if l.proven == nil && row.Proven != "" {
			l.proven = &row
		}
	}
	last, _ := etcdbackup.NewestProof(proofs, "", now)
	restored, opened := etcdbackup.NewestProof(proofs, etcdbackup.ProvenRestored, now)
	object, _ := etcdbackup.NewestProof(proofs, etcdbackup.ProvenObject, now)
	l.state = agent.RemoteState{Restored: restored.Time, Object: object.Time, DrillSeconds: last.Seconds}
	if opened {
		l.state.RestoreSeconds = restored.Restored.Seconds
	}
	return l, nil
}

// ofCluster says which backups of a shared store are of this host's cluster: by what its member says, which
// may never have saved to the store, as the one that leads; else by what this host has saved last, by the newest
// that was found in the store before, and in the end by the host's name, which another cluster's may have too.
func (m *machine) ofCluster(ctx context.Context, r *remote, shared etcdbackup.Catalog) func(etcdbackup.Manifest) bool {
	if mine := m.surelyOfCluster(ctx, r, shared); mine != nil {
		return mine
	}
	if own, there := m.ownNewest(shared); there {
		return etcdbackup.SameCluster(own)
	}
	return func(etcdbackup.Manifest) bool { return false }
}

// surelyOfCluster is ofCluster where that can be told without trusting the host's name, and else nil.
func (m *machine) surelyOfCluster(ctx context.Context, r *remote, shared etcdbackup.Catalog) func(etcdbackup.Manifest) bool {
	if cluster := m.cluster(ctx); cluster.ID != "" {
		return etcdbackup.SameCluster(etcdbackup.Manifest{Host: m.nodeName(), Cluster: cluster})
	}
	for _, store := range m.targets() {
		catalog, err := etcdbackup.List(ctx, store)
		if own, there := m.ownNewest(catalog); err == nil && there {
			return etcdbackup.SameCluster(own)
		}
	}
	if state, err := agent.LoadState(m.host); err == nil && state.Remotes[r.String()].Newest != nil {
		for _, b := range shared.Backups {
			if b.Object.Name == state.Remotes[r.String()].Newest.Name {
				return etcdbackup.SameCluster(b)
			}
		}
	}
	return nil
}

// cluster is what this host's member says that its cluster is; the zero value where it does not answer.
func (m *machine) cluster(ctx context.Context) (cluster etcdbackup.Cluster) {
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	_ = withMember(ctx, m.host, m.cfg.Backup.Member(), func(_ *clientv3.Client, source etcdbackup.Source) error {
		d, err := source.Describe(ctx)
		cluster = d.Cluster
		return err
	})
	return cluster
}

// ownNewest is the newest backup that this host has saved; false where there is none.
func (m *machine) ownNewest(c etcdbackup.Catalog) (etcdbackup.Manifest, bool) {
	for _, b := range c.Backups {
		if b.Host == m.nodeName() {
			return b, true
		}
	}
	return etcdbackup.Manifest{}, false
}

// rememberRemote keeps how an attempt ended, and what was found where the store was looked at.
func (m *machine) rememberRemote(r *remote, err error, found *lookedAt, change func(*agent.RemoteState)) error {
	now := time.Now()
	left, listErr := r.waiting(context.Background())
	m.remember(func(state *agent.State) {
		state.Remote(r.String(), func(s *agent.RemoteState) {
			s.Attempt, s.Reason, s.Error = now, "", ""
			if err != nil {
				s.Reason, s.Error = etcdbackup.UploadReason(err), err.Error()
			} else if listErr == nil && len(left) == 0 {
				s.Uploaded = now
			}
			if found != nil {
				s.Asked, s.Stored, s.Newest, s.Best, s.Keys = now, found.stored, found.newest, found.proven, found.keys
				s.Restored, s.Object = found.state.Restored, found.state.Object
				s.DrillSeconds, s.RestoreSeconds = found.state.DrillSeconds, found.state.RestoreSeconds
			}
			if change != nil {
				change(s)
			}
		})
	})
	return listErr
}

// lookAgain asks a store to which nothing waits to be uploaded, so that what is told of it is no older
// than an hour, and a store that is gone is told of before the next backup is due.
func (m *machine) lookAgain(ctx context.Context, r *remote) error {
	found, err := m.look(ctx, r)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return errors.Join(err, m.rememberRemote(r, err, nil, nil))
	}
	return m.rememberRemote(r, nil, &found, nil)
}

// What became of a backup in a store.
const (
	stateSaved    = "saved"    // it is there
	stateUploaded = "uploaded" // it is there
	stateWaiting  = "waiting"  // it is on this host and not there yet
	stateFailed   = "failed"
)

// storeResult is what became of a backup in one store.
type storeResult struct {
	Store string `json:"store"`
	State string `json:"state"`           // saved, uploaded, waiting or failed
	Error string `json:"error,omitempty"` // why it waits or failed
}

func (s storeResult) String() string {
	text := s.Store + ": " + s.State
	switch s.State {
	case stateWaiting:
		text += " to be uploaded"
	case stateFailed:
		text = s.Store + ": not saved"
	}
	if s.Error != "" {
		text += ": " + s.Error
	}
	return text
}

// results are what a save did in each store, as long as nothing was uploaded.
func (m *machine) results(report etcdbackup.Report) []storeResult {
	out := []storeResult{}
	for _, s := range report.Stores {
		row := storeResult{Store: s.Store, State: stateSaved, Error: errorText(s.Err)}
		if !s.Saved {
			row.State = stateFailed
		}
		if r := m.remoteOf(s.Store); r != nil {
			row.Store = r.String()
			if s.Saved {
				row.State = stateWaiting
			}
		}
		out = append(out, row)
	}
	return out
}

// uploadAll uploads what waits for every store, all at once, and says in results what became of a
// backup. The error joins those of all stores; untold that of telling other members of the uploads.
func (m *machine) uploadAll(ctx context.Context, object string, results []storeResult, progress func(object string, done, total int64)) (untold, err error) {
	errs, untolds := make([]error, len(results)), make([]error, len(results))
	var wg sync.WaitGroup
	for i := range results {
		row := &results[i]
		r := m.remoteOf(row.Store)
		if r == nil || row.State != stateWaiting {
			continue
		}
		wg.Go(func() {
			report, err := m.upload(ctx, r, "snapshot save: upload to "+r.String(), progress)
			untolds[i] = m.tellUploaded(ctx, r, report.Uploaded)
			left, listErr := r.waiting(ctx)
			there := listErr == nil
			for _, b := range left {
				there = there && b.Object.Name != object
			}
			if there {
				row.State = stateUploaded
			}
			row.Error, errs[i] = errorText(err), err
		})
	}
	wg.Wait()
	return errors.Join(untolds...), errors.Join(errs...)
}
