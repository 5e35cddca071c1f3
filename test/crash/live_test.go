//go:build integration

package crash_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/crash"
)

const (
	liveProgram = "/srv/nodeagent"
	liveSteps   = "kernel,containerd"
	// everyNth names the variable that says which share of the points is swept: 1 for all.
	everyNth = "NODEAGENT_CRASH_EVERY"
	// atMost points are swept where nothing says otherwise, spread over the whole run.
	atMost   = 14
	liveTime = time.Minute
	// longest is a file that a person has written; of a longer one a hash is kept.
	longest = 64 << 10
)

// liveDirs are where the steps write; of what lies elsewhere, liveFacts tells.
var liveDirs = []string{"/etc", "/opt", "/usr/lib/cni", "/var/lib/nodeagent"}

// liveUnits are those that the steps mask, stop or restart.
var liveUnits = []string{
	"swap.target", "zramswap.service", "srv-native.swap", "srv-vendor.swap", "containerd.service",
	`dev-disk-by\x2duuid-6e6f6465\x2d6167\x2d656e\x2d7400\x2d737761700002.swap`,
}

// liveSysctls are the network namespace's own; the others are the host's, and read-only.
var liveSysctls = []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"}

// TestLive kills apply on the root of a running system, in a container that systemd has booted
// and that test/integration/crash has made ready for it, and runs it again: files, units and the
// kernel then are as after a run that nobody killed. One machine serves all points: what a
// trial has changed is taken back before the next, and looked at.
//
// What it cannot show is in the package's comment; beyond it, systemd and containerd go on
// while the agent is dead, so a point is a place among the agent's calls and not a moment.
func TestLive(t *testing.T) {
	inContainer(t)
	l := live{t: t, fresh: liveTree(t)}
	l.facts = l.look()

	whole := l.apply(0)
	if whole.ExitCode != 0 {
		t.Fatalf("left alone it exits %d:\n%s", whole.ExitCode, whole.Output)
	}
	after, facts := liveTree(t), l.look()
	if len(after.Differences(l.fresh)) < 10 || slices.Equal(facts, l.facts) {
		t.Fatalf("apply has done next to nothing: %q", after.Differences(l.fresh))
	}
	t.Logf("%d points; after it\n%s", whole.Calls, strings.Join(facts, "\n"))
	operatorsBytes(t, l.fresh, after)

	every := stride(t, whole.Calls)
	began, killed, tried := time.Now(), 0, 0
	for n := 1; n <= whole.Calls; n += every {
		tried++
		t.Run(fmt.Sprintf("killed/%04d", n), func(t *testing.T) {
			l := live{t: t, fresh: l.fresh, facts: l.facts}
			l.reset()
			r := l.apply(n)
			if r.Killed {
				killed++
				t.Logf("killed in place of call %d: %s", r.Calls, r.Log[len(r.Log)-1])
			} else if r.ExitCode != 0 { // containerd may need fewer calls at another time
				t.Fatalf("it ends after %d calls, with %d:\n%s", r.Calls, r.ExitCode, r.Output)
			}
			oldOrNew(t, liveTree(t), l.fresh, after)
			if r := l.apply(0); r.ExitCode != 0 {
				t.Fatalf("run again it exits %d:\n%s", r.ExitCode, r.Output)
			}
			for _, d := range liveTree(t).Differences(after) {
				t.Errorf("run again, %s", d)
			}
			if have := l.look(); !slices.Equal(have, facts) {
				t.Errorf("run again, the machine is\n%s\nand not\n%s", strings.Join(have, "\n"), strings.Join(facts, "\n"))
			}
			if plan := l.run(liveProgram, "plan", "--only", liveSteps); !strings.Contains(plan, "nothing to change") {
				t.Errorf("the plan after it says\n%s", plan)
			}
		})
	}
	t.Logf("killed at %d of %d points in %s", killed, whole.Calls, time.Since(began).Round(time.Second))
	if killed < tried*9/10 {
		t.Errorf("of %d runs that were to be killed %d were", tried, killed)
	}
}

func inContainer(t *testing.T) {
	t.Helper()
	if data, err := os.ReadFile("/run/systemd/container"); err != nil || strings.TrimSpace(string(data)) != "systemd-nspawn" {
		t.Fatal("this test takes the machine that it runs on apart: test/integration/crash runs it in a container")
	}
}

// stride is from one point of a sweep to the next that is tried.
func stride(t *testing.T, points int) int {
	t.Helper()
	text := os.Getenv(everyNth)
	if text == "" {
		return max(1, points/atMost)
	}
	every, err := strconv.Atoi(text)
	if err != nil || every < 1 {
		t.Fatalf("%s is %q", everyNth, text)
	}
	return every
}

// operatorsBytes wants of what an operator has written that it is there still, but for what the
// steps are to change: swap in fstab, the sandbox image of containerd.
func operatorsBytes(t *testing.T, before, after crash.Tree) {
	t.Helper()
	const fstab, config, kept = "/etc/fstab", "/etc/containerd/config.toml", "/var/lib/nodeagent/originals"
	for _, path := range []string{fstab, config} {
		was, is := before[path], after[path]
		if was == is || was.Content == "" || is.Mode != was.Mode || is.UID != was.UID || is.GID != was.GID {
			t.Errorf("%s was %s and is %s", path, was, is)
		}
		if after[kept+path].Content != was.Content {
			t.Errorf("the original of %s that is kept is %s", path, after[kept+path])
		}
		for line := range strings.Lines(was.Content) {
			if !strings.Contains(line, "sandbox_image") && !strings.Contains(is.Content, line) {
				t.Errorf("%s has lost %q", path, line)
			}
		}
	}
	for path, was := range before {
		if is := after[path]; is != was && path != fstab && path != config && was.Mode.IsRegular() {
			t.Errorf("%s was %s and is %s", path, was, is)
		}
	}
}

