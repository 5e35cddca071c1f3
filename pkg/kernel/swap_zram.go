package kernel

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var zramSection = regexp.MustCompile(`^\[(zram[0-9]+)\]$`)

// zramUnits are the units that zram-generator makes, told from its configuration. Those of any
// file count, also of one that another overrides: a mask too many hinders nothing.
func (s swap) zramUnits() ([]string, error) {
	installed := false
	for _, dir := range []string{"/etc", "/usr/local/lib", "/usr/lib", "/lib"} {
		for _, name := range []string{"zram-generator", "systemd-zram-generator"} {
			there, err := s.h.Exists(filepath.Join(dir, "systemd/system-generators", name))
			if err != nil {
				return nil, err
			}
			installed = installed || there
		}
	}
	if !installed {
		return nil, nil
	}
	var names []string
	for _, dir := range []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"} {
		files, err := confFiles(s.h, []string{dir + "/zram-generator.conf.d"})
		if err != nil {
			return nil, err
		}
		data, err := s.h.ReadFile(dir + "/zram-generator.conf")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, f := range append(files, confFile{Data: data}) {
			for _, device := range zramDevices(f.Data) {
				if name := swapUnitName("/dev/" + device); !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names, nil
}

// zramDevices are those that a file of zram-generator's has a section for.
func zramDevices(data []byte) []string {
	var devices []string
	for line := range strings.Lines(string(data)) {
		if section := zramSection.FindStringSubmatch(strings.TrimSpace(line)); section != nil {
			devices = append(devices, section[1])
		}
	}
	return devices
}
