// Package file keeps backups in a directory of the host.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

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
	// Mounted says that the directory lies on another filesystem than this host's own: where it does
	// not, what should be mounted there is not, and everything is etcdbackup.ErrNoStore. It is set
	// before the store is used, and means nothing below a root that is no running machine.
	Mounted bool
}

// Reserve is what backups leave free of a filesystem: the larger of its two parts.
type Reserve struct {
	Percent float64
	Bytes   int64
}

func (r Reserve) of(size int64) int64 { return max(r.Bytes, int64(r.Percent/100*float64(size))) }

var _ etcdbackup.Local = (*Store)(nil)

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
	dir, err := s.makeDir()
	if err != nil {
		return nil, err
	}
	if err := s.sweep(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	if err := s.checkSpace(dir, size); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return newDraft(s, dir)
}

func (s *Store) makeDir() (*os.Root, error) {
	if err := s.mounted(); err != nil {
		return nil, err
	}
	if err := s.host.MkdirAll(filepath.Dir(s.dir), 0o755); err != nil {
		return nil, err
	}
	return s.host.OpenDir(s.dir, 0o700)
}

// ownFilesystems are where a host's own filesystems are mounted, for one that has several.
var ownFilesystems = []string{"/", "/var", "/var/lib/nodeagent"}

// mounted says that what is to be mounted is not: the directory, or as much of its path as is there,
// lies on a filesystem of the host's own.
func (s *Store) mounted() error {
	if !s.Mounted || s.host.Offline {
		return nil
	}
	device := func(path string) (uint64, error) {
		info, err := s.host.Stat(path)
		if err != nil {
			return 0, err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			return stat.Dev, nil
		}
		return 0, fmt.Errorf("ask for the filesystem of %s: it has none", path)
	}
	at := s.dir
	dir, err := device(at)
	for ; errors.Is(err, fs.ErrNotExist) && at != "/"; dir, err = device(at) {
		at = filepath.Dir(at)
	}
	if err != nil {
		return err
	}
	for _, path := range ownFilesystems {
		own, err := device(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && own == dir {
			return fmt.Errorf("%w: %s lies on the same filesystem of this host as %s: is the share mounted?", etcdbackup.ErrNoStore, s.dir, path)
		}
	}
	return nil
}

// openDir opens the directory to read in it.
func (s *Store) openDir() (*os.Root, error) {
	if err := s.mounted(); err != nil {
		return nil, err
	}
	return s.host.OpenDir(s.dir, 0)
}

// Room is that of the directory's filesystem. It makes the directory, so as to know which
// filesystem that is.
func (s *Store) Room(ctx context.Context) (etcdbackup.Room, error) {
	if ctx.Err() != nil {
		return etcdbackup.Room{}, context.Cause(ctx)
	}
	dir, err := s.makeDir()
	if err != nil {
		return etcdbackup.Room{}, err
	}
	defer func() { _ = dir.Close() }() // nothing is written to it
	return s.room(dir)
}

// networks are the filesystems of statfs(2) whose files lie on other machines.
var networks = []int64{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC}

// Remote says that the directory is of another machine's filesystem: NFS, SMB or CephFS. One that is
// not there yet, or cannot be asked, is not.
func (s *Store) Remote() bool {
	dir, err := s.host.Path(s.dir)
	if err != nil {
		return false
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return false
	}
	return slices.Contains(networks, stat.Type)
}

// Scratch makes a file without a name in the store's directory, for size bytes; where there is no
// room for them beside the reserve it is ErrNoSpace.
func (s *Store) Scratch(size int64) (*os.File, error) {
	dir, err := s.makeDir()
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // nothing is written to it
	if err := s.checkSpace(dir, size); err != nil {
		return nil, err
	}
	return s.host.ScratchFile(s.dir)
}

func (s *Store) room(dir *os.Root) (etcdbackup.Room, error) {
	d, err := dir.Open(".")
	if err != nil {
		return etcdbackup.Room{}, err
	}
	var stat unix.Statfs_t
	err = unix.Fstatfs(int(d.Fd()), &stat)
	if err := errors.Join(err, d.Close()); err != nil {
		return etcdbackup.Room{}, fmt.Errorf("ask for the free space of %s: %w", s.dir, err)
	}
	// Some file systems say that they have no end: in bytes they would have one.
	bytes := func(blocks uint64) int64 {
		return int64(min(blocks, uint64(math.MaxInt64/max(stat.Bsize, 1)))) * stat.Bsize
	}
	size := bytes(stat.Blocks)
	return etcdbackup.Room{Size: size, Free: bytes(stat.Bavail) - s.Reserve.of(size)}, nil
}

func (s *Store) checkSpace(dir *os.Root, size int64) error {
	room, err := s.room(dir)
	if err != nil {
		return err
	}
	if room.Free < size {
		return fmt.Errorf("%w in %s: %s", etcdbackup.ErrNoSpace, s.dir, etcdbackup.Shortage(size, room.Free))
	}
	return nil
}

// List returns the regular files that are not hidden.
func (s *Store) List(ctx context.Context) ([]etcdbackup.Object, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	dir, err := s.openDir()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // read only
	entries, err := fs.ReadDir(dir.FS(), ".")
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
		objects = append(objects, etcdbackup.Object{Name: e.Name(), Size: info.Size(), Modified: info.ModTime()})
	}
	return objects, nil
}

// Open opens a regular file; a link is refused.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := errors.Join(context.Cause(ctx), checkName(name)); err != nil {
		return nil, err
	}
	dir, err := s.openDir()
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // the file stays open
	f, err := host.OpenIn(dir, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.dir, err)
	}
	return f, nil
}

// Put writes a file as a draft, which gets its name when it is complete.
func (s *Store) Put(ctx context.Context, name string, content *io.SectionReader) (err error) {
	draft, err := s.Create(ctx, content.Size())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, draft.Abort()) }()
	for at := int64(0); at < content.Size(); at += putPart {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := io.Copy(draft, io.NewSectionReader(content, at, min(putPart, content.Size()-at))); err != nil {
			return err
		}
	}
	return draft.Commit(ctx, name)
}

// putPart is after how much of an object Put looks whether it is still wanted.
const putPart = 4 << 20

// Delete removes a file.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := errors.Join(context.Cause(ctx), checkName(name)); err != nil {
		return err
	}
	if err := s.mounted(); err != nil {
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
