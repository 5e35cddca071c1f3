//go:build e2e && soak

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/vm"
)

// TestCloudInit is a machine that nobody types on: its first boot has cloud-init write the
// configuration and install the package, as docs/install.md says. And it has swap of every kind:
// on a partition and in a file that fstab names, in compressed memory, and on a partition of
// the root's own disk, which systemd takes as soon as fstab names no other.
func TestCloudInit(t *testing.T) {
	ctx, cancel := untilDeadline(t)
	defer cancel()
	tree := copyRootfs(ctx, t)
	// Of Kubernetes' packages the image knows nothing.
	inTree(ctx, t, tree, t.TempDir(), ownApt()+installZram+`rm "$TREE/etc/apt/sources.list.d/lab-kubernetes.list"`)
	fstab := addSwapZoo(ctx, t, tree)
	files := append(disks(ctx, t), vm.Disk{Label: "package", Files: map[string]string{"nodeagent.deb": debianPackage(t)}})
	for i := range files {
		files[i].InFstab = true
	}
	v := vm.Boot(ctx, t, vm.Options{
		Root: rootDisk(ctx, t, tree), RootDevice: "/dev/vda1", Disks: files,
		UserData: userData(t, "By cloud-init", withPackages(t, "containerd")),
	})
	story(ctx, t, v, []chapter{
		{"cloud-init has done its part", time.Minute, cloudInitIsDone, true},
		{"the node becomes ready", 20 * time.Minute, becomesReady, true},
		{"from Debian's containerd", time.Minute, onDebiansContainerd, false},
		{"all swap is off", time.Minute, func(ctx context.Context, t *testing.T, v *vm.VM) { zooIsOff(ctx, t, v, fstab) }, false},
		{"after a reboot", 12 * time.Minute, func(ctx context.Context, t *testing.T, v *vm.VM) { zooStaysOff(ctx, t, v, fstab) }, false},
	})
}

// userData is the first block of a section of docs/install.md, with another configuration for
// the node: emulation and a network without a way out want more than a reader's three lines.
func userData(t *testing.T, section, configuration string) []byte {
	t.Helper()
	text := docblock.Text(t, "docs/install.md", section, "yaml")
	const inDoc = "      role: control-plane\n      network:\n        cni: bridge\n"
	if strings.Count(text, inDoc) != 1 {
		t.Fatalf("the first block of %q in docs/install.md does not write the configuration:\n%s", section, text)
	}
	indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(configuration, "      $1")
	return []byte(strings.Replace(text, inDoc, indented, 1))
}

// What TestCloudInit's machine has at the end of its fstab: two lines of swap are in the whole.
const zooFstab = "LABEL=files /mnt/files ext4 ro,nofail 0 0\n" +
	"LABEL=package /mnt/package ext4 ro,nofail 0 0\n" +
	"LABEL=repository /mnt/repository ext4 ro,nofail 0 0\n" +
	"# two tabs, a blank at the end, an escape\n" +
	"/var/swap\\040file\tnone\t\tswap\tsw,nofail 0 0 \n" +
	"tmpfs /mnt tmpfs noauto,size=1m 0 0\r\n" +
	"\n# no line end"

// addSwapZoo: the image has its partition already, the disk will have its own. It returns the
// image's fstab.
func addSwapZoo(ctx context.Context, t *testing.T, tree string) string {
	t.Helper()
	makeSwap(ctx, t, filepath.Join(tree, "var/swap file"), 64)
	path := filepath.Join(tree, "etc/fstab")
	fstab, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fstab = append(fstab, zooFstab...)
	if err := os.WriteFile(path, fstab, 0o644); err != nil {
		t.Fatal(err)
	}
	return string(fstab)
}

func cloudInitIsDone(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, "cloud-init status --wait --long >&2; jq -e '.v1.errors == []' /run/cloud-init/result.json; findmnt /mnt/package; nodeagent config check")
	// What the kernel has had as swap since it booted.
	for _, area := range []string{"/dev/vdb1", `/var/swap file`, "/dev/zram0"} {
		v.MustRun(ctx, t, `dmesg | grep -E "Adding [0-9]+k swap on `+area+`\."`)
	}
}

func onDebiansContainerd(ctx context.Context, t *testing.T, v *vm.VM) {
	v.MustRun(ctx, t, `
		[ "$(dpkg-query -W -f '${Version} ' kubelet kubeadm kubectl)" = "1.36.3-1.1 1.36.3-1.1 1.36.3-1.1 " ]
		[ "$(dpkg-query -W -f '${db:Status-Status}' containerd)" = installed ]
		containerd --version | grep >/dev/null ' 1\.6\.'
		containerd config dump | grep >/dev/null 'SystemdCgroup = true'
		containerd config dump | grep >/dev/null 'sandbox_image = "registry.k8s.io/pause:3.10.2"'
		containerd config dump | grep >/dev/null 'bin_dir = "/opt/cni/bin"'
		kubectl get node node1 -o wide | grep >/dev/null 'containerd://1\.6\.'`)
}

func zooIsOff(ctx context.Context, t *testing.T, v *vm.VM, fstab string) {
	t.Helper()
	swapIsOff(ctx, t, v)
	// Without its mask, systemd's generator would have the disk's own partition back.
	v.MustRun(ctx, t, `
		mkdir -p /run/generated
		/usr/lib/systemd/system-generators/systemd-gpt-auto-generator /run/generated /run/generated /run/generated
		ls /run/generated/dev-vda2.swap
		[ "$(systemctl is-enabled dev-vda2.swap)" = masked ]
		rm -r /run/generated`)
	const mark = "# swap off by nodeagent: "
	now := v.MustRun(ctx, t, "cat /etc/fstab; echo .")
	if n := strings.Count(now, "\n"+mark); n != 2 || strings.ReplaceAll(now, mark, "") != fstab+"." {
		t.Errorf("fstab, with %d lines commented out:\n%q\nwas\n%q", n, now, fstab)
	}
	if kept := v.MustRun(ctx, t, "cat /var/lib/nodeagent/originals/etc/fstab*; echo ."); kept != fstab+"." {
		t.Errorf("the kept fstab:\n%q\nwant\n%q", kept, fstab)
	}
}

func zooStaysOff(ctx context.Context, t *testing.T, v *vm.VM, fstab string) {
	t.Helper()
	if err := v.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	v.MustRun(ctx, t, `not grep -E "Adding [0-9]+k swap on" <(dmesg)`)
	v.Eventually(ctx, t, 10*time.Minute, ready)
	zooIsOff(ctx, t, v, fstab)
	v.Eventually(ctx, t, 4*time.Minute, `nodeagent plan | grep >/dev/null "nothing to change"`)
}
