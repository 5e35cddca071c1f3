//go:build integration

package controlplane_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/test/controlplane"
)

// A disk that fills up in the middle of a phase, in the agent's own directory or in that of
// Kubernetes, at several sizes: the phase fails and says so; once there is room the steps end
// as if nothing had been.
func TestPhasesDiskFull(t *testing.T) {
	controlplane.New(t)
	want := files(t, "/etc/kubernetes")
	for _, dir := range []string{"/var/lib/nodeagent", "/etc/kubernetes"} {
		for _, pages := range []int{4, 12, 24} {
			t.Run(fmt.Sprintf("%s of %d pages", dir, pages), func(t *testing.T) { diskFull(t, dir, pages, want) })
		}
	}
}

func diskFull(t *testing.T, dir string, pages int, want []string) {
	empty(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", pages*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	i, h := phases(t, &children{}, true)
	steps := []step.Step{
		bootstrap.KubeadmConfigFile(i), bootstrap.Certificates(i), bootstrap.Kubeconfigs(i), bootstrap.LocalEtcd(i), bootstrap.ControlPlaneManifests(i),
	}
	_, err := step.Apply(t.Context(), steps, nil)
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("on a disk of %d pages: %v", pages, err)
	}
	t.Log(err)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	apply(t, steps...)
	if got := files(t, "/etc/kubernetes"); !slices.Equal(got, want) {
		t.Errorf("the steps leave\n%s\nkubeadm\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if left, err := h.ReadDir("/var/lib/nodeagent/kubeadm"); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	for _, r := range step.Plan(t.Context(), steps, nil) {
		if r.Outcome != step.Clean {
			t.Errorf("afterwards %s: %s %v %v", r.Step, r.Outcome, r.Changes, r.Err)
		}
	}
}
