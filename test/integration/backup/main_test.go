//go:build integration

package backup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// built is the program, built by the first test that needs it.
var built struct {
	sync.Mutex
	dir, path string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func program(t *testing.T) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.path != "" {
		return built.path
	}
	var err error
	if built.dir, err = os.MkdirTemp("", "nodeagent-backup-"); err != nil { //nolint:usetesting // it is for all tests
		t.Fatal(err)
	}
	path := filepath.Join(built.dir, "nodeagent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path, "../../../cmd/nodeagent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	built.path = path
	return path
}

func (n node) store() *file.Store { return file.New(host.New(n.root), storeDir, "cp1") }
