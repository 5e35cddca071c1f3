package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// DefaultStall is how long a snapshot may send nothing. There is no limit on the whole:
	// a large database on a slow disk takes as long as it takes.
	DefaultStall = 30 * time.Second
	// room is what stays free in a store beside the new backup.
	room = 64 << 20
)

// Request says which backup to make.
type Request struct {
	Host      string // the node's name
	Now       time.Time
	Retention Retention
	Stall     time.Duration // DefaultStall when 0
}

// Report is what a save did.
type Report struct {
	Manifest Manifest // of the backup; zero when none was made
	Stores   []StoreReport
}

// StoreReport is what a save did in one store.
type StoreReport struct {
	Store   string     // Store.String
	Saved   bool       // the backup is there, whatever Err says
	Removed []Decision // by retention
	Err     error
}

// Save takes one snapshot, writes it to every store, verifies it, publishes it, and only where
// that succeeded prunes this host's own older backups. A store that fails stops no other; the
// error joins theirs, and the report says which of them hold the backup. The caller holds the
// host's backup lock.
func Save(ctx context.Context, source Source, stores []Store, req Request) (Report, error) {
	s := save{source: source, req: req}
	if req.Stall == 0 {
		s.req.Stall = DefaultStall
	}
	for _, store := range stores {
		s.targets = append(s.targets, &target{Store: store, report: StoreReport{Store: store.String()}})
	}
	defer func() {
		for _, t := range s.targets {
			t.abort()
		}
	}()
	manifest, err := s.run(ctx)
	report := Report{}
	for _, t := range s.targets {
		if t.report.Saved {
			report.Manifest = manifest
		}
		report.Stores = append(report.Stores, t.report)
		if t.report.Err != nil {
			err = errors.Join(err, fmt.Errorf("save to %s: %w", t, t.report.Err))
		}
	}
	return report, err
}

// target is one store in one save.
type target struct {
	Store
	draft  Draft
	report StoreReport
}

// fail records why the store does not get the backup and gives its space back.
func (t *target) fail(err error) {
	t.report.Err = errors.Join(t.report.Err, err)
	t.abort()
}

func (t *target) abort() {
	if t.draft == nil {
		return
	}
	if err := t.draft.Abort(); err != nil {
		t.report.Err = errors.Join(t.report.Err, err)
	}
	t.draft = nil
}

type save struct {
	source  Source
	req     Request
	targets []*target
}

// live are the targets that can still get the backup.
func (s *save) live() []*target {
	return slices.DeleteFunc(slices.Clone(s.targets), func(t *target) bool { return t.draft == nil })
}

// run returns the manifest and an error that concerns every store.
func (s *save) run(ctx context.Context) (Manifest, error) {
	if s.req.Host == "" {
		return Manifest{}, errors.New("save snapshot: the host has no name")
	}
	if len(s.targets) == 0 {
		return Manifest{}, errors.New("save snapshot: there is no store to save it to")
	}
	member, size, err := s.describe(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("save snapshot: %w", err)
	}
	for _, t := range s.targets {
		if t.draft, err = t.Create(ctx, size+room); err != nil {
			t.draft = nil
			t.fail(err)
		}
	}
	if len(s.live()) == 0 {
		return Manifest{}, nil // each store has said why
	}
	digest := newDigest()
	if err := s.receive(ctx, digest); err != nil {
		return Manifest{}, fmt.Errorf("save snapshot: %w", err)
	}
	if len(s.live()) == 0 {
		return Manifest{}, nil
	}
	m, err := s.verify(ctx, digest, member)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("save snapshot: %w", err)
	}
	for _, t := range s.live() {
		s.publish(context.WithoutCancel(ctx), t, m)
	}
	return m, nil
}

func (s *save) describe(ctx context.Context) (Member, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.req.Stall, stalled(s.req.Stall))
	defer cancel()
	m, size, err := s.source.Describe(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return m, size, err
}

// verify makes the manifest, from what is in the file and in the stream that was written to
// it: first the trailer, which finds every damage on the way, then the structure.
func (s *save) verify(ctx context.Context, d *digest, member Member) (Manifest, error) {
	sum, err := d.finish()
	if err != nil {
		return Manifest{}, err
	}
	content, err := inspect(s.live()[0].draft.Path(), d.size)
	if err != nil {
		return Manifest{}, fmt.Errorf("inspect snapshot: %w", err)
	}
	if content.storageVersion != "" {
		member.StorageVersion = content.storageVersion
	}
	m := Manifest{
		Version:  manifestVersion,
		Host:     s.req.Host,
		Time:     s.req.Now.UTC().Truncate(time.Second),
		Snapshot: Snapshot{Size: d.size, SHA256: sum, Revision: content.revision, Keys: content.keys},
		Etcd:     member,
	}
	name, err := s.free(ctx, Name{Time: m.Time, Host: HostInName(m.Host), Revision: m.Snapshot.Revision})
	if err != nil {
		return Manifest{}, err
	}
	m.Time = name.Time
	m.Object = StoredObject{Name: name.String(), Size: d.size, SHA256: sum}
	return m, m.check()
}

// free is name, at the first second from its own on at which no store has an object of that
// name: a second save of the same revision within a second is a backup too. What goes by the
// time of this save then goes by that one.
func (s *save) free(ctx context.Context, name Name) (Name, error) {
	taken := map[string]bool{}
	for _, t := range s.live() {
		objects, err := t.List(ctx)
		if err != nil {
			t.fail(fmt.Errorf("list: %w", err))
			continue
		}
		for _, o := range objects {
			taken[o.Name] = true
		}
	}
	if len(s.live()) == 0 {
		return name, errors.New("no store can be listed")
	}
	for taken[name.String()] || taken[ManifestName(name.String())] {
		name.Time = name.Time.Add(time.Second)
	}
	if name.Time.After(s.req.Now) {
		s.req.Now = name.Time
	}
	return name, nil
}

// publish commits the object, then the manifest, and then tidies up.
func (s *save) publish(ctx context.Context, t *target, m Manifest) {
	err := t.draft.Commit(ctx, m.Object.Name)
	if err != nil {
		t.fail(err)
		return
	}
	t.draft = nil
	if err := writeManifest(ctx, t.Store, m); err != nil {
		t.fail(errors.Join(err, t.Delete(ctx, m.Object.Name)))
		return
	}
	t.report.Saved = true
	t.report.Removed, err = tidy(ctx, t.Store, s.req)
	if err != nil {
		t.fail(fmt.Errorf("saved, but the older ones could not be pruned: %w", err))
	}
}

func writeManifest(ctx context.Context, store Store, m Manifest) (err error) {
	data, err := m.encode()
	if err != nil {
		return err
	}
	draft, err := store.Create(ctx, int64(len(data)))
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	defer func() { err = errors.Join(err, draft.Abort()) }()
	if _, err := draft.Write(data); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return draft.Commit(ctx, ManifestName(m.Object.Name))
}
