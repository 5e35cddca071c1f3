package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// keep is how long an artefact that no checkout asked for stays in the cache.
const keep = 72 * time.Hour

// artefact is one directory of the cache.
type artefact struct {
	name  string
	needs []string // artefacts it is made of
	// inputs writes everything else that the result depends on.
	inputs func(l *lab, w io.Writer) error
	// make fills the empty directory dir; needs maps the names of needs to their directories.
	make func(ctx context.Context, l *lab, dir string, needs map[string]string) error
}

type lab struct {
	checkout, cache, goVersion string
	log                        io.Writer
}

func open(ctx context.Context) (*lab, error) {
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	l := &lab{checkout: root, cache: cache, log: os.Stderr}
	var version bytes.Buffer
	if err := l.run(ctx, root, &version, nil, "go", "env", "GOVERSION"); err != nil {
		return nil, err
	}
	l.goVersion = strings.TrimSpace(version.String())
	return l, nil
}

// build returns the directory of a, made now or before. A second caller waits for the first.
func (l *lab) build(ctx context.Context, a artefact) (string, error) {
	needs := map[string]string{}
	hash := sha256.New()
	for _, n := range a.needs {
		dir, err := Build(ctx, n)
		if err != nil {
			return "", err
		}
		needs[n] = dir
		fmt.Fprintln(hash, filepath.Base(dir))
	}
	if err := a.inputs(l, hash); err != nil {
		return "", fmt.Errorf("build artefact %q: %w", a.name, err)
	}
	dir := filepath.Join(l.cache, a.name+"-"+hex.EncodeToString(hash.Sum(nil))[:16])
	unlock, err := lockFile(ctx, filepath.Join(l.cache, a.name+".lock"))
	if err != nil {
		return "", fmt.Errorf("build artefact %q: %w", a.name, err)
	}
	defer unlock()
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := l.clean(a.name, now); err != nil {
		return "", fmt.Errorf("clean cache: %w", err)
	}
	fmt.Fprintf(l.log, "lab: building %s in %s\n", a.name, dir)
	tmp := filepath.Join(l.cache, ".new-"+a.name)
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", fmt.Errorf("build artefact %q: %w", a.name, err)
	}
	if err := a.make(ctx, l, tmp, needs); err != nil {
		return "", fmt.Errorf("build artefact %q: %w", a.name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("build artefact %q: %w", a.name, err)
	}
	fmt.Fprintf(l.log, "lab: built %s in %.1fs\n", a.name, time.Since(now).Seconds())
	return dir, nil
}

// clean removes what a build that was killed left behind, and old versions of the artefact
// that nobody has asked for of late. The artefact's lock is held.
func (l *lab) clean(name string, now time.Time) error {
	if err := os.RemoveAll(filepath.Join(l.cache, ".new-"+name)); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(l.cache, name+"-*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if now.Sub(info.ModTime()) < keep {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// lockFile waits for the lock while ctx lasts. The kernel frees it when the process ends.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, context.Cause(ctx)), f.Close())
		case <-tick.C:
		}
	}
}

// execute runs a command to its end and returns its stdout. Its stderr is in the error.
func execute(ctx context.Context, stdin io.Reader, env []string, name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// run runs a command to its end. With stdout nil its output goes to the log if it fails.
func (l *lab) run(ctx context.Context, dir string, stdout io.Writer, env []string, name string, args ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(args, " "), err, output.Bytes())
	}
	return nil
}
