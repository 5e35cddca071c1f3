//go:build integration

package deb_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
)

// The package as it is, and a later one. Nothing differs but the version.
const (
	oldVersion = "0.0.1~old"
	newVersion = "0.0.2~new"
)

// build is what the tests share: two packages, their sources, a root file system, what apt installs from, and
// Kubernetes' programs.
type build struct{ old, new, checkout, rootfs, repository, kubernetes string }

const buildTimeout = 15 * time.Minute

func buildAll(t *testing.T) build {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	kubernetes, err := lab.Kubernetes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return build{
		old:        pack(t, ctx, checkout, oldVersion, runtime.GOARCH),
		new:        pack(t, ctx, checkout, newVersion, runtime.GOARCH),
		checkout:   checkout,
		rootfs:     filepath.Join(rootfs, "rootfs"),
		repository: repository,
		kubernetes: kubernetes,
	}
}

// pack builds the program and its package as `make package` does, but for the commit in the
// program, which not every copy of the sources has.
func pack(t *testing.T, ctx context.Context, checkout, version, arch string) (deb string) {
	t.Helper()
	dir := t.TempDir()
	program := compile(t, ctx, checkout, version, arch)
	native := program
	if arch != runtime.GOARCH {
		native = compile(t, ctx, checkout, version, runtime.GOARCH)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := run(t, ctx, checkout, native, "completion", shell)
		if err := os.WriteFile(filepath.Join(dir, "nodeagent."+shell), script, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, ctx, filepath.Join(checkout, "packaging"), "go", "run", ".", "-version", version, "-arch", arch,
		"-binary", program, "-generated", dir, "-time", "1790000000", "-out", dir)
	return filepath.Join(dir, "nodeagent_"+version+"_"+arch+".deb")
}

func compile(t *testing.T, ctx context.Context, checkout, version, arch string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "nodeagent")
	run(t, ctx, checkout, "env", "GOARCH="+arch, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X main.version="+version, "-o", program, "./cmd/nodeagent")
	return program
}

func run(t *testing.T, ctx context.Context, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s %v: %v\n%s", name, args, err, out)
	}
	return out
}
