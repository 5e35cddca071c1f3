package vm

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"
)

// runDeadline holds for a script whose ctx has no deadline.
const runDeadline = 2 * time.Minute

// toolsDir holds the tests' own tools (etcd's programs, promtool). Scripts of the tests find
// them there; nothing else on the machine looks there.
const toolsDir = "/usr/lib/nodeagent-test"

// Result is what a script in the guest left behind.
type Result struct {
	Stdout, Stderr string
	Code           int // 124 when its deadline had passed
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", r.Code, r.Stdout, r.Stderr)
}

// Run runs a bash script in the guest as root and waits for it. A script that outlives ctx's
// deadline is ended in the guest too. An error says that it could not be run or waited for,
// not that it failed.
func (v *VM) Run(ctx context.Context, script string) (Result, error) {
	return v.exec(ctx, script, nil)
}

func (v *VM) exec(ctx context.Context, script string, stdin []byte) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, runDeadline)
		defer cancel()
	}
	deadline, _ := ctx.Deadline()
	seconds := strconv.FormatFloat(max(0.1, time.Until(deadline).Seconds()), 'f', 1, 64)
	arguments := map[string]any{
		"path": "/usr/bin/timeout",
		"arg":  []string{"--kill-after=5", seconds, "/bin/bash", "-c", script},
		"env": []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + toolsDir, "HOME=/root", "USER=root",
			"LANG=C.UTF-8", "KUBECONFIG=/etc/kubernetes/admin.conf",
		},
		"capture-output": true,
	}
	if stdin != nil {
		arguments["input-data"] = base64.StdEncoding.EncodeToString(stdin)
	}
	var started struct {
		PID int `json:"pid"`
	}
	if err := v.agent.call(ctx, "guest-exec", arguments, &started); err != nil {
		return Result{}, fmt.Errorf("run in guest: %w", err)
	}
	// The guest's own timeout ends it at the deadline; its answer is worth waiting for.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(15*time.Second))
	defer cancel()
	var status struct {
		Exited   bool   `json:"exited"`
		Exitcode int    `json:"exitcode"`
		Signal   int    `json:"signal"`
		Out      []byte `json:"out-data"`
		Err      []byte `json:"err-data"`
	}
	for pause := 20 * time.Millisecond; !status.Exited; pause = min(2*pause, time.Second) {
		select {
		case <-ctx.Done():
			return Result{}, fmt.Errorf("run in guest: %w", ctx.Err())
		case <-time.After(pause):
		}
		if err := v.agent.call(ctx, "guest-exec-status", started, &status); err != nil {
			return Result{}, fmt.Errorf("run in guest: %w", err)
		}
	}
	if status.Signal != 0 {
		status.Exitcode = 128 + status.Signal
	}
	return Result{string(status.Out), string(status.Err), status.Exitcode}, nil
}

// strict begins the scripts of MustRun and Eventually: the first command that fails ends them.
// bash does not count "! command" among those, so there is "not command".
const strict = `set -euo pipefail
not() { ! "$@"; }
`

// MustRun is Run that ends the test unless the script exits 0. bash stops at its first failing
// command, also one in a pipeline (so no "| grep -q", which hangs up on the command before it),
// and "not command" fails where the command does not. It returns stdout without the last
// newline.
func (v *VM) MustRun(ctx context.Context, t testing.TB, script string) string {
	t.Helper()
	r, err := v.Run(ctx, strict+script)
	if err != nil {
		t.Fatalf("%s\n%v", script, err)
	}
	if r.Code != 0 {
		t.Fatalf("%s\n%v", script, r)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Eventually runs the script, as MustRun does, once a second until it exits 0, and ends the test when that has
// not come about within the time. It returns stdout without the last newline.
func (v *VM) Eventually(ctx context.Context, t testing.TB, within time.Duration, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last Result
	for {
		r, err := v.Run(ctx, strict+script)
		if err == nil && r.Code == 0 {
			return strings.TrimSuffix(r.Stdout, "\n")
		}
		if err == nil && r.Code != 124 {
			last = r
		}
		select {
		case <-v.qemu.done:
			t.Fatalf("%s\n%v", script, errGone)
		case <-ctx.Done():
			t.Fatalf("not within %s:\n%s\nlast: %v\nerror: %v", within, script, last, err)
		case <-time.After(time.Second):
		}
	}
}

// WriteFile writes a file in the guest, and the directories above it. Large files belong on a
// Disk.
func (v *VM) WriteFile(ctx context.Context, name string, content []byte, mode fs.FileMode) error {
	if content == nil {
		content = []byte{}
	}
	script := fmt.Sprintf("set -e; umask 077; mkdir -p -m 755 '%s'; cat >'%[2]s.new'; chmod %[3]o '%[2]s.new'; mv '%[2]s.new' '%[2]s'",
		path.Dir(name), name, mode.Perm())
	r, err := v.exec(ctx, script, content)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%v", r)
	}
	if err != nil {
		return fmt.Errorf("write %s in guest: %w", name, err)
	}
	return nil
}
