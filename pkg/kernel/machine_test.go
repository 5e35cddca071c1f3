package kernel

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// machine is a tree of a running machine under a temporary root. No command can be run on it.
func machine(t *testing.T, files map[string]string) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir(), Exec: func(_ context.Context, c host.Command) ([]byte, error) {
		t.Errorf("unexpected command: %s", c)
		return nil, nil
	}}
	for path, text := range files {
		put(t, h, path, text)
	}
	return h
}

// image is a tree that is not a running machine.
func image(t *testing.T, files map[string]string) *host.Host {
	h := machine(t, files)
	h.Offline = true
	return h
}

// put writes a file, makes a directory for "dir", and a link for "-> target".
func put(t *testing.T, h *host.Host, path, text string) {
	t.Helper()
	real := filepath.Join(h.Root, path)
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if target, ok := strings.CutPrefix(text, "-> "); ok {
		err = os.Symlink(target, real)
	} else if text == "dir" {
		err = os.Mkdir(real, 0o755)
	} else {
		err = os.WriteFile(real, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, h *host.Host, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// wantChanges runs Check and compares what it finds, one change a line, "!" before those that
// only a person can mend.
func wantChanges(t *testing.T, s step.Step, want ...string) {
	t.Helper()
	changes, err := s.Check(t.Context())
	if err != nil {
		t.Fatalf("check: %v", err)
	}
	var have []string
	for _, c := range changes {
		line := c.String()
		if c.Manual {
			line = "!" + line
		}
		have = append(have, line)
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("changes (- wanted, + found):\n%s", diff)
	}
}

func apply(t *testing.T, s step.Step) {
	t.Helper()
	if err := s.Apply(t.Context()); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

// wantError wants an error that says every one of the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	missing := func(word string) bool { return err == nil || !strings.Contains(err.Error(), word) }
	if slices.ContainsFunc(words, missing) {
		t.Errorf("error %v, want one that says %q", err, words)
	}
}
