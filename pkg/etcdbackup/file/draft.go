package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// draft is a hidden file, locked as long as its process lives: what lies about unlocked is a
// dead one's. The lock is shared, since the database in it is read under such a lock too.
//
// Its directory is held open from its beginning to its end: what is verified is what was written,
// and it gets its name where it lies, whatever is put in the place of the directory meanwhile.
type draft struct {
	store *Store
	dir   *os.Root
	name  string
	file  *os.File
	done  bool

	unchecked int64 // bytes written since the free space was looked at
	written   int64
	begun     int64 // how much of that the disk has begun to write
}

func (s *Store) draftPrefix() string { return ".nodeagent-" + s.node + "-" }

const draftSuffix = ".part"

// newDraft makes a draft in dir, which it closes in the end, and if it fails.
func newDraft(s *Store, dir *os.Root) (*draft, error) {
	d := &draft{store: s, dir: dir}
	for try := 1; ; try++ {
		d.name = s.draftPrefix() + strconv.FormatUint(uint64(rand.Uint32()), 10) + draftSuffix
		f, err := dir.OpenFile(d.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) && try < 100 {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make draft in %s: %w", s.dir, err), dir.Close())
		}
		d.file = f
		break
	}
	if err := unix.Flock(int(d.file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", d.name, err), d.Abort())
	}
	return d, nil
}

// Write leaves the store's reserve alone, also where the object gets larger than was expected.
func (d *draft) Write(p []byte) (int, error) {
	if d.unchecked += int64(len(p)); d.unchecked > checkEvery {
		d.unchecked = 0
		if err := d.store.checkSpace(d.dir, int64(len(p))); err != nil {
			return 0, err
		}
	}
	n, err := d.file.Write(p)
	var path *fs.PathError
	if errors.As(err, &path) { // whose name means nothing to anybody
		err = fmt.Errorf("write to %s: %w", d.store.dir, path.Err)
	}
	d.written += int64(n)
	d.writeBehind()
	return n, err
}

// behind is how much is left for the disk to begin with at a time.
const behind = 4 << 20

// writeBehind has the disk begin with what was written: all of it at the end, in Commit's fsync(2), would
// keep etcd's own waiting, which lie in the same journal, and the save too. It is a hint, and nothing rests
// on it: whether all of it has come to the disk is asked by Commit.
func (d *draft) writeBehind() {
	if n := d.written - d.begun; n >= behind {
		_ = unix.SyncFileRange(int(d.file.Fd()), d.begun, n, unix.SYNC_FILE_RANGE_WRITE)
		d.begun = d.written
	}
}

// checkEvery is after how many bytes the free space is looked at again.
const checkEvery = 16 << 20

func (d *draft) File() *os.File { return d.file }

// Commit goes on when ctx is done: it is short, and the draft is verified by now.
func (d *draft) Commit(_ context.Context, name string) error {
	if d.done {
		return errors.New("commit: the draft has ended")
	}
	if err := d.commit(name); err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", name, err), d.Abort())
	}
	return nil
}

func (d *draft) commit(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	ours, err := d.file.Stat()
	if err != nil {
		return err
	}
	there, err := d.dir.Lstat(d.name)
	if err != nil {
		return err
	}
	if !os.SameFile(ours, there) { // in a directory that others can write
		return errors.New("something else lies in the place of the draft")
	}
	if err := host.RenameNew(d.dir, d.name, name); err != nil {
		return err
	}
	d.done = true
	return errors.Join(host.SyncDir(d.dir), d.file.Close(), d.dir.Close())
}

func (d *draft) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	err := d.dir.Remove(d.name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.file.Close(), d.dir.Close())
}

// sweep removes the drafts that dead processes of this host left.
func (s *Store) sweep(dir *os.Root) error {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !s.ownDraft(e.Name()) {
			continue
		}
		if err := removeUnlocked(dir, e.Name()); err != nil {
			return fmt.Errorf("remove what an earlier save left: %w", err)
		}
	}
	return nil
}

// ownDraft says whether newDraft made the name for this host: between its beginning and its end are
// only digits, so that the drafts of host "a" are not those of "a-b".
func (s *Store) ownDraft(name string) bool {
	random, ok := strings.CutPrefix(name, s.draftPrefix())
	if !ok {
		return false
	}
	random, ok = strings.CutSuffix(random, draftSuffix)
	return ok && random != "" && strings.Trim(random, "0123456789") == ""
}

func removeUnlocked(dir *os.Root, name string) error {
	f, err := host.OpenIn(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = nil // somebody is writing it
	case err == nil:
		err = dir.Remove(name)
	}
	return errors.Join(err, f.Close())
}
