//go:build e2e

package vm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/vm"
)

// allocated is what the disks of all machines take.
func allocated(t *testing.T) (bytes int64) {
	t.Helper()
	disks, err := filepath.Glob(filepath.Join(os.TempDir(), "nodeagent-vm-*", "root.qcow2"))
	if err != nil || len(disks) == 0 {
		t.Fatalf("look for disks: %v, %v", disks, err)
	}
	for _, disk := range disks {
		var stat syscall.Stat_t
		if err := syscall.Stat(disk, &stat); err != nil {
			t.Fatal(err)
		}
		bytes += stat.Blocks * 512
	}
	return bytes
}

func TestVM(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte("from the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v := vm.Boot(ctx, t, vm.Options{Disks: []vm.Disk{
		{Label: "files", Files: map[string]string{"a/note": note}},
		{Label: "repository", Files: map[string]string{".": repository}},
	}})
	t.Logf("up after %s\n%s", time.Since(began), v.MustRun(ctx, t, "systemd-analyze; cat /run/cloud-init/ds-identify.log | tail -3"))

	t.Run("a fresh machine", func(t *testing.T) {
		for script, want := range map[string]string{
			"systemctl is-system-running":                         "running",
			"hostname":                                            "node1",
			"swapon --show=NAME --noheadings":                     "/dev/vdb1",
			"command -v containerd runc kubelet kubeadm || true":  "",
			"ls /mnt/repository/kubernetes/Release.key | wc -l":   "1",
			"systemctl is-enabled cloud-init || true":             "enabled",
			"cloud-init status":                                   "status: disabled",
			"ip -4 -o route get 1.1.1.1 | grep -o 'via [0-9.]* '": "via 10.0.2.2 ",
			"cat /mnt/files/a/note":                               "from the host",
			"etcdctl version | sed -n 1p":                         "etcdctl version: 3.6.8",
			"stat -fc %T /sys/fs/cgroup":                          "cgroup2fs",
		} {
			if got := v.MustRun(ctx, t, script); got != want {
				t.Errorf("%s: got %q, want %q\n%s", script, got, want, v.MustRun(ctx, t, "systemctl --failed --no-legend"))
			}
		}
	})
	t.Run("run", func(t *testing.T) {
		r, err := v.Run(ctx, "echo out; echo err >&2; exit 3")
		if want := (vm.Result{Stdout: "out\n", Stderr: "err\n", Code: 3}); err != nil || r != want {
			t.Errorf("got %v, %v, want %v", r, err, want)
		}
		if out := v.MustRun(ctx, t, "head -c 3000000 /dev/zero | tr '\\0' x"); len(out) != 3000000 {
			t.Errorf("got %d bytes of output", len(out))
		}
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		r, err = v.Run(short, "sleep 1000")
		if err != nil || r.Code != 124 {
			t.Errorf("got %v, %v, want code 124", r, err)
		}
		if left := v.MustRun(ctx, t, "pgrep -c sleep || true"); left != "0" {
			t.Errorf("%s sleeps left in the guest", left)
		}
	})
	t.Run("write file", func(t *testing.T) {
		content := strings.Repeat("line\n", 10000)
		if err := v.WriteFile(ctx, "/root/new dir/f", []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if got := v.MustRun(ctx, t, "stat -c '%a %s' '/root/new dir/f'"); got != "640 50000" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("save and load", func(t *testing.T) {
		v.MustRun(ctx, t, "echo before >/root/state; sync")
		if err := v.Save(ctx, "here"); err != nil {
			t.Fatal(err)
		}
		v.MustRun(ctx, t, "echo after >/root/state; sync")
		clone := v.Clone(ctx, t, "here")
		if got := clone.MustRun(ctx, t, "cat /root/state"); got != "before" {
			t.Errorf("clone: got %q", got)
		}
		if got := v.MustRun(ctx, t, "cat /root/state"); got != "after" {
			t.Errorf("the cloned machine: got %q", got)
		}
		if err := v.Load(ctx, "here"); err != nil {
			t.Fatal(err)
		}
		if got := v.MustRun(ctx, t, "cat /root/state; mountpoint -q /mnt/files"); got != "before" {
			t.Errorf("got %q", got)
		}
		before := allocated(t)
		if err := errors.Join(v.Forget(ctx, "here"), v.Save(ctx, "again"), v.Forget(ctx, "again")); err != nil {
			t.Error(err)
		}
		if grown := allocated(t) - before; grown > 50<<20 {
			t.Errorf("a state is forgotten and another one saved, and the disk is %d bytes larger", grown)
		}
		guest, err := time.Parse(time.RFC3339, v.MustRun(ctx, t, "date -Iseconds"))
		if err != nil || time.Since(guest).Abs() > time.Minute {
			t.Errorf("the guest's clock says %v, %v", guest, err)
		}
	})
	t.Run("reboot", func(t *testing.T) {
		before := v.MustRun(ctx, t, "echo kept >/root/unsynced; cat /proc/sys/kernel/random/boot_id")
		if err := v.Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		if got := v.MustRun(ctx, t, "cat /root/unsynced; mountpoint -q /mnt/files"); got != "kept" {
			t.Errorf("got %q", got)
		}
		if after := v.MustRun(ctx, t, "cat /proc/sys/kernel/random/boot_id"); after == before {
			t.Error("the same boot")
		}
	})
	t.Run("power cut", func(t *testing.T) {
		before := v.MustRun(ctx, t, "echo kept >/root/synced; sync; echo lost >/root/unsynced2; cat /proc/sys/kernel/random/boot_id")
		if err := v.PowerCut(ctx); err != nil {
			t.Fatal(err)
		}
		got := v.MustRun(ctx, t, "cat /root/synced; [ ! -s /root/unsynced2 ] && echo lost")
		if got != "kept\nlost" {
			t.Errorf("got %q", got)
		}
		if after := v.MustRun(ctx, t, "cat /proc/sys/kernel/random/boot_id"); after == before {
			t.Error("the same boot")
		}
	})
	t.Run("eventually", func(t *testing.T) {
		v.MustRun(ctx, t, "systemd-run --quiet sh -c 'sleep 2; touch /run/later'")
		v.Eventually(ctx, t, time.Minute, "test -e /run/later")
	})
	t.Run("packages of the repository", func(t *testing.T) {
		began := time.Now()
		v.MustRun(ctx, t, lab.UseRepositories("/mnt/repository")+
			"apt-get -q -y --no-install-recommends install kubelet kubeadm kubectl cri-tools containerd.io </dev/null")
		t.Logf("installed after %s", time.Since(began))
		for script, want := range map[string]string{
			"systemctl is-active containerd":      "active",
			"systemctl is-enabled kubelet":        "enabled",
			"kubeadm version -o short":            "v1.36.3",
			"ctr version | grep -c 'v2.4.2'":      "2",
			"ls /opt/cni/bin/bridge":              "/opt/cni/bin/bridge",
			"dpkg --verify containerd.io kubelet": "",
		} {
			if got := v.MustRun(ctx, t, script); got != want {
				t.Errorf("%s: got %q, want %q", script, got, want)
			}
		}
	})
}

// TestCloudInit: with a disk of data cloud-init does what it is told, once, and leaves the
// image's network and package sources alone.
func TestCloudInit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	began := time.Now()
	v := vm.Boot(ctx, t, vm.Options{UserData: []byte(`#cloud-config
write_files:
- {path: /etc/written, content: "written\n", permissions: "0600"}
runcmd:
- [sh, -c, "echo run >>/etc/ran"]
`)})
	t.Logf("up after %s\n%s", time.Since(began), v.MustRun(ctx, t, "systemd-analyze; cloud-init analyze blame | head -8"))
	for script, want := range map[string]string{
		"cloud-init status --wait":                           "status: done",
		"cat /etc/written /etc/ran; stat -c %a /etc/written": "written\nrun\n600",
		"hostname": "node1",
		"ip -4 -o route get 1.1.1.1 | grep -o 'via [0-9.]* '": "via 10.0.2.2 ",
		"ls /etc/apt/sources.list.d":                          "0000debian.sources",
		"systemctl is-system-running":                         "running",
	} {
		if got := v.MustRun(ctx, t, script); strings.TrimSpace(got) != want && got != want {
			t.Errorf("%s: got %q, want %q\n%s", script, got, want, v.MustRun(ctx, t, "systemctl --failed --no-legend"))
		}
	}
}
