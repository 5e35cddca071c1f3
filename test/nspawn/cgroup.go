package nspawn

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	groupRoot   = "/sys/fs/cgroup"
	groupPrefix = "nodeagent-test-"
)

// groups are the control groups of one machine: one directory in each v1 hierarchy, or one in
// the unified hierarchy.
type groups struct {
	v1   bool
	dirs []string
}

// groupName is a name for a machine and its groups; it begins with the process that owns them.
func groupName() string {
	return fmt.Sprintf("%s%d-%s", groupPrefix, os.Getpid(), strings.ToLower(rand.Text()[:8]))
}

// newGroups makes the groups of a machine, after removing those of tests that were killed.
func newGroups(name string) (groups, error) {
	hierarchies := []string{groupRoot}
	_, err := os.Stat(filepath.Join(groupRoot, "cgroup.controllers"))
	v1 := errors.Is(err, fs.ErrNotExist)
	if err != nil && !v1 {
		return groups{}, fmt.Errorf("look at control groups: %w", err)
	}
	if v1 {
		if hierarchies, err = directories(groupRoot); err != nil {
			return groups{}, err
		}
	}
	if len(hierarchies) == 0 {
		return groups{}, fmt.Errorf("no control group hierarchy is mounted under %s", groupRoot)
	}
	g := groups{v1: v1}
	for _, hierarchy := range hierarchies {
		if err := removeStale(hierarchy); err != nil {
			return g, err
		}
		dir := filepath.Join(hierarchy, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return g, fmt.Errorf("make control group: %w", err)
		}
		g.dirs = append(g.dirs, dir)
		if err := copyCpuset(hierarchy, dir); err != nil {
			return g, err
		}
	}
	return g, nil
}

// directories are those in dir. Links ("cpu" to "cpu,cpuacct") are not.
func directories(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	return dirs, nil
}

// copyCpuset fills what is empty in a new v1 cpuset: no process may join it before.
func copyCpuset(hierarchy, dir string) error {
	if filepath.Base(hierarchy) != "cpuset" {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(hierarchy, file))
		if err != nil {
			return fmt.Errorf("copy cpuset: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
			return fmt.Errorf("copy cpuset: %w", err)
		}
	}
	return nil
}

// joinScript is shell text that moves the shell into the groups.
func (g groups) joinScript() string {
	var script strings.Builder
	for _, dir := range g.dirs {
		fmt.Fprintf(&script, "echo $$ > '%s/cgroup.procs'\n", dir)
	}
	return script.String()
}

// remove removes the groups with all below them. The kernel may need a moment to let go of
// processes that have ended.
func (g groups) remove() error {
	var errs []error
	for _, dir := range g.dirs {
		var err error
		for range 50 {
			if err = removeTree(dir); !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(pollInterval)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeTree removes a control group and those in it; its files go with it.
func removeTree(dir string) error {
	below, err := directories(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range below {
		if err := removeTree(d); err != nil {
			return err
		}
	}
	return syscall.Rmdir(dir)
}

// removeStale removes groups whose process is gone: a test that was killed cannot clean up.
func removeStale(hierarchy string) error {
	dirs, err := filepath.Glob(filepath.Join(hierarchy, groupPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		if err := removeTree(dir); err != nil {
			return fmt.Errorf("remove stale control group: %w", err)
		}
	}
	return nil
}
