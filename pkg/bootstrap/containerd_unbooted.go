package bootstrap

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// containerdMajor is the major version of the installed package, for a tree in which nothing
// can be run. Where no package brought containerd, that is known after the boot.
func containerdMajor(h *host.Host) (int, error) {
	state, err := readDpkg(h)
	if err != nil {
		return 0, err
	}
	for _, name := range containerdNames {
		pkg, there := state.find(name)
		if !there || !pkg.installed() {
			continue
		}
		version := pkg.Version
		if _, rest, epoch := strings.Cut(version, ":"); epoch {
			version = rest
		}
		digits, _, _ := strings.Cut(version, ".")
		major, err := strconv.Atoi(digits)
		if err != nil {
			return 0, fmt.Errorf("read %s: package %s has version %q", dpkgStatus, name, version)
		}
		return major, nil
	}
	return 0, step.Blocked{On: step.Boot}
}

// unbooted is setup where no containerd can be asked: what the files say is all that is known,
// and on containerd 2 what they do not say is upstream's default.
func (c containerd) unbooted(s containerdSetup) (containerdSetup, error) {
	major, err := containerdMajor(c.Host)
	if err != nil {
		return s, err
	}
	if s.effective, err = decodeTOML(s.root); err != nil {
		return s, fmt.Errorf("read %s: %w", containerdConfig, err)
	}
	if s.two = major >= 2; !s.two {
		return s, nil
	}
	if s.root == nil {
		s.effective["version"] = int64(newVersion)
	}
	if s.wantRoot, err = enabled(s.root); err != nil {
		return s, err
	}
	s.base = s.effective
	if s.wantRoot != nil {
		if s.base, err = decodeTOML(s.wantRoot); err != nil {
			return s, err
		}
	}
	if s.wantDropIn, err = c.dropInFor(s.wantRoot, s.base); err != nil || s.dropIn == nil {
		return s, err
	}
	_, covered, err := imports(c.Host, s.effective, "")
	if err != nil || !covered {
		return s, err
	}
	ours, err := decodeTOML(s.dropIn)
	if err != nil {
		return s, nil // it is written anew
	}
	mergeTables(s.effective, ours)
	return s, nil
}

// mergeTables puts what from holds into a tree, table by table, as containerd 2 merges drop-ins.
func mergeTables(into, from map[string]any) {
	for key, value := range from {
		below, isTable := value.(map[string]any)
		old, wasTable := into[key].(map[string]any)
		if isTable && wasTable {
			mergeTables(old, below)
			continue
		}
		into[key] = value
	}
}
