package steptest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// tree is what a directory holds: by path, everything of a file that a step could change.
// Access times are left out, since reading is what Check is for.
type tree map[string]string

// tick is longer than the coarsest clock that Linux stamps files with (100 Hz).
const tick = 15 * time.Millisecond

// snapshot returns only when whatever is written next gets another time than what was written
// before: else a file replaced by its equal could go unseen.
func snapshot(root string) (tree, error) {
	t := tree{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		t[name], err = describe(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	time.Sleep(tick)
	return t, nil
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("no owner and inode to be had on this system")
	}
	says := fmt.Sprintf("%v %d:%d inode %d modified %s", info.Mode(), stat.Uid, stat.Gid, stat.Ino, info.ModTime().Format("15:04:05.000000000"))
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return says + " to " + target, err
	case info.Mode().IsRegular():
		data, err := os.ReadFile(path)
		return fmt.Sprintf("%s %d bytes sha256 %.8x", says, len(data), sha256.Sum256(data)), err
	}
	return says, nil
}

// unchanged is an error that lists the paths that are no longer as they were.
func (t tree) unchanged(root string) error {
	now, err := snapshot(root)
	if err != nil {
		return err
	}
	var differ []string
	for name, had := range t {
		has, there := now[name]
		if !there {
			differ = append(differ, name+" is gone")
		} else if has != had {
			differ = append(differ, fmt.Sprintf("%s was %s, is %s", name, had, has))
		}
	}
	for name, has := range now {
		if _, there := t[name]; !there {
			differ = append(differ, fmt.Sprintf("%s is new: %s", name, has))
		}
	}
	if len(differ) == 0 {
		return nil
	}
	slices.Sort(differ)
	return fmt.Errorf("the tree was modified:\n  %s", strings.Join(differ, "\n  "))
}
