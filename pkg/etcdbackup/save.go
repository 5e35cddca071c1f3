package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// DefaultStall is how long a snapshot may send nothing. There is no limit on the whole:
// a large database on a slow disk takes as long as it takes.
const DefaultStall = 30 * time.Second

// Request says which backup to make.
type Request struct {
	Host  string // the node's name
	Agent string // the version of this program
	Now   time.Time

	Retention Retention
	// MaxDiskPercent is how much of a store's filesystem backups may take; 0 is no limit.
	MaxDiskPercent int

	Compress   bool
	Recipients Recipients
	// Files are what goes with a snapshot that is encrypted, and never with another.
	Files []File

	// Spools are those of the stores whose backups wait to be uploaded: where another one on the same
	// filesystem has no room, the oldest of them make it.
	Spools []Local

	// Scratch makes the file, without a name, that the plain snapshot of so many bytes is verified
	// in, or is ErrNoSpace. Where the object of a store is a local file and the plain snapshot
	// itself, none is made.
	Scratch func(size int64) (*os.File, error)
	// Progress is told how much of the snapshot has come, in bytes, many times a second; nil is
	// told nothing. Expected is the size of the database when the save began.
	Progress func(received, expected int64)

	// WithoutQuorum says that the members could not be asked; the manifest says so too.
	WithoutQuorum bool
	// Permit, unless it is nil, is called for each store immediately before the backup is published
	// there: where it fails that store does not get it. Published is called when it was, with the
	// manifest that now lies there; when it fails the store is reported with both. The contexts
	// given are never done: both have deadlines of their own.
	Permit    func(ctx context.Context, store Local) error
	Published func(ctx context.Context, store Local, m Manifest) error

	Rate  Rate          // the zero value is no limit
	Stall time.Duration // DefaultStall when 0
}

// Report is what a save did.
type Report struct {
	Manifest Manifest // of the backup; its Version is 0 when none was made
	Stores   []StoreReport
}

// Saved says whether a store has the backup.
func (r Report) Saved() bool { return r.Manifest.Version != 0 }

// StoreReport is what a save did in one store.
type StoreReport struct {
	Store   string     // Store.String
	Saved   bool       // the backup is there, whatever Err says
	Removed []Decision // by retention, or to make room
	Err     error
}

