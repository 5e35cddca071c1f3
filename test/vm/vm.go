// Package vm runs fresh Debian machines for tests: QEMU as a child of the test, commands
// through the guest agent, no network beyond the machine itself.
//
// Emulation is slow and uneven. A test here asserts what becomes true before a deadline, never
// how long it took. Every call that waits takes its deadline from ctx, or has one of its own.
package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
)

// bootDeadline is for a boot that takes 16 s on an idle machine.
const bootDeadline = 4 * time.Minute

// Options is what a test may choose about its machine.
type Options struct {
	Memory string // as QEMU takes it; "4G" when empty
	// Root is the first disk, a raw image that is not written to; the lab's when empty. Its kernel
	// is the lab's in any case.
	Root string
	// RootDevice is what the kernel mounts of it: /dev/vda when empty, /dev/vda1 of a disk with
	// partitions.
	RootDevice string
	// Disks are read-only and mounted at /mnt/LABEL, by a line in the guest's fstab, so that
	// they are there after a reboot too.
	Disks []Disk
	// UserData is what cloud-init is given, from a NoCloud disk; no such disk when nil.
	UserData []byte
}

// Disk is a read-only file system made of the given files.
type Disk struct {
	Label string            // at most 16 characters
	Files map[string]string // name on the disk: file or directory on the host; "." is its root
	// InFstab says that the root disk's fstab has its line already, so that it is mounted by
	// the first boot.
	InFstab bool
}

// VM is a machine. Its methods are for one goroutine at a time.
type VM struct {
	dir    string // overlays, sockets, console log
	image  string // the lab's VM image
	memory string
	root   string   // Options.RootDevice
	disks  []string // image files of Options.Disks and UserData
	qemu   *process
	agent  *agent
}

// Boot starts a fresh machine and waits until it is up. It is ended, and on failure its
// console and journal are printed and kept among the test's artifacts, when t ends.
func Boot(ctx context.Context, t testing.TB, o Options) *VM {
	t.Helper()
	image, err := lab.VMImage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v := newVM(t, image, o)
	for _, disk := range o.Disks {
		file, err := makeDisk(ctx, v.dir, disk)
		if err != nil {
			t.Fatal(err)
		}
		v.disks = append(v.disks, file)
	}
	if o.UserData != nil {
		file, err := makeSeed(ctx, v.dir, o.UserData)
		if err != nil {
			t.Fatal(err)
		}
		v.disks = append(v.disks, file)
	}
	root := o.Root
	if root == "" {
		root = filepath.Join(image, "root.ext4")
	}
	for name, base := range map[string]string{"root.qcow2": root, "swap.qcow2": filepath.Join(image, "swap.img")} {
		if err := overlay(ctx, base, v.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.start(ctx); err != nil {
		t.Fatalf("boot: %v", err)
	}
	for _, disk := range o.Disks {
		if disk.InFstab {
			continue
		}
		v.MustRun(ctx, t, fmt.Sprintf(`mkdir -p /mnt/%[1]s
			echo 'LABEL=%[1]s /mnt/%[1]s ext4 ro,nofail 0 0' >>/etc/fstab
			systemctl daemon-reload
			mount /mnt/%[1]s`, disk.Label))
	}
	return v
}

func newVM(t testing.TB, image string, o Options) *VM {
	t.Helper()
	// Not t.TempDir: a socket's path may have 108 characters, and a test's name is in that one.
	dir, err := os.MkdirTemp("", dirPattern) //nolint:usetesting // as said
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	v := &VM{dir: dir, image: image, memory: cmp.Or(o.Memory, "4G"), root: cmp.Or(o.RootDevice, "/dev/vda")}
	t.Cleanup(func() {
		if t.Failed() {
			v.keepLogs(t)
		}
		if err := errors.Join(v.stop(), os.RemoveAll(dir), claimed.Close()); err != nil {
			t.Errorf("end vm: %v", err)
		}
	})
	return v
}

// Reboot lets the guest shut down in its own way, starts it again, and waits until it is up.
func (v *VM) Reboot(ctx context.Context) error {
	if err := v.agent.shutdown(ctx); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	if err := v.qemu.wait(ctx, 3*time.Minute); err != nil {
		return fmt.Errorf("reboot: shut down: %w", err)
	}
	if err := v.start(ctx); err != nil {
		return fmt.Errorf("reboot: %w", err)
	}
	return nil
}

// PowerCut kills QEMU and starts the machine again.
//
// What it shows: the guest had no chance to stop anything or to write back its own page
// cache, so what it never synced is lost, in whatever order its kernel wrote things. What it
// does not show: a disk that loses or reorders writes it was sent. The host keeps everything
// that reached QEMU, flushed or not.
func (v *VM) PowerCut(ctx context.Context) error {
	if err := v.stop(); err != nil {
		return fmt.Errorf("cut power: %w", err)
	}
	if err := v.start(ctx); err != nil {
		return fmt.Errorf("cut power: %w", err)
	}
	return nil
}

// start runs QEMU and waits until the guest is up: its agent answers and systemd has nothing
// left to start.
func (v *VM) start(ctx context.Context, extra ...string) error {
	ctx, cancel := context.WithTimeout(ctx, bootDeadline)
	defer cancel()
	qemu, err := startProcess("qemu-system-x86_64", append(v.args(), extra...))
	if err != nil {
		return err
	}
	v.qemu, v.agent = qemu, &agent{socket: v.path("qga.sock"), gone: qemu.done}
	if err := v.agent.ready(ctx); err != nil {
		return errors.Join(fmt.Errorf("wait for the guest agent: %w", err), qemu.output())
	}
	if len(extra) > 0 {
		return nil // a restored machine is as it was
	}
	r, err := v.Run(ctx, "systemctl is-system-running --wait")
	if err != nil {
		return fmt.Errorf("wait for systemd: %w", err)
	}
	if state := strings.TrimSpace(r.Stdout); state != "running" && state != "degraded" {
		return fmt.Errorf("wait for systemd: state %q", state)
	}
	return nil
}

// stop kills QEMU and waits until it is gone.
func (v *VM) stop() error {
	if v.agent != nil {
		v.agent.close()
	}
	if v.qemu == nil {
		return nil
	}
	return v.qemu.kill()
}

func (v *VM) path(name string) string { return filepath.Join(v.dir, name) }

// keepLogs prints the ends of the console log and the guest's journal, and keeps the whole.
func (v *VM) keepLogs(t testing.TB) {
	console, err := os.ReadFile(v.path("console.log"))
	if err != nil {
		t.Logf("keep console log: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var journal string
	if v.qemu != nil && v.qemu.running() {
		r, err := v.Run(ctx, "journalctl -b --no-pager -o short-monotonic | tail -n 5000")
		if err != nil {
			t.Logf("keep journal: %v", err)
		}
		journal = r.Stdout
	}
	dir := t.ArtifactDir()
	for name, content := range map[string]string{"console.log": string(console), "journal.log": journal} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Logf("keep %s: %v", name, err)
		}
		t.Logf("the end of %s (the whole with go test -artifacts):\n%s", name, tail(content, 60))
	}
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
