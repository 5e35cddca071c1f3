package nodeagent_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestNothingLarge: what is built does not lie in the checkout, but where git ignores it. A program
// that is committed by mistake stays in every clone.
func TestNothingLarge(t *testing.T) {
	const most = 1 << 20
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == ".git" || name == "bin" || name == "dist" {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		ignored := name == "nodeagent" || strings.HasSuffix(name, ".test") || strings.HasSuffix(name, ".out")
		if info.Size() > most && !ignored {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
