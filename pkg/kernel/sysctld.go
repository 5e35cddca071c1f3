package kernel

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// sysctlPath is where below /proc/sys a name of sysctl.d(5) lies. Where its first separator is
// a slash, it is the path; where it is a dot, dots and slashes trade places, so that a dot in
// an interface's name can be written.
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		name = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// setting is one assignment in a sysctl.d file.
type setting struct {
	Path  string // below /proc/sys
	Value string
	Line  int // counts from 1
}

// parseSysctl reads the assignments of a sysctl.d file. As systemd-sysctl does, it passes over
// what is none. Globs are left out: systemd sets by them only what no file sets by name, and
// what we want is set by name.
func parseSysctl(data []byte) []setting {
	var out []setting
	number := 0
	for raw := range bytes.Lines(data) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		// A leading dash says that a failure does not matter.
		name = strings.TrimPrefix(strings.TrimSpace(name), "-")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(name, "*?[") {
			continue
		}
		out = append(out, setting{Path: sysctlPath(name), Value: strings.TrimSpace(value), Line: number})
	}
	return out
}

// bootSetting is a setting and the file that makes it.
type bootSetting struct {
	setting
	file string
}

// bootSettings is what systemd-sysctl sets at boot, by path: of the files of one name the one
// in the first directory, all sorted by name whatever their directory, the last assignment.
func bootSettings(h *host.Host) (map[string]bootSetting, error) {
	files := map[string]string{}
	for _, dir := range []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"} {
		entries, err := h.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if _, hidden := files[e.Name()]; !hidden && strings.HasSuffix(e.Name(), ".conf") {
				files[e.Name()] = path.Join(dir, e.Name())
			}
		}
	}
	settings := map[string]bootSetting{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data, err := h.ReadFile(files[name])
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a dangling link still hides
			return nil, err
		}
		for _, s := range parseSysctl(data) {
			settings[s.Path] = bootSetting{setting: s, file: files[name]}
		}
	}
	return settings, nil
}
