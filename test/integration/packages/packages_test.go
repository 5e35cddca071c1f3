//go:build integration

package packages_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/lab"
)

func TestPackages(t *testing.T) {
	b := buildAll(t)
	for name, test := range map[string]func(*testing.T, node){
		"file, newest, the distribution's containerd": fromDirectory,
		"containerd first, for archives of images":    containerdFirst,
		"lists are read once for both steps":          listsReadOnce,
		"https, a patch, key fetched":                 overHTTPS,
		"a newer patch comes":                         stays,
		"another repository has other versions":       pinned,
		"the operator's own source":                   ownSource,
		"the operator's own containerd.io":            ownContainerd,
		"somebody holds the lock":                     locked,
		"killed while unpacking":                      killedIn("preinst"),
		"killed while configuring":                    killedIn("postinst"),
		"the agent is killed, apt goes on":            adopted,
		"somebody else's half-configured package":     others,
		"a wrong key":                                 wrongKey,
		"a version that is not there":                 missingVersion,
		"a package that is cut off":                   truncatedPackage,
		"an index that is cut off":                    truncatedIndex,
		"a connection that is cut off":                cutConnection,
		"no way to the repository":                    noWay,
		"a full disk for apt":                         fullCache,
		"a full disk for dpkg":                        fullDisk,
		"a read-only /etc":                            readOnly,
	} {
		t.Run(name, func(t *testing.T) { test(t, b.node(t)) })
	}
}

// A fresh host: all is installed and held, and runs.
func fromDirectory(t *testing.T, n node) {
	n.configure(t, fromFile(labDir+"/kubernetes"))
	plan, _ := n.TryScript("nodeagent plan --only packages")
	for _, word := range []string{"package kubelet", "+ 1.36, the newest patch that the repository has", "package containerd"} {
		if !strings.Contains(plan, word) {
			t.Errorf("plan does not say %q:\n%s", word, plan)
		}
	}
	n.apply(t)
	version := strings.TrimPrefix(lab.KubernetesVersion, "v")
	n.wantVersion(t, version+"-1.1")
	held := "containerd\ncri-tools\nkubeadm\nkubectl\nkubelet\nkubernetes-cni\n"
	if out := n.Script(t, "apt-mark showhold"); out != held {
		t.Errorf("held are %q", out)
	}
	if out := n.Script(t, "kubeadm version -o short; kubelet --version; containerd --version; ls /opt/cni/bin/bridge"); !strings.Contains(out, lab.KubernetesVersion) {
		t.Errorf("they say %s", out)
	}
	// kubelet waits for kubeadm, and apt's own files are everybody's to read.
	n.Script(t, "systemctl is-active containerd; ! systemctl is-active kubelet; ! systemctl is-failed kubelet; apt-get -s -q upgrade")
	if out := n.Script(t, "stat -c %a "+log+" /var/lib/dpkg/status /var/log/apt/history.log /var/cache/apt/pkgcache.bin"); out != "600\n644\n644\n644\n" {
		t.Errorf("modes are %q", out)
	}
	if out := n.Script(t, "apt-get -s -q dist-upgrade; ls /var/cache/apt/archives/*.deb 2>/dev/null || true"); !strings.Contains(out, "0 upgraded, 0 newly installed, 0 to remove") || strings.Contains(out, ".deb") {
		t.Errorf("afterwards: %s", out)
	}
	before := n.Script(t, "sha256sum /var/lib/dpkg/status; wc -c "+log)
	n.apply(t)
	if after := n.Script(t, "sha256sum /var/lib/dpkg/status; wc -c "+log); after != before {
		t.Errorf("a second apply did something: %s%s", before, after)
	}
}

// Where there are images to import, containerd comes in a run of its own, and every list is read once.
func containerdFirst(t *testing.T, n node) {
	n.Write(t, configPath, []byte("role: worker\npackages: {"+fromFile(labDir+"/kubernetes")+"}\nimages: {archives: [/srv/images.tar]}\n"), 0o600)
	n.Script(t, "nodeagent apply --only packages/repository,packages/containerd")
	n.Script(t, "systemctl is-active containerd; ! test -e /usr/bin/kubelet; test ! -e "+note)
	out := n.apply(t)
	n.wantVersion(t, strings.TrimPrefix(lab.KubernetesVersion, "v")+"-1.1")
	if held := n.Script(t, "apt-mark showhold"); held != "containerd\ncri-tools\nkubeadm\nkubectl\nkubelet\nkubernetes-cni\n" {
		t.Errorf("held are %q", held)
	}
	if strings.Contains(out, "package containerd:") || n.installed(t, "containerd") != 1 || n.installed(t, "kubelet") != 1 {
		t.Errorf("installed twice, or told twice:\n%s", out)
	}
}

// In one run of the agent the lists that were read for containerd do for the rest.
func listsReadOnce(t *testing.T, n node) {
	n.Write(t, configPath, []byte("role: worker\npackages: {"+fromFile(labDir+"/kubernetes")+"}\nimages: {archives: [/srv/images.tar]}\n"), 0o600)
	n.apply(t)
	if installs := n.Script(t, "grep -c '^Commandline: .* install' /var/log/apt/history.log"); installs != "2\n" {
		t.Errorf("apt installed %s times", strings.TrimSpace(installs))
	}
	// One update and two installs: each reads its lists once, and says so.
	if reads := n.Script(t, "grep -c '^Reading package lists' "+log); reads != "3\n" {
		t.Errorf("apt ran %s times:\n%s", strings.TrimSpace(reads), n.Script(t, "cat "+log))
	}
}

