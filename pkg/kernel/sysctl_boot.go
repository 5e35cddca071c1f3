package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// sysctlBoot is what the files of sysctls come to once ours is written.
type sysctlBoot struct {
	value map[string]string // by the name in want: what our file says
	file  string            // our file
	lines []setting         // of all files, ours as it will be, in the order of their names
	late  []setting         // of /etc/sysctl.conf, which `sysctl --system` reads last
	ufw   []setting         // of the file that ufw has read when it starts
}

func (s sysctls) boot() (sysctlBoot, error) {
	ours, err := s.ours()
	if err != nil {
		return sysctlBoot{}, err
	}
	others, err := s.lines("")
	if err != nil {
		return sysctlBoot{}, err
	}
	b := sysctlBoot{value: map[string]string{}}
	others = bootOrder(others)
	var text strings.Builder
	text.WriteString(owned)
	for _, w := range s.want {
		value := strings.TrimSpace(w.Value)
		if w.AtLeast {
			value = s.least(w, others, ours)
		}
		b.value[w.Name] = value
		if w.Optional {
			text.WriteString("-") // a failure does not matter
		}
		fmt.Fprintf(&text, "%s = %s\n", w.Name, value)
	}
	b.file = text.String()
	if b.lines, err = s.lines(b.file); err != nil {
		return sysctlBoot{}, err
	}
	data, err := s.h.ReadFile(sysctlConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sysctlBoot{}, err
	}
	b.late = parseSysctl(confFile{Path: sysctlConf, Data: data})
	b.ufw, err = ufwSettings(s.h)
	return b, err
}

// ours is our file as it is.
func (s sysctls) ours() ([]setting, error) {
	data, err := s.h.ReadFile(sysctlFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return parseSysctl(confFile{Path: sysctlFile, Data: data}), nil
}

// lines are those of all files, with file in the place of ours.
func (s sysctls) lines(file string) ([]setting, error) {
	files, err := confFiles(s.h, sysctlDirs, confFile{Path: sysctlFile, Data: []byte(file)})
	var out []setting
	for _, f := range files {
		out = append(out, parseSysctl(f)...)
	}
	return out, err
}

// least is the value for a limit in our file, which may not lower what other files set. What
// it says already stays when it is enough; when it is to say something for the first time, it
// takes a higher value from the running kernel.
func (s sysctls) least(w wanted, others, ours []setting) string {
	path := sysctlPath(w.Name)
	value, _ := number(w.Value)
	if set, found := lastOf(others, path); found {
		n, _ := number(set.Value)
		value = max(value, n)
	}
	set, _ := lastOf(ours, path)
	if n, ok := number(set.Value); ok && n >= value {
		return strconv.FormatInt(n, 10)
	}
	if !s.h.Offline {
		if have, err := s.live(w.Name); err == nil {
			n, _ := number(have)
			value = max(value, n)
		}
	}
	return strconv.FormatInt(value, 10)
}

// overrides are the values that others set otherwise than our file says: systemd-sysctl at
// boot, `sysctl --system` whenever somebody runs it, and ufw whenever it starts.
func (s sysctls) overrides(b sysctlBoot) ([]step.Change, error) {
	boot, system := bootOrder(b.lines), slices.Concat(b.lines, b.late)
	var changes []step.Change
	for _, w := range s.want {
		path := sysctlPath(w.Name)
		atBoot, lost := s.loses(w, boot, path)
		if lost {
			changes = append(changes, overridden(w, "at boot", atBoot))
		}
		late, loses := s.loses(w, system, path)
		if !loses || late.File != sysctlConf {
			continue
		}
		same, err := s.sameLine(atBoot, late)
		if err != nil {
			return nil, fmt.Errorf("compare sysctl files: %w", err)
		}
		if !lost || !same {
			changes = append(changes, overridden(w, "after sysctl --system", late))
		}
	}
	return append(changes, s.byUFW(b)...), nil
}

// loses is the line that gives a sysctl another value than is wanted.
func (s sysctls) loses(w wanted, lines []setting, path string) (setting, bool) {
	last, found := lastOf(lines, path)
	return last, found && (last.Exclude || !w.holds(last.Value))
}

func overridden(w wanted, when string, by setting) step.Change {
	have := by.Value
	if by.Exclude {
		have = "not set"
	} else if by.glob() || sysctlPath(w.Name) != by.Path {
		have = fmt.Sprintf("%s = %s", by.Path, by.Value)
	}
	return step.Change{
		Subject: w.Name + " " + when, Have: fmt.Sprintf("%s, by %s line %d", have, by.File, by.Line),
		Want: strings.TrimSpace(w.Value) + ": remove that line", Manual: true,
	}
}

// sameLine says whether two lines are one, read through two names of a file.
func (s sysctls) sameLine(a, b setting) (bool, error) {
	if a.Line != b.Line {
		return false, nil
	}
	if a.File == b.File {
		return true, nil
	}
	one, err := s.h.Stat(a.File)
	if err != nil {
		return false, err
	}
	other, err := s.h.Stat(b.File)
	return err == nil && os.SameFile(one, other), err
}
