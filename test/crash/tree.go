package crash

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Tree is what a directory holds: by path, "/" for the directory itself, everything that the
// next program to read it could see, but for times. Two trees are equal if their entries are.
type Tree map[string]Entry

// Entry is one file, directory or link.
type Entry struct {
	Mode     fs.FileMode
	UID, GID uint32
	Content  string // a file's bytes, a link's target
}

// ReadTree reads all that lies below root but for what is in the directories named in without,
// such as "/run".
func ReadTree(root string, without ...string) (Tree, error) {
	tree := Tree{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, filepath.Clean(root)), "/")
		if slices.Contains(without, name) {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := Entry{Mode: info.Mode()}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			e.UID, e.GID = stat.Uid, stat.Gid
		}
		if e.Content, err = content(path, e.Mode); err != nil {
			return err
		}
		tree[name] = e
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	return tree, nil
}

func content(path string, mode fs.FileMode) (string, error) {
	switch {
	case mode.IsRegular():
		data, err := os.ReadFile(path)
		return string(data), err
	case mode&fs.ModeSymlink != 0:
		return os.Readlink(path)
	}
	return "", nil
}

// Differences tells, a line each and sorted, how the tree differs from what is wanted.
func (tree Tree) Differences(want Tree) []string {
	var out []string
	for path, have := range tree {
		wanted, there := want[path]
		if !there {
			out = append(out, fmt.Sprintf("%s is there, %s", path, have))
		} else if have != wanted {
			out = append(out, fmt.Sprintf("%s is %s, and should be %s", path, have, wanted))
		}
	}
	for path, wanted := range want {
		if _, there := tree[path]; !there {
			out = append(out, fmt.Sprintf("%s is missing, it should be %s", path, wanted))
		}
	}
	slices.Sort(out)
	return out
}

func (e Entry) String() string {
	return fmt.Sprintf("%s %d:%d %q", e.Mode, e.UID, e.GID, e.Content)
}
