package lab

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestWriteArchive: a layer of several images is in the archive once, every file that the
// manifest names is there, and equal inputs make equal bytes.
func TestWriteArchive(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(name string) []byte {
		shared, err := writeLayer(filepath.Join(dir, name+".layer"), []entry{
			{path: "usr/bin/a", source: program}, {path: "usr/bin/b", target: "a"},
		})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		err = writeArchive(file, []image{
			{ref: "example.org/a:1", layers: []layer{shared}},
			{ref: "example.org/b:1", layers: []layer{shared}, labels: map[string]string{"title": "b"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	one, two := write("one"), write("two")
	if !bytes.Equal(one, two) {
		t.Error("equal inputs make different archives")
	}
	files := map[string][]byte{}
	for tr := tar.NewReader(bytes.NewReader(one)); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name] != nil {
			t.Errorf("%s is there twice", header.Name)
		}
		if files[header.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	var manifest []manifestEntry
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 2 || manifest[0].Layers[0] != manifest[1].Layers[0] || manifest[0].Config == manifest[1].Config {
		t.Errorf("manifest: %+v", manifest)
	}
	for _, m := range manifest {
		if files[m.Config] == nil || files[m.Layers[0]] == nil {
			t.Errorf("a file of %v is missing", m)
		}
	}
}

// TestLayerPaths: directories come before what is in them, and once.
func TestLayerPaths(t *testing.T) {
	file := filepath.Join(t.TempDir(), "layer")
	if _, err := writeLayer(file, []entry{{path: "usr/bin/b", target: "a"}, {path: "usr/lib/c", target: "a"}, {path: "d", target: "a"}}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	want := []string{"usr/", "usr/bin/", "usr/bin/b", "usr/lib/", "usr/lib/c", "d"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}
