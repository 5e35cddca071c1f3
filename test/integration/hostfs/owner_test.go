//go:build integration

package hostfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever may write the configuration is root: it is looked at as root and as its owner.
func TestOwnerOfConfiguration(t *testing.T) {
	const root, alice, bob = 0, 4711, 4712
	for name, test := range map[string]struct {
		reader, owner, dirOwner uint32
		mode                    os.FileMode
		want                    string // "" is accepted
	}{
		"root, root's":        {root, root, root, 0o600, ""},
		"root, a user's":      {root, alice, root, 0o600, "config.yaml is not safe to go by: it belongs to another user (mode 0600); chown root "},
		"root, in a user's":   {root, root, alice, 0o600, "is not safe to go by: it belongs to another user (mode 0755); chown root "},
		"owner":               {alice, alice, alice, 0o600, ""},
		"owner, shared":       {alice, alice, alice, 0o660, "config.yaml is not safe to go by: others can write it (mode 0660); chmod go-w"},
		"user, root's":        {alice, root, root, 0o644, ""},
		"user, another's":     {alice, bob, root, 0o644, "config.yaml is not safe to go by: it belongs to another user"},
		"user, not readable":  {alice, root, root, 0o600, "permission denied; run this as root"},
		"user, in a closed":   {alice, root, bob, 0o600, "is not safe to go by: it belongs to another user"},
		"root, world's":       {root, root, root, 0o666, "config.yaml is not safe to go by: others can write it (mode 0666); chmod go-w"},
		"root, group's, sane": {root, root, root, 0o640, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "config.yaml")
			if err := os.WriteFile(path, []byte("role: worker\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, change := range []error{
				os.Chmod(filepath.Dir(dir), 0o755), // it is closed to others
				os.Chmod(path, test.mode), os.Chmod(dir, 0o755),
				os.Chown(path, int(test.owner), 0), os.Chown(dir, int(test.dirOwner), 0),
			} {
				if change != nil {
					t.Fatal(change)
				}
			}
			code, out := nodeagent(t, test.reader, "config", "check", "--config", path)
			if test.want == "" && code != 0 || test.want != "" && (code != 1 || !strings.Contains(out, test.want)) {
				t.Errorf("exit code %d, %s, want %q", code, out, test.want)
			}
		})
	}
}
