//go:build integration

package deb_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// onArm64 runs the program of the other package, under QEMU's emulation of the processor alone: it
// says, writes into an image and reads in a snapshot what the one of this processor does. What it does
// not show: an arm64 kernel, systemd, and what apt brings there.
func onArm64(t *testing.T, b build) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	programs := [][]string{{unpackedProgram(t, ctx, b.new)}, {"qemu-aarch64", unpackedProgram(t, ctx, pack(t, ctx, b.checkout, newVersion, "arm64"))}}
	if out, _ := says(t, ctx, programs[1], "version"); !strings.HasSuffix(out, " linux/arm64\n") {
		t.Fatalf("version is %q", out)
	}
	snapshot := plainSnapshot(t, b.checkout)
	var trees, said []string
	for _, program := range programs {
		tree := t.TempDir()
		image(t, tree)
		config := filepath.Join(tree, configPath)
		all := ""
		for _, command := range [][]string{
			{"config", "check", "--config", config},
			{"plan", "--root", tree, "--config", config},
			{"apply", "--root", tree, "--config", config},
			{"plan", "--root", tree, "--config", config, "-o", "json"},
			{"snapshot", "verify", snapshot, "-o", "json"},
			{"snapshot", "verify", config}, // which is none
		} {
			out, code := says(t, ctx, program, command...)
			all += strings.Join(command, " ") + ": " + out + code + "\n"
		}
		all = took.ReplaceAllString(strings.ReplaceAll(all, tree, "TREE"), "done in TIME")
		trees, said = append(trees, tree), append(said, all)
	}
	if said[0] != said[1] || !strings.Contains(said[0], `"revision"`) || !strings.Contains(said[0], "exit status 1") {
		t.Errorf("they differ:\n%s", cmp.Diff(said[0], said[1]))
	}
	// The state has the times of its own run, and a lock the number of the process.
	diff, err := exec.CommandContext(ctx, "diff", "-r", "--exclude=state.json", "--exclude=*.lock", trees[0], trees[1]).CombinedOutput()
	if err != nil || len(diff) > 0 {
		t.Errorf("%v: they write differently:\n%s", err, diff)
	}
	if _, err := os.Stat(filepath.Join(trees[1], "etc/sysctl.d/90-nodeagent.conf")); err != nil {
		t.Errorf("apply has written nothing: %v", err)
	}
}

var took = regexp.MustCompile(`done in \S+`)

// unpackedProgram is the program in a package.
func unpackedProgram(t *testing.T, ctx context.Context, deb string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, ctx, dir, "dpkg-deb", "--extract", deb, dir)
	return filepath.Join(dir, "usr/bin/nodeagent")
}

// image is a tree that is to become a machine's.
func image(t *testing.T, tree string) {
	t.Helper()
	for name, text := range map[string]string{
		configPath:        "role: control-plane\nnetwork: {cni: bridge}\npackages: {manage: false}\n",
		"etc/os-release":  "ID=debian\nVERSION_ID=\"12\"\n",
		"etc/fstab":       "UUID=1 none swap sw 0 0\n",
		"etc/machine-id":  "0123456789abcdef0123456789abcdef\n",
		"usr/lib/cni/ptp": "#!/bin/sh\n",
	} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// plainSnapshot is one that etcdctl has saved.
func plainSnapshot(t *testing.T, checkout string) string {
	t.Helper()
	packed, err := os.Open(filepath.Join(checkout, "pkg/etcdbackup/testdata/snapshots/3.6.8-all-sorts.db.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if _, err := data.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(path, data.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// says runs a program and returns what it prints, and how it ends.
func says(t *testing.T, ctx context.Context, program []string, args ...string) (out, code string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	args = append(program[1:len(program):len(program)], args...)
	cmd := exec.CommandContext(ctx, program[0], args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.WaitDelay = 5 * time.Second
	printed, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("run %v: %v", args, err)
	}
	if err != nil {
		code = err.Error()
	}
	return string(printed), code
}
