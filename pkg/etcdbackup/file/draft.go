package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// draft is a hidden file, locked as long as its process lives: what lies about unlocked is a
// dead one's. The lock is shared, since the database in it is read under such a lock too.
type draft struct {
	store *Store
	file  *os.File
	done  bool

	unchecked int64 // bytes written since the free space was looked at
}

func (s *Store) draftPrefix() string { return ".nodeagent-" + s.node + "-" }

const draftSuffix = ".part"

func newDraft(s *Store, dir string) (*draft, error) {
	f, err := os.CreateTemp(dir, s.draftPrefix()+"*"+draftSuffix) // 0600
	if err != nil {
		return nil, err
	}
	d := &draft{store: s, file: f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), d.Abort())
	}
	return d, nil
}

// Write leaves the store's reserve alone, also where the object gets larger than was expected.
func (d *draft) Write(p []byte) (int, error) {
	if d.unchecked += int64(len(p)); d.unchecked > checkEvery {
		d.unchecked = 0
		if err := d.store.checkSpace(filepath.Dir(d.file.Name()), int64(len(p))); err != nil {
			return 0, err
		}
	}
	return d.file.Write(p)
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
	path := filepath.Join(filepath.Dir(d.file.Name()), name)
	_, err := os.Lstat(path)
	if err == nil {
		return fs.ErrExist
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(d.file.Name(), path); err != nil {
		return err
	}
	d.done = true
	return errors.Join(host.SyncDir(filepath.Dir(path)), d.file.Close())
}

func (d *draft) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	err := os.Remove(d.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.file.Close())
}

// sweep removes the drafts that dead processes of this host left.
func (s *Store) sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !s.ownDraft(e.Name()) {
			continue
		}
		if err := removeUnlocked(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove what an earlier save left: %w", err)
		}
	}
	return nil
}

// ownDraft says whether os.CreateTemp made the name for this host: only digits take the star's
// place, so that the drafts of host "a" are not those of "a-b".
func (s *Store) ownDraft(name string) bool {
	random, ok := strings.CutPrefix(name, s.draftPrefix())
	if !ok {
		return false
	}
	random, ok = strings.CutSuffix(random, draftSuffix)
	return ok && random != "" && strings.Trim(random, "0123456789") == ""
}

func removeUnlocked(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
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
		err = os.Remove(path)
	}
	return errors.Join(err, f.Close())
}
