package bench

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// What the figures are held against; docs/benchmarks.md has the last ones.
const (
	applyTarget = 150 * time.Millisecond // CPU of an apply that has nothing to do
	planTarget  = 500 * time.Millisecond // of a plan, by the clock
)

// BenchmarkApplyConverged is the CPU that `nodeagent apply` takes on an image where nothing is
// left to do, beside a shell script that only looks.
func BenchmarkApplyConverged(b *testing.B) {
	agent, root := nodeagent(b), image(b)
	spend(b, 0, agent, "--root", root, "apply")
	var ours, theirs, wall time.Duration
	for b.Loop() {
		cpu, took := spend(b, 0, agent, "--root", root, "apply")
		ours, wall = ours+cpu, wall+took
		cpu, _ = spend(b, 0, "/bin/sh", "testdata/check.sh", root)
		theirs += cpu
	}
	n := time.Duration(b.N)
	b.ReportMetric((ours / n).Seconds(), "nodeagent-cpu-s/op")
	b.ReportMetric((theirs / n).Seconds(), "peer-cpu-s/op")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
	b.ReportMetric((wall / n).Seconds(), "nodeagent-s/op")
	b.ReportMetric((ours/n).Seconds()/applyTarget.Seconds(), "of-target")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPlanFresh is `nodeagent plan` on an image that nothing was done to yet, by the clock,
// beside the same script.
func BenchmarkPlanFresh(b *testing.B) {
	agent, root := nodeagent(b), image(b)
	var ours, theirs time.Duration
	for b.Loop() {
		_, took := spend(b, 2, agent, "--root", root, "plan")
		ours += took
		_, took = spend(b, 1, "/bin/sh", "testdata/check.sh", root)
		theirs += took
	}
	report(b, ours, theirs)
	b.ReportMetric(ours.Seconds()/float64(b.N)/planTarget.Seconds(), "of-target")
}

// spend runs a program that exits with code, and says what it took of the CPU and by the clock.
func spend(b *testing.B, code int, path string, args ...string) (cpu, wall time.Duration) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), path, args...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	wall = time.Since(began)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		b.Fatalf("%s %s: exit code %d, want %d: %v\n%s", path, strings.Join(args, " "), cmd.ProcessState.ExitCode(), code, err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), wall
}

// image unpacks the machine of the crash sweep, which its owner has worked on.
func image(b *testing.B) (root string) {
	b.Helper()
	archive, err := txtar.ParseFile("../crash/testdata/own-files.txtar")
	if err != nil {
		b.Fatal(err)
	}
	root = b.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(root, f.Name)
		if target, is := strings.CutPrefix(string(f.Data), "-> "); is {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				b.Fatal(err)
			}
			if err := os.Symlink(strings.TrimSpace(target), path); err != nil {
				b.Fatal(err)
			}
			continue
		}
		writeFile(b, path, string(f.Data))
		if err := os.Chmod(path, 0o755); err != nil { // the plugins among them are programs
			b.Fatal(err)
		}
	}
	return root
}
