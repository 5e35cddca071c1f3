package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoProfiler: nothing serves a profile over HTTP. Handlers for it are linked, by etcd's server,
// which drills restore with and which is never told to listen; they are on the mux that net/http has
// by default. So nothing of ours imports them, and nothing of ours serves that mux. (That the
// daemon's own answers 404 for them is in pkg/agent's tests.)
func TestNoProfiler(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	seen := false
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.Contains(" "+imports+" ", " net/http/pprof ") {
			continue
		}
		seen = true
		if !strings.HasPrefix(path, "go.etcd.io/etcd/") {
			t.Errorf("%s imports net/http/pprof", path)
		}
	}
	if !seen {
		t.Error("nothing imports net/http/pprof any more: this test may demand that it is not linked at all")
	}
	for _, pattern := range []string{"*.go", "../../pkg/*/*.go", "../../pkg/*/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"http.Default" + "ServeMux", "http.Listen" + "AndServe(", "http.Handle" + "Func(", "http.Handle" + "(", "http.Serve" + "("} {
				if strings.Contains(string(text), word) {
					t.Errorf("%s: %s serves net/http's own mux, or adds to it", file, word)
				}
			}
		}
	}
}
