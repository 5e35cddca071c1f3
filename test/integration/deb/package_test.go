//go:build integration

package deb_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The same sources make the same package, whatever the checkout is called, who builds it, and when.
func reproducible(t *testing.T, b build) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	elsewhere := filepath.Join(t.TempDir(), "another place")
	copySources(t, ctx, b.checkout, elsewhere)
	for name, value := range map[string]string{"TZ": "Pacific/Chatham", "LANG": "de_DE.UTF-8", "USER": "somebody", "SOURCE_DATE_EPOCH": "1"} {
		t.Setenv(name, value)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	first, err := os.ReadFile(b.new)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(pack(t, ctx, elsewhere, newVersion, runtime.GOARCH))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two builds of the same sources differ: compare them with diffoscope")
	}
}

// copySources copies the files of a checkout that git knows, and not their modes and times.
func copySources(t *testing.T, ctx context.Context, checkout, to string) {
	t.Helper()
	files := run(t, ctx, checkout, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimSuffix(string(files), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(checkout, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// lintian finds no error and no warning in the packages that is not in deploy/deb/lintian-overrides
// with its reason, and none of those is for nothing.
func lintian(t *testing.T, b build) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	debs := []string{b.new}
	for _, arch := range []string{"amd64", "arm64"} {
		if arch != runtime.GOARCH {
			debs = append(debs, pack(t, ctx, b.checkout, newVersion, arch))
		}
	}
	args := []string{"--allow-root", "--profile", "debian", "--display-info", "--show-overrides", "--tag-display-limit", "0"}
	// It exits with 0: what it prints is judged here, since an override that is for nothing is
	// no more to it than a remark.
	out := string(run(t, ctx, b.checkout, "lintian", append(append(args, "--fail-on", "none"), debs...)...))
	overridden := 0
	for line := range strings.Lines(out) {
		switch {
		case strings.HasPrefix(line, "E:"), strings.HasPrefix(line, "W:"), strings.Contains(line, "unused-override"):
			t.Error(strings.TrimSpace(line))
		case strings.HasPrefix(line, "O:"):
			overridden++
		}
	}
	if overridden < 3*len(debs) {
		t.Errorf("lintian has seen %d of the package's overrides: has it looked at all?\n%s", overridden, out)
	}
}
