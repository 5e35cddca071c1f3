package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// A mark is this host's only if its first line is this host's machine-id, whatever else it holds.
func FuzzMarks(f *testing.F) {
	const id = "0123456789abcdef0123456789abcdef"
	for _, seed := range []string{"", id, id + "\n", id + "\nsha256:x\n", " " + id + " \r\n", "\n" + id, id + "0\n", "\x00"} {
		f.Add(id+"\n", []byte(seed))
		f.Add("", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, machine string, mark []byte) {
		root := t.TempDir()
		for path, data := range map[string][]byte{"/etc/machine-id": []byte(machine), bootstrappedMark: mark} {
			real := filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(real, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		standing, err := StandingOf(host.New(root), nil)
		first, _, _ := strings.Cut(string(mark), "\n")
		ours := strings.TrimSpace(machine) == strings.TrimSpace(first) && strings.TrimSpace(first) != ""
		switch {
		case err != nil:
			if id := strings.TrimSpace(machine); id != "" && id != "uninitialized" {
				t.Errorf("machine-id %q, mark %q: %v", machine, mark, err)
			}
		case ours != (standing == Bootstrapped):
			t.Errorf("machine-id %q, mark %q: %s", machine, mark, standing)
		}
	})
}
