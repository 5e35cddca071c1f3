package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestNoProfiler: nothing that the program is made of could serve a profile over HTTP, by
// whatever address. expvar is linked, and its handler is on a mux that nothing serves.
func TestNoProfiler(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, "net/http") {
		t.Fatalf("that is not the program:\n%s", out)
	}
	if slices.Contains(packages, "net/http/pprof") {
		t.Error("net/http/pprof is linked")
	}
}
