package vm

import (
	"os"
	"path/filepath"
	"testing"
)

// What a killed process has left goes, and what another one uses stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, name := range []string{"nodeagent-vm-killed", "nodeagent-vm-runs", "another"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "disk"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	claimed, err := claim(filepath.Join(dir, "nodeagent-vm-runs"))
	if err != nil {
		t.Fatal(err)
	}
	defer claimed.Close()
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(dir + "/*")
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "another" || filepath.Base(left[1]) != "nodeagent-vm-runs" {
		t.Errorf("left are %v, %v", left, err)
	}
}
