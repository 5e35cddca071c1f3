package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// remote is a store that is not on this host, and the spool on it from which backups are uploaded.
type remote struct {
	etcdbackup.Store // one that never hangs
	id               string
	spool            *file.Store
	wake             chan struct{} // the daemon's upload is due at once
}

// newRemotes are the remote stores of the configuration. Nothing is asked of them yet.
func (m *machine) newRemotes() []*remote {
	var out []*remote
	for _, cfg := range m.cfg.Backup.Stores {
		if !cfg.Remote() {
			continue
		}
		id := etcdbackup.SpoolID(cfg.String())
		store := &late{name: cfg.String(), open: func() (etcdbackup.Store, error) { return m.openRemote(cfg) }}
		out = append(out, &remote{
			Store: etcdbackup.Bounded(store, etcdbackup.RemoteStall), id: id,
			spool: m.fileStore(etcdbackup.SpoolDir + "/" + id), wake: make(chan struct{}, 1),
		})
	}
	return out
}

// openRemote makes the store of a configuration: the one place that knows the kinds there are.
func (m *machine) openRemote(cfg etcdbackup.StoreConfig) (etcdbackup.Store, error) {
	if cfg.S3 != nil {
		return m.s3Store(*cfg.S3)
	}
	store := file.New(m.host, cfg.File.Dir, m.nodeName())
	store.Mounted = true
	return store, nil
}

// late is a store that is opened when something is first asked of it, and again as long as that fails:
// keys that cannot be read are no reason to do nothing else, and may be there later.
type late struct {
	name string
	open func() (etcdbackup.Store, error)

	mu    sync.Mutex
	store etcdbackup.Store
}

func (l *late) get() (etcdbackup.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		return l.store, nil
	}
	store, err := l.open()
	if err == nil {
		l.store = store
	}
	return store, err
}

func (l *late) String() string { return l.name }

func (l *late) List(ctx context.Context) ([]etcdbackup.Object, error) {
	store, err := l.get()
	if err != nil {
		return nil, err
	}
	return store.List(ctx)
}

func (l *late) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	store, err := l.get()
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, name)
}

func (l *late) Put(ctx context.Context, name string, content *io.SectionReader) error {
	store, err := l.get()
	if err != nil {
		return err
	}
	return store.Put(ctx, name, content)
}

func (l *late) Delete(ctx context.Context, name string) error {
	store, err := l.get()
	if err != nil {
		return err
	}
	return store.Delete(ctx, name)
}

// locals are the stores on this host.
func (m *machine) locals() []etcdbackup.Local {
	var out []etcdbackup.Local
	for _, cfg := range m.cfg.Backup.Stores {
		if !cfg.Remote() {
			out = append(out, m.fileStore(cfg.File.Dir))
		}
	}
	return out
}

// targets are what snapshots are saved to: the stores on this host, and the spools of the others.
func (m *machine) targets() []etcdbackup.Local {
	out := m.locals()
	for _, r := range m.remotes {
		out = append(out, r.spool)
	}
	return out
}

// stores are the places where backups are kept, those on this host first.
func (m *machine) stores() []etcdbackup.Store {
	var out []etcdbackup.Store
	for _, s := range m.locals() {
		out = append(out, s)
	}
	for _, r := range m.remotes {
		out = append(out, r)
	}
	return out
}

// remoteOf is the remote store of that name, or whose spool has it; nil for one on this host.
func (m *machine) remoteOf(name string) *remote {
	for _, r := range m.remotes {
		if name == r.String() || name == r.spool.String() {
			return r
		}
	}
	return nil
}

// errAskedTooLong is a remote store whose listing takes longer than anybody waits for.
var errAskedTooLong = fmt.Errorf("%w within %s", etcdbackup.ErrNoAnswer, askTimeout)

// askTimeout is how long the listing of a remote store may take: a request for each backup and proof.
const askTimeout = 2 * time.Minute

// ask bounds what is asked of a store that is not on this host.
func (m *machine) ask(ctx context.Context, store etcdbackup.Store) (context.Context, context.CancelFunc) {
	if m.remoteOf(store.String()) == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, askTimeout, errAskedTooLong)
}

// catalog lists a store, in bounded time where it is not on this host.
func (m *machine) catalog(ctx context.Context, store etcdbackup.Store) (etcdbackup.Catalog, error) {
	ctx, cancel := m.ask(ctx, store)
	defer cancel()
	return etcdbackup.List(ctx, store)
}

// storesNamed are the configured stores of a name: what the store is called wherever it is named, or its
// kind alone where there is only one of it.
func (m *machine) storesNamed(name string) ([]etcdbackup.Store, error) {
	var of []etcdbackup.Store
	for _, s := range m.stores() {
		if s.String() == name {
			return []etcdbackup.Store{s}, nil
		}
		if kindOf(s.String()) == name {
			of = append(of, s)
		}
	}
	switch len(of) {
	case 0:
		return nil, fmt.Errorf("no store is called %q; `nodeagent snapshot list` names them", name)
	case 1:
		return of, nil
	}
	return nil, fmt.Errorf("several stores are of the kind %s: give one's whole name, such as %q", name, of[0])
}

// waiting are the backups that wait to be uploaded to the store, the newest first.
func (r *remote) waiting(ctx context.Context) ([]etcdbackup.Manifest, error) {
	catalog, err := etcdbackup.List(ctx, r.spool)
	return catalog.Backups, err
}

// due makes the daemon's upload begin.
func (r *remote) due() {
	select {
	case r.wake <- struct{}{}:
	default: // it is told already
	}
}

var errUploads = errors.New("another nodeagent uploads to it")
