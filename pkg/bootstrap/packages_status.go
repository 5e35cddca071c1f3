package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	dpkgDir    = "/var/lib/dpkg"
	dpkgStatus = dpkgDir + "/status"
	// dpkgUpdates is dpkg's journal: what of it is not in the status file yet, after dpkg was
	// killed.
	dpkgUpdates = dpkgDir + "/updates"
)

// dpkgPackage is what dpkg knows of a package, dpkg(1) "Information about packages".
type dpkgPackage struct {
	Name, Architecture, Version string
	Want                        string // install, hold, deinstall, purge, unknown
	Flag                        string // ok, reinstreq
	State                       string // installed, half-configured, config-files, …
}

func (p dpkgPackage) installed() bool { return p.State == "installed" && p.Flag == "ok" }
func (p dpkgPackage) held() bool      { return p.Want == "hold" }

// unfinished says that dpkg was in the middle of something with it, and ended.
func (p dpkgPackage) unfinished() bool {
	switch p.State {
	case "installed", "config-files", "not-installed":
		return p.Flag != "ok"
	}
	return true
}

// dpkgState is the state of a host's packages.
type dpkgState struct {
	packages []dpkgPackage
	journal  bool // dpkg is at work, or was killed before it wrote its journal into the status file
}

// readDpkg reads dpkg's own files; a host without dpkg has no packages.
func readDpkg(h *host.Host) (dpkgState, error) {
	var s dpkgState
	data, err := h.ReadFile(dpkgStatus)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("read state of packages: %w", err)
	}
	if s.packages, err = parseDpkgStatus(data); err != nil {
		return s, fmt.Errorf("read state of packages: %s: %w", dpkgStatus, err)
	}
	return s, s.readJournal(h)
}

// readJournal adds what dpkg has noted since it wrote the status file: paragraphs like those in
// it, each a file, in the order of their names.
func (s *dpkgState) readJournal(h *host.Host) error {
	entries, err := h.ReadDir(dpkgUpdates)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read state of packages: %w", err)
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue // "tmp.i" is not yet part of it
		}
		s.journal = true
		data, err := h.ReadFile(dpkgUpdates + "/" + e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // dpkg is at work
		}
		if err != nil {
			return fmt.Errorf("read state of packages: %w", err)
		}
		later, err := parseDpkgStatus(data)
		if err != nil {
			return fmt.Errorf("read state of packages: %s/%s: %w", dpkgUpdates, e.Name(), err)
		}
		for _, p := range later {
			s.set(p)
		}
	}
	return nil
}

// set replaces what was known of a package.
func (s *dpkgState) set(p dpkgPackage) {
	same := func(old dpkgPackage) bool { return old.Name == p.Name && old.Architecture == p.Architecture }
	if i := slices.IndexFunc(s.packages, same); i >= 0 {
		s.packages[i] = p
		return
	}
	s.packages = append(s.packages, p)
}

// find is the package of that name, of whichever architecture is the further installed.
func (s dpkgState) find(name string) (dpkgPackage, bool) {
	var found dpkgPackage
	there := false
	for _, p := range s.packages {
		if p.Name == name && (!there || p.installed()) {
			found, there = p, true
		}
	}
	return found, there
}

// unfinished names the packages that dpkg did not get done with, in dpkg's own words.
func (s dpkgState) unfinished() []string {
	var names []string
	for _, p := range s.packages {
		if !p.unfinished() {
			continue
		}
		state := p.State
		if p.Flag != "ok" {
			state += ", " + p.Flag
		}
		names = append(names, fmt.Sprintf("%s (%s)", p.Name, state))
	}
	slices.Sort(names)
	if len(names) == 0 && s.journal {
		names = []string{dpkgUpdates + " (not written into the status file)"}
	}
	return names
}

// parseDpkgStatus reads /var/lib/dpkg/status: paragraphs of fields, deb822(5). A paragraph
// without a name or a state is an error, as it is for dpkg.
func parseDpkgStatus(data []byte) ([]dpkgPackage, error) {
	var packages []dpkgPackage
	var p dpkgPackage
	begun := false
	end := func(line int) error {
		if !begun {
			return nil
		}
		if p.Name == "" || p.State == "" {
			return fmt.Errorf("line %d: a package without a name or a state ends here", line)
		}
		packages = append(packages, p)
		p, begun = dpkgPackage{}, false
		return nil
	}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		text = bytes.TrimRight(text, " \t\r\n")
		if len(text) == 0 {
			if err := end(line); err != nil {
				return nil, err
			}
			continue
		}
		if text[0] == ' ' || text[0] == '\t' {
			continue // of a field that none of ours is
		}
		key, value, ok := bytes.Cut(text, []byte(":"))
		if !ok {
			return nil, fmt.Errorf("line %d: %q is no field", line, text)
		}
		begun = true
		if err := p.set(string(key), string(bytes.TrimSpace(value))); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	return packages, end(line)
}

func (p *dpkgPackage) set(key, value string) error {
	switch strings.ToLower(key) {
	case "package":
		p.Name = value
	case "architecture":
		p.Architecture = value
	case "version":
		p.Version = value
	case "status":
		words := strings.Fields(value)
		if len(words) != 3 {
			return fmt.Errorf("state %q is not of three words", value)
		}
		p.Want, p.Flag, p.State = words[0], words[1], words[2]
	}
	return nil
}
