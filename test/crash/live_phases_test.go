//go:build integration

package crash_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/crash"
)

// The phases of kubeadm that need no API, with what the agent does around them.
const (
	phaseConfig = "/srv/phases.yaml"
	phaseSteps  = "kubeadm/config,kubeadm/certs,kubeadm/kubeconfig,kubeadm/etcd,kubeadm/control-plane,node/kubeconfig"
	ownCA       = "/srv/own-ca" // an operator's authority, made in time
)

// phaseDirs are where they write, but for their log: each run adds to it.
var phaseDirs = []string{"/etc/kubernetes", "/var/lib/nodeagent", "/var/lib/etcd", "/root/.kube"}

// TestLivePhases is TestLive for the phases: kubeadm runs in units of its own and goes on while the
// agent is dead, and the next agent waits for it or begins anew. Each run makes other keys; so files
// are compared by name, owner and mode, and the plan looks at what is in them. An operator's own
// authority has to be the one that signs.
func TestLivePhases(t *testing.T) {
	inContainer(t)
	p := phaseMachine{live{t: t}}
	p.reset()
	whole := p.apply(0)
	if whole.ExitCode != 0 {
		t.Fatalf("left alone it exits %d:\n%s", whole.ExitCode, whole.Output)
	}
	after := phaseTree(t)
	p.converged(after)
	if len(after) < 40 {
		t.Fatalf("apply has done next to nothing: %q", after)
	}
	t.Logf("%d points", whole.Calls)

	began, killed, tried := time.Now(), 0, 0
	for n := 1; n <= whole.Calls; n += stride(t, whole.Calls) {
		tried++
		t.Run(fmt.Sprintf("killed/%04d", n), func(t *testing.T) {
			p := phaseMachine{live{t: t}}
			p.reset()
			r := p.apply(n)
			if r.Killed {
				killed++
				t.Logf("killed in place of call %d: %s", r.Calls, r.Log[len(r.Log)-1])
			} else if r.ExitCode != 0 {
				t.Fatalf("it ends after %d calls, with %d:\n%s", r.Calls, r.ExitCode, r.Output)
			}
			p.nothingOpen()
			if r := p.apply(0); r.ExitCode != 0 {
				t.Fatalf("run again it exits %d:\n%s", r.ExitCode, r.Output)
			}
			p.converged(after)
		})
	}
	t.Logf("killed at %d of %d points in %s", killed, whole.Calls, time.Since(began).Round(time.Second))
	if killed < tried*9/10 {
		t.Errorf("of %d runs that were to be killed %d were", tried, killed)
	}
}

type phaseMachine struct{ live }

func (p phaseMachine) apply(killAt int) crash.Result {
	p.t.Helper()
	return p.kill(killAt, liveProgram, "--config", phaseConfig, "apply", "--only", phaseSteps)
}

// reset leaves nothing of a cluster but the operator's authority. What a killed agent left running
// is ended first.
func (p phaseMachine) reset() {
	p.t.Helper()
	p.run("/bin/sh", "-c", "systemctl stop 'nodeagent-kubeadm-*.service'; systemctl reset-failed 'nodeagent-kubeadm-*.service'; true")
	for _, dir := range append(slices.Clone(phaseDirs), "/var/log/nodeagent", "/run/nodeagent") {
		p.must(os.RemoveAll(dir))
	}
	p.must(os.MkdirAll("/etc/kubernetes/pki", 0o755))
	p.must(os.CopyFS("/etc/kubernetes/pki", os.DirFS(ownCA)))
	p.must(os.Chmod("/etc/kubernetes/pki/ca.key", 0o600)) // CopyFS makes it everybody's
}

// nothingOpen wants of what a killed agent leaves that no key can be read by others, and that the
// operator's is there.
func (p phaseMachine) nothingOpen() {
	p.t.Helper()
	p.ownAuthority()
	for path, e := range phaseTree(p.t) {
		secret := strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".conf") || strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".out")
		if secret && e.Mode.IsRegular() && e.Mode.Perm()&0o077 != 0 {
			p.t.Errorf("the killed program left %s: %s", path, e)
		}
	}
}

func (p phaseMachine) ownAuthority() {
	p.t.Helper()
	for _, name := range []string{"ca.crt", "ca.key"} {
		own, err := os.ReadFile(ownCA + "/" + name)
		p.must(err)
		if is, err := os.ReadFile("/etc/kubernetes/pki/" + name); err != nil || string(is) != string(own) {
			p.t.Errorf("the operator's %s is another: %v", name, err)
		}
	}
}

func (p phaseMachine) converged(after crash.Tree) {
	p.t.Helper()
	p.ownAuthority()
	for _, d := range phaseTree(p.t).Differences(after) {
		p.t.Errorf("at the end, %s", d)
	}
	if plan := p.run(liveProgram, "--config", phaseConfig, "plan", "--only", phaseSteps); !strings.Contains(plan, "nothing to change") {
		p.t.Errorf("at the end the plan says\n%s", plan)
	}
	if left, err := os.ReadDir("/var/lib/nodeagent/kubeadm"); err != nil || len(left) > 0 {
		p.t.Errorf("left over: %v, %v", left, err)
	}
	units := strings.Fields(p.run("/usr/bin/systemctl", "list-units", "--all", "--plain", "--no-legend", "nodeagent-kubeadm-*.service"))
	if len(units) > 0 {
		p.t.Errorf("units are left: %q", units)
	}
}

// phaseTree is all below phaseDirs, without what is in the files.
func phaseTree(t *testing.T) crash.Tree {
	t.Helper()
	all := crash.Tree{}
	for _, dir := range phaseDirs {
		tree, err := crash.ReadTree(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for path, e := range tree {
			if e.Mode.IsRegular() {
				e.Content = "something"
			}
			all[dir+strings.TrimSuffix(path, "/")] = e
		}
	}
	return all
}
