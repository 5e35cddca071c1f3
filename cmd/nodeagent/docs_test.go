package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/docs/generate"
	"github.com/nodeagent/nodeagent/pkg/config"
)

var update = flag.Bool("update", false, "write the golden files")

// TestExample: the example that the package brings is a configuration.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../../deploy/examples/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Parse("config.yaml", data); err != nil {
		t.Error(err)
	}
}

// TestDocs holds the generated parts of the documentation against what the code says.
// `make generate` writes them.
func TestDocs(t *testing.T) {
	const checkout = "../.."
	files, err := generate.Files(checkout, (&app{}).rootCommand())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		path = filepath.Join(checkout, path)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(have), string(want)); diff != "" {
			t.Errorf("%s is out of date: run `make generate` (- as it is, + as it should be):\n%s", path, diff)
		}
	}
}
