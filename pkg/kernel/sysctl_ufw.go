package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// ufw's files: whether it starts at boot, and what it sets then, beside rules.
const (
	ufwConf     = "/etc/ufw/ufw.conf"
	ufwDefaults = "/etc/default/ufw"
)

// ufwSettings are the lines of the file that ufw gives to sysctl(8) when it starts, at boot and
// by `ufw reload`, whatever sysctl.d says. There are none where ufw is off.
func ufwSettings(h *host.Host) ([]setting, error) {
	read := func(path string) ([]byte, error) {
		data, err := h.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
	conf, err := read(ufwConf)
	if err != nil || !strings.EqualFold(shellValue(conf, "ENABLED"), "yes") {
		return nil, err
	}
	defaults, err := read(ufwDefaults)
	if err != nil {
		return nil, err
	}
	path := shellValue(defaults, "IPT_SYSCTL")
	if !strings.HasPrefix(path, "/") {
		return nil, nil
	}
	data, err := h.ReadFile(path)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what ufw sets: %w", err)
	}
	return parseSysctl(confFile{Path: path, Data: data}), nil
}

// shellValue is what a file of plain assignments, which a shell reads, gives a variable. The
// last one holds.
func shellValue(data []byte, name string) (value string) {
	for line := range strings.Lines(string(data)) {
		key, text, assigns := strings.Cut(strings.TrimSpace(line), "=")
		if !assigns || strings.TrimPrefix(key, "export ") != name {
			continue
		}
		if n := len(text); n > 0 && (text[0] == '"' || text[0] == '\'') {
			text, _, _ = strings.Cut(text[1:], text[:1])
		} else {
			text, _, _ = strings.Cut(text, " ")
		}
		value = text
	}
	return value
}

// byUFW are the values that ufw sets otherwise than they are wanted.
func (s sysctls) byUFW(b sysctlBoot) []step.Change {
	var changes []step.Change
	for _, w := range s.want {
		// What is set in other files was so before: only a line of ufw's is to blame.
		last, loses := s.loses(w, slices.Concat(b.lines, b.ufw), sysctlPath(w.Name))
		if loses && slices.Contains(b.ufw, last) {
			changes = append(changes, overridden(w, "when ufw starts", last))
		}
	}
	return changes
}