// A version that was open is resolved once.
func stays(t *testing.T, n node) {
	key := newKey(t)
	n.publish(t, key, append(small("1.36.2-1.1"), containerd())...)
	n.configure(t, fromFile(testDir))
	n.apply(t)
	n.wantVersion(t, "1.36.2-1.1")
	n.publish(t, key, append(append(small("1.36.2-1.1"), small("1.36.4-1.1")...), containerd())...)
	n.apply(t)
	n.Script(t, "apt-get -q update; apt-get -q -y upgrade")
	n.wantVersion(t, "1.36.2-1.1")
	// A patch that is named is another matter, as long as the host is no member and it is not held.
	n.configure(t, `kubernetesVersion: "1.36.4", `+fromFile(testDir))
	if out := n.Script(t, "nodeagent apply --only packages 2>&1; nodeagent plan --only packages"); !strings.Contains(out, "apt-mark unhold kubelet") {
		t.Errorf("a hold is no finding:\n%s", out)
	}
	n.wantVersion(t, "1.36.2-1.1")
	n.Script(t, "apt-mark unhold kubelet kubeadm kubectl")
	n.apply(t)
	n.wantVersion(t, "1.36.4-1.1")
	n.Script(t, "apt-mark unhold kubelet kubeadm kubectl")
	n.configure(t, `kubernetesVersion: "1.36.2", `+fromFile(testDir))
	n.Write(t, "/etc/kubernetes/kubelet.conf", []byte("a member\n"), 0o600)
	if out := n.Script(t, apply+"; nodeagent plan --only packages"); !strings.Contains(out, "another patch of a member of a cluster is an upgrade") {
		t.Errorf("a member's version is no finding:\n%s", out)
	}
	n.wantVersion(t, "1.36.4-1.1")
}

// Another source has a later minor, a later patch and a later cri-tools. None of them is taken,
// and for the pin another minor and another source's cri-tools are no candidates.
func pinned(t *testing.T, n node) {
	key := newKey(t)
	n.publish(t, key, append(append(small("1.36.2-1.1"), small("1.37.0-1.1")...), containerd())...)
	other := t.TempDir()
	cri := lab.Deb{Name: "cri-tools", Version: "9.0", Description: "another's", Fields: "Maintainer: nobody <nobody@nodeagent.invalid>\n"}
	if err := lab.WriteRepository(t.Context(), other, pack(t, append(append(small("1.36.9-1"), small("1.38.0-1")...), cri)...), newKey(t)); err != nil {
		t.Fatal(err)
	}
	serve(t, n, other)
	n.CopyIn(t, other+"/Release.key", "/etc/apt/keyrings/other.asc")
	n.Script(t, `echo "deb [signed-by=/etc/apt/keyrings/other.asc] `+serverURL+` /" >/etc/apt/sources.list.d/other.list; apt-get -q update`)
	n.configure(t, fromFile(testDir))
	n.apply(t)
	n.wantVersion(t, "1.36.2-1.1")
	out := n.Script(t, "apt-get -q -y dist-upgrade; apt-cache policy kubelet cri-tools")
	n.wantVersion(t, "1.36.2-1.1")
	for _, word := range []string{"Candidate: (none)", "1.38.0-1 -1", "1.37.0-1.1 -1", "9.0 -1"} {
		if !strings.Contains(out, word) {
			t.Errorf("apt does not say %q:\n%s", word, out)
		}
	}
}

// A source that was there is used, and left byte for byte.
func ownSource(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	const source = "/etc/apt/sources.list.d/kubernetes.list"
	n.Script(t, "cp "+testDir+"/Release.key /etc/apt/keyrings/mine.asc")
	n.Write(t, source, []byte("# mine\ndeb [signed-by=/etc/apt/keyrings/mine.asc] file:"+testDir+" /\n"), 0o640)
	before := n.Script(t, "sha256sum "+source+"; stat -c '%a %Y' "+source)
	n.configure(t, fromFile(testDir))
	n.apply(t)
	n.wantVersion(t, "1.36.2-1.1")
	if after := n.Script(t, "sha256sum "+source+"; stat -c '%a %Y' "+source); after != before {
		t.Errorf("%s was %s, is %s", source, before, after)
	}
	n.Script(t, "test ! -e /etc/apt/sources.list.d/nodeagent-kubernetes.sources; test ! -e /etc/apt/keyrings/nodeagent-kubernetes.asc; apt-get -q update")
}

// containerd.io was there, and containerd is not put in its place.
func ownContainerd(t *testing.T, n node) {
	n.Script(t, "apt-get -q update; apt-get -q -y install containerd.io; apt-mark hold containerd.io")
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	n.configure(t, fromFile(testDir))
	n.apply(t)
	if out := n.Script(t, "apt-mark showhold"); out != "containerd.io\nkubeadm\nkubectl\nkubelet\n" {
		t.Errorf("held are %q", out)
	}
	n.configure(t, `containerd: containerd, `+fromFile(testDir))
	if out := n.Script(t, apply+"; nodeagent plan --only packages"); !strings.Contains(out, "containerd.io is installed") {
		t.Errorf("it does not say that another containerd is there:\n%s", out)
	}
	n.Script(t, "systemctl is-active containerd; dpkg -s containerd.io >/dev/null")
}
