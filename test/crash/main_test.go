package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// childOf names the program that the test binary is to be instead of tests.
const childOf = "CRASH_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if program, is := programs()[os.Getenv(childOf)]; is {
		if err := program(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// built is the program, built by the first test that needs it.
var built struct {
	sync.Mutex
	dir, path string
}

// nodeagent is the real program, as `make build` builds it.
func nodeagent(t *testing.T) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.path == "" {
		if err := build(t.Context()); err != nil {
			t.Fatalf("build nodeagent: %v", err)
		}
	}
	return built.path
}

func build(ctx context.Context) (err error) {
	const module = "../.."
	// go test takes a pass for good as long as nothing that the test has opened changes: so
	// it opens what goes into the program.
	for _, name := range []string{"go.mod", "go.sum", "cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(module, name), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			return err
		}
	}
	if built.dir, err = os.MkdirTemp("", "nodeagent-crash-"); err != nil {
		return err
	}
	path := filepath.Join(built.dir, "nodeagent")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./cmd/nodeagent")
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	built.path = path
	return nil
}
