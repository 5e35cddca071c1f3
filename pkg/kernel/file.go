package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// owned is the first line of a file that the agent writes whole.
const owned = "# This file is nodeagent's: it is written from its configuration, and edits are lost.\n"

const ownedMode fs.FileMode = 0o644

// checkFile compares a file that the agent writes whole with what it is to hold.
func checkFile(h *host.Host, path, want string) ([]step.Change, error) {
	info, err := h.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []step.Change{{Subject: path, Have: "missing", Want: summary(want)}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("check file: %w", err)
	}
	have, err := h.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("check file: %w", err)
	}
	var changes []step.Change
	if string(have) != want {
		changes = append(changes, step.Change{Subject: path, Have: summary(string(have)), Want: summary(want)})
	}
	if mode := info.Mode().Perm(); mode != ownedMode {
		changes = append(changes, step.Change{Subject: path + " mode", Have: fmt.Sprintf("%#o", mode), Want: fmt.Sprintf("%#o", ownedMode)})
	}
	return changes, nil
}

// summary is what a file says, on one line and without its comments.
func summary(text string) string {
	var says []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != ';' {
			says = append(says, line)
		}
	}
	if len(says) == 0 {
		return "nothing"
	}
	return strings.Join(says, ", ")
}
