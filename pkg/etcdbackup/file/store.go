// Package file keeps backups in a directory of the host.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// Store is a directory, 0700, of files, 0600. It is made when it is first written to.
type Store struct {
	host *host.Host
	dir  string
	node string

	// Reserve is left alone. It is set before the store is used.
	Reserve Reserve
}

// Reserve is what backups leave free of a filesystem: the larger of its two parts.
type Reserve struct {
	Percent float64
	Bytes   int64
}

func (r Reserve) of(size int64) int64 { return max(r.Bytes, int64(r.Percent/100*float64(size))) }

var _ etcdbackup.Store = (*Store)(nil)

// New returns the store in dir, below h's root. node is the name of this host: drafts carry
// it, so that hosts which share a directory leave each other's alone.
func New(h *host.Host, dir, node string) *Store {
	return &Store{host: h, dir: dir, node: etcdbackup.HostInName(node)}
}

func (s *Store) String() string { return "file " + s.dir }

// Create begins an object in a hidden file beside its final place.
func (s *Store) Create(ctx context.Context, size int64) (etcdbackup.Draft, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	dir, err := s.path(".")
	if err != nil {
		return nil, err
	}
	if err := s.sweep(dir); err != nil {
		return nil, err
	}
	if err := s.checkSpace(dir, size); err != nil {
		return nil, err
	}
	return newDraft(s, dir)
}

func (s *Store) makeDir() error {
	if err := s.host.MkdirAll(filepath.Dir(s.dir), 0o755); err != nil {
		return err
	}
	return s.host.MkdirAll(s.dir, 0o700)
}

// path is where an entry of the directory really is, with links in the directory's own path
// followed within the host's root.
func (s *Store) path(name string) (string, error) {
	real, err := s.host.Path(filepath.Join(s.dir, "entry"))
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(real), name), nil
}

// Room is that of the directory's filesystem. It makes the directory, so as to know which
// filesystem that is.
func (s *Store) Room(ctx context.Context) (etcdbackup.Room, error) {
	if ctx.Err() != nil {
		return etcdbackup.Room{}, context.Cause(ctx)
	}
	if err := s.makeDir(); err != nil {
		return etcdbackup.Room{}, err
	}
	dir, err := s.path(".")
	if err != nil {
		return etcdbackup.Room{}, err
	}
	return s.room(dir)
}

// Scratch makes a file without a name in the store's directory, for size bytes; where there is no
// room for them beside the reserve it is ErrNoSpace.
func (s *Store) Scratch(size int64) (*os.File, error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	dir, err := s.path(".")
	if err != nil {
		return nil, err
	}
	if err := s.checkSpace(dir, size); err != nil {
		return nil, err
	}
	return s.host.ScratchFile(s.dir)
}

func (s *Store) room(dir string) (etcdbackup.Room, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return etcdbackup.Room{}, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	size := int64(stat.Blocks) * stat.Bsize
	return etcdbackup.Room{Size: size, Free: int64(stat.Bavail)*stat.Bsize - s.Reserve.of(size)}, nil
}

func (s *Store) checkSpace(dir string, size int64) error {
	room, err := s.room(dir)
	if err != nil {
		return err
	}
	if room.Free < size {
		return fmt.Errorf("%w in %s: %d MiB are needed, %d MiB are free beside what is reserved", etcdbackup.ErrNoSpace, dir, size>>20, max(room.Free, 0)>>20)
	}
	return nil
}

// List returns the regular files that are not hidden.
func (s *Store) List(ctx context.Context) ([]etcdbackup.Object, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	entries, err := s.host.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var objects []etcdbackup.Object
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		objects = append(objects, etcdbackup.Object{Name: e.Name(), Size: info.Size()})
	}
	return objects, nil
}

// Open opens a regular file; a link is refused.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := errors.Join(context.Cause(ctx), checkName(name)); err != nil {
		return nil, err
	}
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// Delete removes a file.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := errors.Join(context.Cause(ctx), checkName(name)); err != nil {
		return err
	}
	there, err := s.host.Exists(filepath.Join(s.dir, name))
	if err != nil || !there {
		return err
	}
	return s.host.Remove(filepath.Join(s.dir, name))
}

func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name of object %q: is not a plain file name", name)
	}
	return nil
}
