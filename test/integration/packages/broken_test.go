//go:build integration

package packages_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/lab"
)

// hold is a maintainer script that waits for /srv/go, once it has said that it runs.
const hold = "mkdir -p /srv; : >/srv/began; while [ ! -e /srv/go ]; do sleep 0.1; done\n"

// locked has somebody else's dpkg at work while the agent wants to be: it names and waits for it.
func locked(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	slow := pack(t, lab.Deb{Name: "slow", Version: "1", Description: "slow", Fields: "Maintainer: nobody <nobody@nodeagent.invalid>\n", Scripts: map[string]string{"postinst": hold}})
	n.CopyIn(t, slow[0], "/srv/slow.deb")
	n.Script(t, "systemd-run --unit=other dpkg -i /srv/slow.deb")
	n.Wait(t, patience, "test -e /srv/began")
	n.configure(t, fromFile(testDir))
	plan, _ := n.TryScript("nodeagent plan --only packages")
	if !strings.Contains(plan, "/var/lib/dpkg/lock-frontend is held by dpkg, process ") {
		t.Errorf("plan does not name who holds the lock:\n%s", plan)
	}
	n.Script(t, "systemd-run --unit=agent nodeagent apply --only packages")
	n.Wait(t, patience, "journalctl -u agent | grep -F 'packages: applying'")
	n.Script(t, "systemctl is-active agent; test ! -e "+log+"; touch /srv/go")
	n.Wait(t, patience, "! systemctl is-active agent")
	n.Script(t, "! systemctl is-failed agent")
	n.clean(t)
	n.wantVersion(t, "1.36.2-1.1")
}

// killedIn kills dpkg, apt and the agent while a script of kubelet runs, as a power cut would.
func killedIn(script string) func(*testing.T, node) {
	return func(t *testing.T, n node) {
		debs := append(small("1.36.2-1.1"), containerd())
		debs[0].Scripts = map[string]string{script: hold}
		n.publish(t, newKey(t), debs...)
		n.configure(t, fromFile(testDir))
		n.Script(t, "systemd-run --unit=agent nodeagent apply --only packages")
		n.Wait(t, patience, "test -e /srv/began")
		n.Script(t, "systemctl kill -s KILL agent; systemctl kill -s KILL nodeagent-packages")
		n.Wait(t, patience, "! systemctl is-active nodeagent-packages && ! systemctl is-active agent")
		if out := n.Script(t, "dpkg --audit; dpkg-query -W -f '${Status}' kubelet"); !strings.Contains(out, "half-") {
			t.Errorf("dpkg was not interrupted: %s", out)
		}
		n.Script(t, "test -e "+note)
		plan, _ := n.TryScript("nodeagent plan --only packages")
		if !strings.Contains(plan, "was interrupted while the agent used it") {
			t.Errorf("plan does not tell of it:\n%s", plan)
		}
		n.Script(t, "touch /srv/go")
		n.apply(t)
		n.wantVersion(t, "1.36.2-1.1")
	}
}

// adopted kills the agent alone: apt goes on, the next agent waits for it, and nothing is
// installed twice.
func adopted(t *testing.T, n node) {
	debs := append(small("1.36.2-1.1"), containerd())
	debs[0].Scripts = map[string]string{"postinst": hold}
	n.publish(t, newKey(t), debs...)
	n.configure(t, fromFile(testDir))
	n.Script(t, "systemd-run --unit=agent nodeagent apply --only packages")
	n.Wait(t, patience, "test -e /srv/began")
	before := n.Script(t, "systemctl kill -s KILL agent; systemctl show -p MainPID -p ActiveState nodeagent-packages")
	n.Wait(t, patience, "! systemctl is-active agent")
	plan, _ := n.TryScript("nodeagent plan --only packages")
	if !strings.Contains(plan, "nodeagent-packages.service") {
		t.Errorf("plan does not tell that apt runs:\n%s", plan)
	}
	n.Script(t, "systemd-run --unit=second nodeagent apply --only packages")
	n.Wait(t, patience, "journalctl -u second | grep -F 'packages: applying'")
	if after := n.Script(t, "systemctl is-active second; systemctl show -p MainPID -p ActiveState nodeagent-packages"); after != "active\n"+before {
		t.Errorf("apt was %s, is %s", before, after)
	}
	n.Script(t, "touch /srv/go")
	n.Wait(t, patience, "! systemctl is-active second")
	n.Script(t, "! systemctl is-failed second")
	n.clean(t)
	n.wantVersion(t, "1.36.2-1.1")
	if times := n.installed(t, "kubelet"); times != 1 {
		t.Errorf("kubelet was unpacked %d times", times)
	}
}

