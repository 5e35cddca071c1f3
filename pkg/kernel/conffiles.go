package kernel

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Where sysctl.d(5) and modprobe.d(5) are looked for, the strongest directory first.
var (
	sysctlDirs   = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}
	modprobeDirs = []string{"/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"}
)

// confFile is a file of configuration and what it says.
type confFile struct {
	Path string
	Data []byte
}

// confFiles are the *.conf of several directories as systemd and kmod read them: of the files
// of one name the one in the first directory, sorted by name whatever their directory. written
// are files as they will be, which take the place of those on disk.
func confFiles(h *host.Host, dirs []string, written ...confFile) ([]confFile, error) {
	files := map[string]string{} // name → path
	for _, dir := range dirs {
		if h.Offline && strings.HasPrefix(dir, "/run/") {
			continue // no boot finds it there
		}
		entries, err := h.ReadDir(dir)
		if err != nil && !absent(err) {
			return nil, err
		}
		names := make([]string, 0, len(entries)+len(written))
		for _, e := range entries {
			names = append(names, e.Name())
		}
		for _, w := range written {
			if path.Dir(w.Path) == dir {
				names = append(names, path.Base(w.Path))
			}
		}
		for _, name := range names {
			if _, hidden := files[name]; !hidden && strings.HasSuffix(name, ".conf") {
				files[name] = path.Join(dir, name)
			}
		}
	}
	var out []confFile
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := confFile{Path: files[name]}
		if i := slices.IndexFunc(written, func(w confFile) bool { return w.Path == f.Path }); i >= 0 {
			f.Data = written[i].Data
		} else {
			data, err := h.ReadFile(f.Path)
			// A broken link and a directory say nothing, and still hide their namesakes.
			if err != nil && !absent(err) {
				return nil, err
			}
			f.Data = data
		}
		out = append(out, f)
	}
	return out, nil
}

// absent says that there is no file to read, or no directory to list, at a path: a broken link
// leads nowhere, and a mask to the /dev/null that a tree that is no machine's may not have.
func absent(err error) bool {
	is := func(target error) bool { return errors.Is(err, target) }
	return slices.ContainsFunc([]error{fs.ErrNotExist, syscall.EISDIR, syscall.ENOTDIR, syscall.ELOOP}, is)
}
