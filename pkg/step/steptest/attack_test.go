package steptest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func TestAttack(t *testing.T) {
	paths := Attack(t, func(t *testing.T) (string, func() error) {
		h := host.New(t.TempDir())
		return h.Root, func() error { return motd(h).Apply(t.Context()) }
	})
	want := []string{".etc.nodeagent", "etc", "etc/.motd.nodeagent", "etc/motd"}
	if !slices.Equal(paths, want) {
		t.Errorf("attacked %q, want %q", paths, want)
	}
}

// What follows links is found, wherever the link is.
func TestAttackFindsLinksFollowed(t *testing.T) {
	for path, isDir := range map[string]bool{"etc": true, "etc/motd": false, "etc/.motd.nodeagent": false} {
		root := t.TempDir()
		naive := func() error {
			return errors.Join(
				os.MkdirAll(filepath.Join(root, "etc"), 0o755),
				os.WriteFile(filepath.Join(root, "etc/.motd.nodeagent"), []byte("welcome\n"), 0o644),
				os.WriteFile(filepath.Join(root, "etc/motd"), []byte("welcome\n"), 0o644))
		}
		err := attack(root, filepath.Join(t.TempDir(), "elsewhere"), naive, path, isDir, false)
		if err == nil || !strings.Contains(err.Error(), "behind a link at /"+path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
