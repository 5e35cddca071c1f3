//go:build e2e && soak

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/vm"
)

// TestBakedImage makes an image as docs/install.md says and boots it: on a machine of its own,
// with a configuration that cloud-init writes, nothing is left to do but the cluster.
func TestBakedImage(t *testing.T) {
	ctx, cancel := untilDeadline(t)
	defer cancel()
	tree := copyRootfs(ctx, t)
	inTree(ctx, t, tree, t.TempDir(), ownApt()+installZram)
	configuration := withPackages(t, "containerd.io")
	waits := bake(ctx, t, tree, configuration)
	v := vm.Boot(ctx, t, vm.Options{
		Root: plainDisk(ctx, t, tree), Disks: disks(ctx, t),
		UserData: userData(t, "In an image", configuration),
	})
	story(ctx, t, v, []chapter{
		{"only the cluster is left to make", 2 * time.Minute, func(ctx context.Context, t *testing.T, v *vm.VM) { onlyTheCluster(ctx, t, v, waits) }, false},
		{"the node becomes ready", 20 * time.Minute, goesOn, true},
		{"the host is as Kubernetes wants it", 2 * time.Minute, swapIsOff, false},
	})
}

// bake does what docs/install.md says to the tree, and returns the steps that wait for boot.
func bake(ctx context.Context, t *testing.T, tree, configuration string) []string {
	t.Helper()
	dir := t.TempDir()
	run(ctx, t, "cp", debianPackage(t), filepath.Join(dir, "nodeagent.deb"))
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(configuration), 0o640); err != nil {
		t.Fatal(err)
	}
	// The daemon is held back until the test has looked at what it has to do.
	held := filepath.Join(tree, "etc/systemd/system/nodeagent.service.d/held.conf")
	if err := os.MkdirAll(filepath.Dir(held), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(held, []byte("[Unit]\nConditionPathExists=/run/go\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := inTree(ctx, t, tree, dir, docblock.Script(t, "docs/install.md", "In an image"))
	t.Log(out)
	_, waits, found := strings.Cut(out, "; wait for boot: ")
	waits, _, _ = strings.Cut(waits, "\n")
	if !found {
		t.Fatalf("apply does not say what waits for boot")
	}
	return strings.Split(waits, ", ")
}

// onlyTheCluster holds what is left to do against what apply said would be.
func onlyTheCluster(ctx context.Context, t *testing.T, v *vm.VM, waits []string) {
	v.MustRun(ctx, t, `
		[ -s /etc/machine-id ]
		[ "$(systemctl show -P ConditionResult nodeagent)" = no ]
		[ "$(find /var/lib/nodeagent -type f ! -path '*/originals/*')" = "" ]
		cloud-init status --wait; jq -e '.v1.errors == []' /run/cloud-init/result.json
		[ -e /dev/vdb1 ]; [ -e /usr/lib/systemd/system-generators/zram-generator ]
		not grep "Adding [0-9]*k swap on" <(dmesg)`)
	swapIsOff(ctx, t, v)
	r, err := v.Run(ctx, "nodeagent plan -o json")
	if err != nil || r.Code != 2 {
		t.Fatalf("plan: %v %v", r, err)
	}
	var plan []struct {
		Step, Outcome string
		Changes       []struct{ Subject, Have, Want string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &plan); err != nil {
		t.Fatal(err)
	}
	cluster := []string{"images", "kubeadm/config", "kubeadm/preflight", "kubeadm/certs", "kubeadm/kubeconfig", "kubeadm/etcd",
		"kubeadm/control-plane", "kubeadm/kubelet-start", "kubeadm/wait-control-plane", "kubeadm/upload-config", "kubeadm/mark-control-plane",
		"kubeadm/bootstrap-token", "kubeadm/kubelet-finalize", "kubeadm/addon", "node/ready"}
	for _, s := range plan {
		if s.Outcome != "clean" && !slices.Contains(cluster, s.Step) {
			t.Errorf("left to do in %s (%s): %v", s.Step, s.Outcome, s.Changes)
		}
		said := s.Step
		if strings.HasPrefix(s.Step, "kubeadm/") {
			said = "kubeadm/config … kubeadm/addon"
		}
		if s.Outcome != "clean" && !slices.Contains(waits, said) {
			t.Errorf("%s has something left to do, and apply did not say that it waits for boot", s.Step)
		}
	}
}

func goesOn(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, "touch /run/go; systemctl start nodeagent")
	becomesReady(ctx, t, v)
}
