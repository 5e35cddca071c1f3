package crash

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Unsynced is what a loss of power could undo, or leave empty, although the program has ended
// and said that it is done: a file with content that was not synced since, a name in a directory
// that was not synced since, a file that took a name before its content was synced. It goes by
// the calls of a run on files that others did not touch, and passes over what lies below the
// directories in without. The mode of a directory is as durable as its name: the file systems of
// servers keep the order of such changes.
func (r Result) Unsynced(without ...string) []string {
	u := unsynced{contents: map[string]bool{}, names: map[string]Call{}}
	for _, c := range r.Log {
		u.add(c)
	}
	for _, path := range slices.Sorted(maps.Keys(u.contents)) {
		u.found = append(u.found, path+" was written and not synced")
	}
	for _, path := range slices.Sorted(maps.Keys(u.names)) {
		u.found = append(u.found, path+" is not synced in its directory: "+u.names[path].String())
	}
	return slices.DeleteFunc(u.found, func(s string) bool {
		return slices.ContainsFunc(without, func(dir string) bool { return strings.HasPrefix(s, dir+"/") })
	})
}

type unsynced struct {
	contents map[string]bool // files
	names    map[string]Call // and the last call that changed them
	found    []string
}

func (u *unsynced) add(c Call) {
	if c.Failed || len(c.Paths) == 0 {
		return
	}
	path := c.Paths[len(c.Paths)-1]
	switch c.Name {
	case "open", "openat", "openat2", "creat":
		u.contents[path] = true
		u.names[path] = c
	case "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice",
		"truncate", "ftruncate", "fallocate", "fchmod", "fchown":
		u.contents[path] = true
	case "mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "link", "linkat":
		u.names[path] = c
	case "unlink", "unlinkat", "rmdir":
		delete(u.contents, path)
		u.names[path] = c
	case "rename", "renameat", "renameat2":
		u.rename(c, c.Paths[0], path)
	case "fsync", "fdatasync":
		delete(u.contents, path)
		maps.DeleteFunc(u.names, func(name string, _ Call) bool { return filepath.Dir(name) == path })
	}
}

func (u *unsynced) rename(c Call, from, to string) {
	if u.contents[from] {
		u.found = append(u.found, to+" may be left empty: it was synced after it took the name, if at all")
		u.contents[to] = true
	}
	delete(u.contents, from)
	delete(u.names, from) // one that was never durable, and in the same directory as a rule
	if filepath.Dir(from) != filepath.Dir(to) {
		u.names[from] = c
	}
	u.names[to] = c
}
