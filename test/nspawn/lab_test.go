//go:build integration

package nspawn

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
)

// TestLabCommands types what docs/testing.md says of the lab. `make integration` has built all before.
func TestLabCommands(t *testing.T) {
	root, err := docblock.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	var last string
	for _, line := range docblock.Lines(t, "docs/testing.md", "The lab") {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
		cmd.Dir, cmd.WaitDelay = root, 5*time.Second
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		last = strings.TrimSpace(string(out))
	}
	if _, err := os.Stat(last + "/etcdutl"); err != nil {
		t.Errorf("the last prints %q: %v", last, err)
	}
}