// others is a package that somebody else left half-configured: nothing is run.
func others(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	bad := pack(t, lab.Deb{Name: "bad", Version: "1", Description: "bad", Fields: "Maintainer: nobody <nobody@nodeagent.invalid>\n", Scripts: map[string]string{"postinst": "test -e /srv/go\n"}})
	n.CopyIn(t, bad[0], "/srv/bad.deb")
	n.Script(t, "! dpkg -i /srv/bad.deb; dpkg-query -W -f '${Status}' bad | grep half-configured")
	n.configure(t, fromFile(testDir))
	before := n.Script(t, "sha256sum /var/lib/dpkg/status")
	n.refuse(t, "bad (half-configured)", "not by the agent's doing", "dpkg --configure -a")
	if after := n.Script(t, "sha256sum /var/lib/dpkg/status; test ! -e "+log); after != before {
		t.Error("something was run")
	}
	n.Script(t, "touch /srv/go; dpkg --configure -a")
	n.apply(t)
}

func wrongKey(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	n.Write(t, "/root/key.asc", newKey(t).Public, 0o644)
	n.configure(t, `repository: {url: "file://`+testDir+`", keyFile: /root/key.asc}`)
	n.refuse(t, "NO_PUBKEY", "check packages.repository.keyFile", log)
	n.Script(t, "test ! -e "+note+"; cp "+testDir+"/Release.key /root/key.asc")
	n.apply(t)
}

func missingVersion(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	n.configure(t, `kubernetesVersion: "1.36.9", `+fromFile(testDir))
	n.refuse(t, "no 1.36.9 of kubelet, kubeadm, kubectl in the repository; it has kubelet: 1.36.2-1.1", "packages.kubernetesVersion")
}

func truncatedPackage(t *testing.T, n node) {
	key := newKey(t)
	n.publish(t, key, append(small("1.36.2-1.1"), containerd())...)
	n.edit(t, "amd64/kubelet_1.36.2-1.1_amd64.deb", func(deb []byte) []byte { return deb[:len(deb)/2] })
	n.configure(t, fromFile(testDir))
	n.refuse(t, "E: ", "kubelet_1.36.2-1.1_amd64.deb", "the repository is incomplete")
	n.Script(t, "test ! -e "+note)
	n.publish(t, key, append(small("1.36.2-1.1"), containerd())...)
	n.apply(t)
}

func truncatedIndex(t *testing.T, n node) {
	key := newKey(t)
	n.publish(t, key, append(small("1.36.2-1.1"), containerd())...)
	half := func(data []byte) []byte { return data[:len(data)/2] }
	n.edit(t, "Packages", half)
	n.edit(t, "Packages.gz", half)
	n.configure(t, fromFile(testDir))
	n.refuse(t, "E: ", "the repository is incomplete")
	n.publish(t, key, append(small("1.36.2-1.1"), containerd())...)
	n.edit(t, "InRelease", half)
	n.refuse(t, "E: ", log)
	n.edit(t, "InRelease", func([]byte) []byte { return nil })
	n.refuse(t, "E: ", log)
	n.publish(t, key, append(small("1.36.2-1.1"), containerd())...)
	n.apply(t)
}

func fullCache(t *testing.T, n node) {
	big := small("1.36.2-1.1")
	big[0].Files = append(big[0].Files, lab.DebFile{Path: "/opt/big/file", Content: noise(8 << 20)})
	serve(t, n, n.own)
	n.publish(t, newKey(t), append(big, containerd())...)
	n.configure(t, overTLS)
	n.Script(t, "mount -t tmpfs -o size=2m tmpfs /var/cache/apt/archives")
	n.refuse(t, "E: ", "the disk is full")
	n.Script(t, "test ! -e "+note+"; umount /var/cache/apt/archives")
	n.apply(t)
}

func fullDisk(t *testing.T, n node) {
	big := small("1.36.2-1.1")
	big[0].Files = append(big[0].Files, lab.DebFile{Path: "/opt/big/file", Content: noise(8 << 20)})
	n.publish(t, newKey(t), append(big, containerd())...)
	n.configure(t, fromFile(testDir))
	n.Script(t, "mkdir -p /opt/big; mount -t tmpfs -o size=2m tmpfs /opt/big")
	out, _ := n.TryScript(apply)
	if !strings.Contains(out, "No space left") || !strings.Contains(out, "the disk is full") {
		t.Errorf("it says\n%s", out)
	}
	n.Script(t, "umount /opt/big")
	n.apply(t)
}

func readOnly(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	n.configure(t, fromFile(testDir))
	n.Script(t, "mount --bind /etc /etc; mount -o remount,bind,ro /etc")
	n.refuse(t, "packages/repository", "read-only file system")
	n.Script(t, "umount /etc")
	n.apply(t)
}

// noise does not compress.
func noise(size int) string {
	data, state := make([]byte, size), uint32(1)
	for i := range data {
		state = state*1664525 + 1013904223
		data[i] = byte(state >> 24)
	}
	return string(data)
}
