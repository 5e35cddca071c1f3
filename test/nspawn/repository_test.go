//go:build integration

package nspawn

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
)

// TestRepository: a real apt takes the lab's repositories, all that is in them can be installed
// without another one, and it refuses each broken variant for the reason it was broken for.
func TestRepository(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	variants := t.TempDir()
	writeVariants(t, ctx, repository, variants)
	m := Up(t, filepath.Join(rootfs, "rootfs"), Bind{repository, "/srv/repository"}, Bind{variants, "/srv/variants"})
	m.Script(t, "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*")
	use := func(name string) { // one variant, as if it were signed by the key of the real one
		m.Script(t, "install -D -m 644 /srv/repository/kubernetes/Release.key /etc/apt/keyrings/lab.asc; "+
			"echo 'deb [signed-by=/etc/apt/keyrings/lab.asc] file:/srv/variants/"+name+" /' >/etc/apt/sources.list.d/lab.list")
	}

	for name, want := range map[string]string{
		"other-key":     "NO_PUBKEY",
		"cut-packages":  "Hash Sum mismatch",
		"not-signed":    "is not signed",
		"cut-inrelease": "into data and signature failed",
	} {
		use(name)
		out, err := m.TryScript("rm -rf /var/lib/apt/lists; apt-get -q update 2>&1")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: apt-get update says %v, want %q:\n%s", name, err, want, out)
		}
	}
	use("cut-deb")
	out, err := m.TryScript("rm -rf /var/lib/apt/lists; apt-get -q update 2>&1; apt-get -q -y install kubectl 2>&1")
	if err == nil || !strings.Contains(out, "Hash Sum mismatch") {
		t.Errorf("a package cut off half-way: %v\n%s", err, out)
	}
	use("older")
	if out := m.Script(t, "apt-get -q update >/dev/null; apt-cache madison kubectl | awk '{print $3}'"); out != "1.36.2-1.1\n" {
		t.Errorf("the repository without a version has %q", out)
	}

	m.Script(t, lab.UseRepositories("/srv/repository"))
	if out := m.Script(t, "apt-cache policy kubelet"); !strings.Contains(out, "Candidate: 1.36.3-1.1") || !strings.Contains(out, "1.36.2-1.1") {
		t.Errorf("versions of the kubelet:\n%s", out)
	}
	const install = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "
	m.Script(t, install+"kubelet=1.36.2-1.1 kubeadm=1.36.2-1.1 kubectl=1.36.2-1.1 cri-tools containerd.io </dev/null 2>&1")
	for script, want := range map[string]string{
		"systemctl is-enabled kubelet containerd":                                  "enabled\nenabled\n",
		"systemctl is-active kubelet || true":                                      "inactive\n",
		"kubeadm version -o short; kubelet --version":                              "v1.36.3\nKubernetes v1.36.3\n",
		"cat /etc/default/kubelet":                                                 "KUBELET_EXTRA_ARGS=\n",
		"test -x /opt/cni/bin/bridge && test ! -e /usr/lib/cni":                    "",
		"systemctl show -P DropInPaths kubelet":                                    "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf\n",
		"dpkg -S /usr/bin/containerd /usr/bin/runc | sort":                         "containerd.io: /usr/bin/containerd\ncontainerd.io: /usr/bin/runc\n",
		"containerd --version | cut -d' ' -f3":                                     "v2.4.2\n",
		"systemctl is-active containerd":                                           "active\n",
		"crictl --version":                                                         "crictl version " + strings.TrimPrefix(lab.CRIToolsVersion, "v") + "\n",
		"crictl version 2>&1 | grep -o 'unknown service [^ \"]*'":                  "unknown service runtime.v1.RuntimeService\n", // CRI is off
		"ctr version 2>/dev/null | grep -A1 Server: | tail -1 | tr -d ' '":         "Version:v2.4.2\n",
		"apt-get -q -s upgrade | grep '^Inst kubelet' | wc -l":                     "1\n",
		"dpkg --verify kubelet kubeadm containerd.io cri-tools":                    "",
		"dpkg-query -W -f '${Conffiles}\\n' containerd.io kubelet | cut -d' ' -f2": "/etc/containerd/config.toml\n/etc/default/kubelet\n",
	} {
		if out, err := m.TryScript(script); err != nil || out != want {
			t.Errorf("%s: got %q, want %q, %v", script, out, want, err)
		}
	}
	m.Script(t, "sed -i 's/disabled_plugins = .*/disabled_plugins = []/' /etc/containerd/config.toml; systemctl restart containerd")
	m.Wait(t, 30*time.Second, "crictl version | grep -x 'RuntimeVersion:  v2.4.2'; crictl info | jq -e .status.conditions")
	// Debian's containerd and Docker's exclude each other, and their conffile is the same.
	m.Script(t, install+"-o Dpkg::Options::=--force-confold containerd runc containerd.io- containernetworking-plugins </dev/null 2>&1")
	m.Wait(t, 30*time.Second, "ctr version 2>/dev/null | grep -x '  Version:  1.6.20.*'")
	// Installed these would make swap, and swap is the host's.
	m.Script(t, "apt-get -q -s install systemd-zram-generator zram-tools dphys-swapfile")
}

// writeVariants makes the broken repositories that tests of package managers want.
func writeVariants(t *testing.T, ctx context.Context, repository, dir string) {
	t.Helper()
	good, err := lab.RepositoryKey(repository, "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	other, err := lab.NewKey(ctx)
	if err != nil {
		t.Fatal(err)
	}
	kubectl := filepath.Join(repository, "kubernetes/amd64/kubectl_1.36.2-1.1_amd64.deb")
	for name, spoil := range map[string]func(dir string){
		"older":         func(string) {},
		"other-key":     func(string) {},
		"cut-packages":  func(dir string) { cut(t, dir, "Packages"); cut(t, dir, "Packages.gz") },
		"not-signed":    func(dir string) { remove(t, dir, "InRelease"); remove(t, dir, "Release.gpg") },
		"cut-inrelease": func(dir string) { cut(t, dir, "InRelease") },
		"cut-deb":       func(dir string) { cut(t, dir, "amd64/kubectl_1.36.2-1.1_amd64.deb") },
	} {
		key := good
		if name == "other-key" {
			key = other
		}
		if err := lab.WriteRepository(ctx, filepath.Join(dir, name), []string{kubectl}, key); err != nil {
			t.Fatal(err)
		}
		spoil(filepath.Join(dir, name))
	}
}

// cut leaves the first half of a file.
func cut(t *testing.T, dir, name string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size / 2); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
