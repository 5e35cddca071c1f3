package bootstrap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const dpkgStatusFile = "/var/lib/dpkg/status"

// containerdMajor is the major version of the installed package, for a tree in which nothing
// can be run. Where no package brought containerd, that is known after the boot.
func containerdMajor(h *host.Host) (int, error) {
	data, err := h.ReadFile(dpkgStatusFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, step.Blocked{On: step.Boot}
	}
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"containerd", "containerd.io"} {
		version := installedVersion(data, name)
		if version == "" {
			continue
		}
		if _, rest, epoch := strings.Cut(version, ":"); epoch {
			version = rest
		}
		digits, _, _ := strings.Cut(version, ".")
		major, err := strconv.Atoi(digits)
		if err != nil {
			return 0, fmt.Errorf("read %s: package %s has version %q", dpkgStatusFile, name, version)
		}
		return major, nil
	}
	return 0, step.Blocked{On: step.Boot}
}

// installedVersion is that of a package which dpkg has installed, or "".
func installedVersion(status []byte, name string) string {
	var in, installed bool
	version := ""
	lines := bufio.NewScanner(bytes.NewReader(status))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case lines.Text() == "":
			if in && installed {
				return version
			}
			in, installed, version = false, false, ""
		case key == "Package":
			in = value == name
		case key == "Status":
			installed = strings.HasSuffix(value, " installed")
		case key == "Version":
			version = value
		}
	}
	if in && installed {
		return version
	}
	return ""
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
