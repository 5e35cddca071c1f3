package kernel

import (
	"bytes"
	"path"
	"strings"
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

// setting is one line of a sysctl.d file: an assignment, or an exclusion ("-name" alone).
type setting struct {
	Path    string // below /proc/sys; with * ? [ it is a pattern
	Value   string
	Exclude bool
	File    string
	Line    int // counts from 1
}

func (s setting) glob() bool { return strings.ContainsAny(s.Path, "*?[") }

// parseSysctl reads the lines of a sysctl.d file. As systemd-sysctl does, it passes over what
// means nothing.
func parseSysctl(f confFile) []setting {
	var out []setting
	number := 0
	for raw := range bytes.Lines(f.Data) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, assigns := strings.Cut(line, "=")
		// The dash before an assignment says that a failure does not matter.
		bare, dash := strings.CutPrefix(name, "-")
		path := sysctlPath(strings.TrimSpace(bare))
		if path == "" || !assigns && !dash {
			continue
		}
		out = append(out, setting{Path: path, Value: strings.TrimSpace(value), Exclude: !assigns, File: f.Path, Line: number})
	}
	return out
}

// bootOrder is what systemd-sysctl makes of all lines: of those for one path the last holds,
// at its own place unless it says what was said before; an exclusion holds as well, and then
// nothing is set.
func bootOrder(lines []setting) []setting {
	var out []setting
	for _, s := range lines {
		at := -1
		for i, o := range out {
			if o.Path == s.Path {
				at = i
				break
			}
		}
		if at >= 0 && out[at].Value == s.Value && out[at].Exclude == s.Exclude {
			continue
		}
		if at >= 0 {
			out = append(out[:at], out[at+1:]...)
		}
		out = append(out, s)
	}
	return out
}

// sysctlAlias names sysctls that are one and the same variable of the kernel.
var sysctlAlias = map[string]string{
	"net/ipv4/ip_forward":          "net/ipv4/conf/all/forwarding",
	"net/ipv4/conf/all/forwarding": "net/ipv4/ip_forward",
}

// lastOf is the line that a path's value comes from when all have been carried out in their
// order. Where only an exclusion names the path it is that one, and where no line does there
// is none.
func lastOf(lines []setting, path string) (last setting, found bool) {
	named := map[string]bool{}
	for _, s := range lines {
		named[s.Path] = true
	}
	sets := func(s setting, path string) bool {
		if s.glob() { // what is named in any line is left alone by every pattern
			return !named[path] && globs(s.Path, path)
		}
		return s.Path == path
	}
	alias, aliased := sysctlAlias[path]
	for _, s := range lines {
		switch {
		case s.Exclude:
			if s.Path == path && !found {
				last, found = s, true
			}
		case sets(s, path), aliased && sets(s, alias):
			last, found = s, true
		}
	}
	return last, found
}

// globs is fnmatch(3) for the patterns of glob(3): a star stays within its directory.
func globs(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), name)
	return err == nil && ok
}
