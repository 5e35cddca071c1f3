//go:build integration

// Package kernel_test runs pkg/kernel's own tests where a real systemd is PID 1.
package kernel_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const (
	buildTimeout = 15 * time.Minute
	testTimeout  = 5 * time.Minute
)

// tests are those that need the container; the others run anywhere.
var tests = []string{
	"TestSysctlsAreAsTheProgramsSetThem", "TestSysctlFilesAreInSystemdsOrder", "TestStepsInARealContainer", "TestSwapUnitsOnARealSystemd",
}

func TestInContainer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "kernel.test")
	compile := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "integration", "-o", binary, "./pkg/kernel")
	compile.Dir = "../../.."
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.WaitDelay = 5 * time.Second
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile the tests: %v\n%s", err, out)
	}

	m := nspawn.Up(t, filepath.Join(rootfs, "rootfs"))
	m.CopyIn(t, binary, "/srv/kernel.test")
	ctx, cancel = context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	// In a unit of its own: processes that only entered the namespaces are in no unit.
	out, err := m.Run(ctx, "/usr/bin/systemd-run", "--quiet", "--wait", "--pipe", "--collect",
		"--working-directory=/tmp", "/srv/kernel.test", "-test.v", "-test.timeout=4m",
		"-test.run=^("+strings.Join(tests, "|")+")$")
	t.Log(out)
	if err != nil {
		t.Error(err)
	}
	for _, name := range tests {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			t.Errorf("%s did not run: were the tests built with the tag integration?", name)
		}
	}
	if strings.Contains(out, "--- SKIP") {
		t.Error("a test was skipped")
	}
}
