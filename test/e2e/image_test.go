//go:build e2e && soak

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/vm"
)

// Of a root disk that a test makes. The identifier is the one in the fstab of the lab's image.
const (
	rootUUID    = "6e6f6465-6167-656e-7400-726f6f740001"
	rootMiB     = 10 << 10
	rootSwapMiB = 128
)

// copyRootfs is the lab's root file system, for the test to change. The directory above it ends
// with the test.
func copyRootfs(ctx context.Context, t *testing.T) string {
	t.Helper()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "rootfs")
	run(ctx, t, "cp", "-a", "--reflink=auto", filepath.Join(rootfs, "rootfs"), tree)
	return tree
}

// inTree runs a script in dir, with $TREE as an image builder has it: with /proc, and with the
// lab's repositories where the VM has them. Nothing stays mounted.
func inTree(ctx context.Context, t *testing.T, tree, dir, script string) string {
	t.Helper()
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const before = `set -eux; TREE=$1; mount -t proc proc "$TREE/proc"
		mkdir -p "$TREE/mnt/repository"; mount --bind "$3" "$TREE/mnt/repository"; cd "$2"
		`
	return run(ctx, t, "unshare", "--mount", "bash", "-c", before+script, "tree", tree, dir, repository)
}

// ownApt is a script for inTree: apt knows the lab's repositories, and no others, which cannot
// be reached from the VM.
func ownApt() string {
	return "chroot \"$TREE\" sh -eu <<'END'\n" + lab.UseRepositories("/mnt/repository") + "END\n"
}

// installZram is a script for inTree, after ownApt: swap in compressed memory, by default.
const installZram = `chroot "$TREE" apt-get -q install -y systemd-zram-generator` + "\n"

// withPackages is the configuration of TestFreshNode with another section packages.
func withPackages(t *testing.T, containerd string) string {
	t.Helper()
	section := regexp.MustCompile(`(?m)^packages:\n( .*\n)+`)
	if n := len(section.FindAll(configuration, -1)); n != 1 {
		t.Fatalf("the configuration has %d sections packages", n)
	}
	return section.ReplaceAllString(string(configuration),
		"packages:\n  containerd: "+containerd+"\n  repository: {url: \"file:///mnt/repository/kubernetes\"}\n")
}

// disks are those that every machine here has: the repositories, and the images.
func disks(ctx context.Context, t *testing.T) []vm.Disk {
	t.Helper()
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	images, err := lab.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return []vm.Disk{
		{Label: "files", Files: map[string]string{"images.tar": filepath.Join(images, lab.AllImages)}},
		{Label: "repository", Files: map[string]string{".": repository}},
	}
}

// rootDisk makes the tree a disk whose root is its first partition, with a swap partition on
// the same GPT: what systemd takes into use by itself, unless fstab names another one. The
// tree is removed.
func rootDisk(ctx context.Context, t *testing.T, tree string) string {
	t.Helper()
	disk := filepath.Join(filepath.Dir(tree), "root.img")
	swap := filepath.Join(filepath.Dir(tree), "swap.part")
	makeSwap(ctx, t, swap, rootSwapMiB)
	run(ctx, t, "truncate", "-s", fmt.Sprintf("%dM", 1+rootMiB+rootSwapMiB+1), disk)
	run(ctx, t, "sh", "-c", fmt.Sprintf(
		`printf 'label: gpt\nstart=1MiB, size=%dMiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\nsize=%dMiB, type=swap\n' | sfdisk -q '%s'`,
		rootMiB, rootSwapMiB, disk))
	makeRoot(ctx, t, tree, disk, 1<<20)
	run(ctx, t, "dd", "if="+swap, "of="+disk, "bs=1M", "count=1", fmt.Sprintf("seek=%d", 1+rootMiB), "conv=notrunc", "status=none")
	return disk
}

// plainDisk makes the tree a disk without partitions. The tree is removed.
func plainDisk(ctx context.Context, t *testing.T, tree string) string {
	t.Helper()
	disk := filepath.Join(filepath.Dir(tree), "root.img")
	makeRoot(ctx, t, tree, disk, 0)
	return disk
}

// makeRoot makes a file system of the tree, and removes the tree.
func makeRoot(ctx context.Context, t *testing.T, tree, disk string, offset int64) {
	t.Helper()
	run(ctx, t, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", rootUUID,
		"-E", fmt.Sprintf("offset=%d,lazy_itable_init=1,lazy_journal_init=1", offset), "-d", tree, disk, fmt.Sprintf("%dM", rootMiB))
	if err := os.RemoveAll(tree); err != nil {
		t.Fatal(err)
	}
}

// makeSwap makes a file an area of swap. It has no holes, so that it can be swapped to also as
// a file of a file system that is made from a tree.
func makeSwap(ctx context.Context, t *testing.T, file string, mib int) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.Repeat("x", mib<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, "mkswap", "-q", file)
}

// run runs a command of this machine.
func run(ctx context.Context, t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("run %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