// Save takes one snapshot, writes it to every store, verifies it, publishes it, and only where
// that succeeded prunes this host's own older backups. A store that fails stops no other; the
// error joins theirs, and the report says which of them hold the backup. The caller holds the
// host's backup lock.
func Save(ctx context.Context, source Source, stores []Local, req Request) (Report, error) {
	s := save{source: source, req: req}
	if req.Stall == 0 {
		s.req.Stall = DefaultStall
	}
	for _, store := range stores {
		s.targets = append(s.targets, &target{Local: store, report: StoreReport{Store: store.String()}})
	}
	manifest, err := s.run(ctx)
	err = errors.Join(err, s.end())
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

type save struct {
	source  Source
	req     Request
	targets targets
	scratch *os.File // nil where a target's own file is the plain snapshot

	received, expected int64
	limit              int64 // bytes a second; 0 is none
}

// end gives back what the save took; what is published stays.
func (s *save) end() error {
	for _, t := range s.targets {
		t.abort()
	}
	return s.dropScratch()
}

// dropScratch gives the room of the scratch file back.
func (s *save) dropScratch() error {
	if s.scratch == nil {
		return nil
	}
	file := s.scratch
	s.scratch = nil
	return file.Close()
}

// wrapped says that what is stored is not the snapshot byte for byte.
func (s *save) wrapped() bool { return s.req.Compress || !s.req.Recipients.Empty() }

// run returns the manifest and an error that concerns every store.
func (s *save) run(ctx context.Context) (m Manifest, err error) {
	fail := func(err error) (Manifest, error) { return Manifest{}, fmt.Errorf("save snapshot: %w", err) }
	if s.req.Host == "" {
		return fail(errors.New("the host has no name"))
	}
	if len(s.targets) == 0 {
		return fail(errors.New("there is no store to save it to"))
	}
	m, err = s.describe(ctx)
	if err != nil {
		return fail(err)
	}
	if err := s.open(ctx); err != nil {
		return fail(err)
	}
	if len(s.targets.live()) == 0 {
		return Manifest{}, nil // each store has said why
	}
	if err := s.stream(ctx, &m); err != nil {
		return fail(err)
	}
	if len(s.targets.live()) == 0 {
		return Manifest{}, nil
	}
	if err := errors.Join(s.verify(ctx, &m), context.Cause(ctx)); err != nil {
		return fail(err)
	}
	archive, err := packFiles(s.req.Files, s.req.Recipients, &m)
	if err != nil {
		return fail(err)
	}
	dropped := s.dropScratch() // what is published may need its room
	for _, t := range s.targets.live() {
		t.publish(context.WithoutCancel(ctx), m, archive, s.req)
	}
	return m, dropped
}

// describe begins the manifest with what the member says of itself.
func (s *save) describe(ctx context.Context) (Manifest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.req.Stall, stalled(s.req.Stall))
	defer cancel()
	d, err := s.source.Describe(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	s.expected, s.limit = d.Size, s.req.Rate.of(d)
	return Manifest{
		Version: manifestVersion, Host: s.req.Host, Agent: s.req.Agent, Time: s.req.Now.UTC().Truncate(time.Second),
		Cluster: d.Cluster, Etcd: d.Member, Recipients: s.req.Recipients.Fingerprints,
		WithoutQuorum: s.req.WithoutQuorum || d.WithoutQuorum,
	}, err
}

// open makes room and begins the drafts, and the scratch file where one is needed.
func (s *save) open(ctx context.Context) error {
	for _, t := range s.targets {
		t.open(ctx, s.req, s.expected, s.wrapped())
		s.makeWay(ctx, t)
	}
	live := s.targets.live()
	if len(live) == 0 || !s.wrapped() && live.plain() != nil {
		return nil
	}
	file, err := s.req.Scratch(s.expected)
	if err != nil {
		return fmt.Errorf("make the file to verify it in: %w", err)
	}
	s.scratch = file
	return nil
}

// stream receives the snapshot into the drafts and checks its trailer, which finds every damage
// on the way; m is told what was received and what was stored.
func (s *save) stream(ctx context.Context, m *Manifest) error {
	digest, object := newDigest(), &wrapper{Writer: s.targets} // the snapshot itself, hashed as such
	if s.wrapped() {
		var err error
		if object, err = newWrapper(s.targets, s.req.Compress, s.req.Recipients); err != nil {
			return err
		}
	}
	watched := &watched{Writer: object, ctx: ctx, targets: s.targets}
	var err error
	if s.scratch != nil {
		err = s.receive(ctx, digest, watched, s.scratch)
	} else {
		err = s.receive(ctx, digest, watched)
	}
	if err == nil {
		err = object.Close()
	}
	if errors.Is(err, errNoTarget) {
		return nil // each store has said why
	}
	if err != nil {
		return err
	}
	sum, err := digest.finish()
	m.Snapshot.Size, m.Snapshot.SHA256 = digest.size, sum
	if m.Object = (StoredObject{Size: digest.size, SHA256: sum}); s.wrapped() {
		m.Object = object.object("")
	}
	return err
}

// verify reads the structure of what was received, and gives it its name.
func (s *save) verify(ctx context.Context, m *Manifest) error {
	file := s.scratch
	if file == nil {
		file = s.targets.live().plain()
	}
	if file == nil {
		return errors.New("the store whose file it was to be verified in has failed")
	}
	content, err := Inspect(ctx, file, m.Snapshot.Size)
	if err != nil {
		return fmt.Errorf("inspect snapshot: %w", err)
	}
	if content.StorageVersion != "" {
		m.Etcd.StorageVersion = content.StorageVersion
	}
	m.Snapshot.Revision, m.Snapshot.Keys = content.Revision, content.Keys
	m.Snapshot.CompactRevision, m.Snapshot.KVHash = content.CompactRevision, content.KVHash
	name, err := s.free(ctx, Name{
		Time: m.Time, Host: HostInName(m.Host), Revision: m.Snapshot.Revision,
		Compressed: s.req.Compress, Encrypted: !s.req.Recipients.Empty(),
	})
	if err != nil {
		return err
	}
	m.Time, m.Object.Name = name.Time, name.String()
	return m.check()
}

// free is name, at the first second from its own on at which no store has an object of that
// name: a second save of the same revision within a second is a backup too. What goes by the
// time of this save then goes by that one.
func (s *save) free(ctx context.Context, name Name) (Name, error) {
	taken := map[string]bool{}
	for _, t := range s.targets.live() {
		objects, err := t.List(ctx)
		if err != nil {
			t.fail(fmt.Errorf("list: %w", err))
			continue
		}
		for _, o := range objects {
			if kind, n := classify(o.Name); kind != foreign {
				taken[n.Stem()] = true
			}
		}
	}
	if len(s.targets.live()) == 0 {
		return name, errors.New("no store can be listed")
	}
	for taken[name.Stem()] {
		name.Time = name.Time.Add(time.Second)
	}
	if name.Time.After(s.req.Now) {
		s.req.Now = name.Time.In(s.req.Now.Location())
	}
	return name, nil
}