// live is the machine that the test runs on.
type live struct {
	t     *testing.T
	fresh crash.Tree // before anything was applied
	facts []string
}

func (l live) apply(killAt int) crash.Result {
	l.t.Helper()
	return l.kill(killAt, liveProgram, "apply", "--only", liveSteps)
}

// kill runs a program and kills it in place of a call that counts, or lets it be when that is 0.
func (l live) kill(at int, args ...string) crash.Result {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), liveTime)
	defer cancel()
	r, err := crash.Run(ctx, crash.Command{Args: args}, at)
	if err != nil {
		l.t.Fatalf("%v\n%s", err, r.Output)
	}
	return r
}

func (l live) run(name string, args ...string) string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), liveTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// look is how the machine is beyond its files, a line each.
func (l live) look() []string {
	l.t.Helper()
	var out []string
	show := []string{"show", "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,ConditionResult", "--"}
	for block := range strings.SplitSeq(l.run("/usr/bin/systemctl", append(show, liveUnits...)...), "\n\n") {
		out = append(out, strings.Join(strings.Fields(block), " "))
	}
	for _, name := range liveSysctls {
		out = append(out, name+" "+strings.TrimSpace(l.run("/bin/cat", "/proc/sys/"+name)))
	}
	// A containerd that runs with another file than there is now is what a lost restart leaves.
	var written time.Time
	if info, err := os.Stat("/etc/containerd/config.toml"); err == nil {
		written = info.ModTime()
	}
	started := strings.TrimSpace(l.run("/usr/bin/systemctl", "show", "--timestamp=unix", "--value", "--property=ExecMainStartTimestamp", "containerd.service"))
	at, err := strconv.ParseInt(strings.TrimPrefix(started, "@"), 10, 64)
	if err != nil {
		l.t.Fatalf("containerd started at %q: %v", started, err)
	}
	return append(out, fmt.Sprintf("containerd runs with its file: %t", at >= written.Unix()))
}

// reset takes back what a trial has changed.
func (l live) reset() {
	l.t.Helper()
	have := liveTree(l.t)
	for path := range have {
		if _, was := l.fresh[path]; !was {
			l.must(os.RemoveAll(path))
		}
	}
	for path, e := range l.fresh {
		if have[path] == e {
			continue
		}
		if is, there := have[path]; e.Mode.IsDir() && there && is.Mode.IsDir() {
			l.must(os.Chmod(path, e.Mode.Perm()))
			continue
		}
		l.must(os.MkdirAll(filepath.Dir(path), 0o755))
		l.must(os.RemoveAll(path))
		switch {
		case e.Mode.IsDir():
			l.must(os.Mkdir(path, e.Mode.Perm()))
		case e.Mode&fs.ModeSymlink != 0:
			l.must(os.Symlink(e.Content, path))
			continue
		case len(have[path].Content) > 0 && e.Mode.IsRegular() && strings.Contains(e.Content, " bytes, "):
			l.t.Fatalf("%s has changed, and is too long to be taken back", path)
		default:
			l.must(os.WriteFile(path, []byte(e.Content), e.Mode.Perm()))
		}
		l.must(os.Chown(path, int(e.UID), int(e.GID)))
	}
	if left := liveTree(l.t).Differences(l.fresh); len(left) > 0 {
		l.t.Fatalf("it could not be taken back: %q", left)
	}
	for _, name := range liveSysctls {
		l.must(os.WriteFile("/proc/sys/"+name, []byte("0"), 0o644))
	}
	l.must(os.RemoveAll("/run/nodeagent"))
	l.run("/usr/bin/systemctl", "daemon-reload")
	l.run("/usr/bin/systemctl", "start", "swap.target", "zramswap.service")
	l.run("/usr/bin/systemctl", "restart", "containerd.service")
	if have := l.look(); !slices.Equal(have, l.facts) {
		l.t.Fatalf("taken back, the machine is\n%s\nand was\n%s", strings.Join(have, "\n"), strings.Join(l.facts, "\n"))
	}
}

func (l live) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// liveTree is all below liveDirs, with what differs between any two runs made the same.
func liveTree(t *testing.T) crash.Tree {
	t.Helper()
	all := crash.Tree{}
	for _, dir := range liveDirs {
		tree, err := crash.ReadTree(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for path, e := range tree {
			if e.Mode.IsRegular() && len(e.Content) > longest {
				e.Content = fmt.Sprintf("%d bytes, %x", len(e.Content), sha256.Sum256([]byte(e.Content)))
			}
			all[filepath.Join(dir, path)] = e
		}
	}
	const state = "/var/lib/nodeagent/state.json"
	if e, there := all[state]; there {
		if !json.Valid([]byte(e.Content)) {
			t.Errorf("%s is cut short: %q", state, e.Content)
		}
		e.Content = "(times)"
		all[state] = e
	}
	return all
}
