//go:build integration

// Package hostfs_test runs the program where the machine itself is at fault: a full disk, a
// read-only /etc, files of other users, no way out or two of them. All of that takes root, and
// mount and network namespaces that nothing outlives.
package hostfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// programEnv is the built program, for the process inside the mount namespace.
const programEnv = "NODEAGENT_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		os.Exit(m.Run())
	}
	code, err := reexec()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostfs:", err)
		code = 1
	}
	os.Exit(code)
}

// reexec builds the program and starts this binary in a mount namespace.
func reexec() (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("needs root")
	}
	dir, err := os.MkdirTemp("", "nodeagent-hostfs-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it too
		return 0, err
	}
	program := filepath.Join(dir, "nodeagent")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../../../cmd/nodeagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build nodeagent: %w\n%s", err, out)
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), programEnv+"="+program)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// nodeagent runs the program and returns its exit code and what it says.
func nodeagent(t *testing.T, user uint32, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv(programEnv), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// unpack makes root a machine that its owner has worked on: the one of the crash sweep.
func unpack(t *testing.T, root string) {
	t.Helper()
	archive, err := txtar.ParseFile("../../crash/testdata/own-files.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		path := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, is := strings.CutPrefix(string(f.Data), "-> "); is {
			err = os.Symlink(strings.TrimSpace(target), path)
		} else {
			mode := fs.FileMode(0o644)
			if dir := filepath.Dir(f.Name); dir == "usr/lib/cni" || dir == "opt/cni/bin" {
				mode = 0o755
			}
			err = os.WriteFile(path, f.Data, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tree is every file and link below root by name, but for what lives in memory on a machine: its
// mode and what is in it.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if name == "/run" {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err != nil || entry.IsDir() {
			return err
		}
		var content []byte
		if entry.Type()&fs.ModeSymlink != 0 {
			var target string
			target, err = os.Readlink(path)
			content = []byte(target)
		} else {
			content, err = os.ReadFile(path)
		}
		files[name] = info.Mode().String() + " " + string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// whole complains of every file that is neither as it was before nor as it is in the end.
func whole(t *testing.T, have, before, after map[string]string) {
	t.Helper()
	for name, content := range have {
		if content != before[name] && content != after[name] {
			t.Errorf("%s is neither old nor new: %q", name, content)
		}
	}
	for name := range before {
		if _, there := have[name]; !there {
			if _, stays := after[name]; stays {
				t.Errorf("%s is gone", name)
			}
		}
	}
}
