//go:build integration

package deb_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/nspawn"
)

// sandbox is a shell in a copy of the package's unit: what the unit lets the daemon do, and its
// children, the shell can do, and it was started before any of the directories was there.
type sandbox struct {
	node
	jobs int
}

const sandboxUnit = `sed -e 's,^ExecStart=.*,ExecStart=/bin/sh /srv/sandbox/loop,' -e 's/^Type=.*/Type=exec/' -e 's/^Restart=.*/Restart=no/' \
	-e '/^WatchdogSec=/d' -e '/^ExecReload=/d' -e '/^StateDirectory/d' -e '/^RuntimeDirectory/d' \
	/usr/lib/systemd/system/nodeagent.service >/run/systemd/system/nodeagent-sandbox.service
mkfifo /srv/sandbox/jobs
systemctl daemon-reload
systemctl start nodeagent-sandbox`

const sandboxLoop = `cd /srv/sandbox
while :; do
	read -r job <jobs || continue # a writer that had not yet gone
	/bin/sh -eu $job </dev/null >$job.out 2>&1 && code=0 || code=$?
	echo $code >$job.new && mv $job.new $job.code
done
`

func newSandbox(t *testing.T, n node) *sandbox {
	n.Write(t, "/srv/sandbox/loop", []byte(sandboxLoop), 0o644)
	n.Script(t, sandboxUnit)
	return &sandbox{node: n}
}

// try runs a script inside and returns what it printed and how it ended.
func (s *sandbox) try(t *testing.T, script string) (out string, code string) {
	t.Helper()
	s.jobs++
	job := fmt.Sprintf("/srv/sandbox/%d", s.jobs)
	s.Write(t, job, []byte(script+"\n"), 0o644)
	s.Script(t, "timeout 30 sh -c 'echo "+job+" >/srv/sandbox/jobs'")
	code = s.Wait(t, nspawn.ScriptTimeout, "cat "+job+".code")
	return s.Script(t, "cat "+job+".out"), strings.TrimSpace(code)
}

func (s *sandbox) run(t *testing.T, script string) string {
	t.Helper()
	out, code := s.try(t, script)
	if code != "0" {
		t.Fatalf("inside the unit's sandbox this ends with %s: %s\n%s", code, script, out)
	}
	return out
}

// sandboxConfig leaves out what a container cannot have, a loaded module among it, only by not
// naming it to apply: plan looks at everything.
const sandboxConfig = `role: control-plane
node: {address: 10.77.0.1}
network: {cni: bridge}
packages: {repository: {url: "file://` + labDir + `/kubernetes"}}
images: {archives: [/srv/image/image.tar]}
kernel: {sysctls: [{name: net.ipv4.tcp_fin_timeout, value: "61"}]}
`

const agent = "nodeagent --config /srv/config.yaml "

// The hardened unit does what the daemon does: whatever is absent when it starts can be written
// later, and its work on the host, over D-Bus and through containerd is done from inside. What
// it runs for long has nothing of the sandbox, and outlives an upgrade of the package.
func hardened(t *testing.T, n node) {
	n.Script(t, prepareSandboxed)
	n.Write(t, "/srv/config.yaml", []byte(sandboxConfig), 0o600)
	n.apt(t, "install /srv/old.deb")
	n.score(t)
	n.limits(t)
	n.Script(t, "! ls -d /etc/kubernetes /var/lib/etcd /etc/cni 2>/dev/null")
	s := newSandbox(t, n)

	s.writes(t)
	s.child(t)
	for _, steps := range []string{"kernel/swap", "kernel/sysctl", "containerd", "images"} {
		s.run(t, agent+"apply --only "+steps)
		s.run(t, agent+"plan --only "+steps)
	}
	n.Script(t, `test "$(cat /proc/sys/net/ipv4/ip_forward) $(cat /proc/sys/net/ipv4/tcp_fin_timeout)" = "1 61"
		test "$(systemctl is-enabled srv-native.swap)" != enabled; systemctl is-active containerd; ctr -n k8s.io images ls -q | grep -Fx image.invalid/one:1`)
	s.sameMachine(t)
	s.shut(t)
}

// prepareSandboxed has swap that somebody set up (none is on, and the host's is not shown), an
// image archive, and only the lab's repositories, whose lists take until /srv/go-on is there.
const prepareSandboxed = `
printf 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' >/srv/swaps
mount --bind /srv/swaps /proc/swaps
printf '# by hand\n[Swap]\nWhat=/srv/native\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/srv-native.swap
systemctl enable --quiet srv-native.swap
echo 0 >/proc/sys/net/ipv4/ip_forward
ip address add 10.77.0.1/32 dev lo
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
install -D -m 644 ` + labDir + `/debian/Release.key /etc/apt/keyrings/lab-debian.asc
echo "deb [signed-by=/etc/apt/keyrings/lab-debian.asc] file:` + labDir + `/debian /" >/etc/apt/sources.list.d/lab-debian.list
echo 'APT::Update::Pre-Invoke { "touch /srv/updating; until test -e /srv/go-on; do sleep 0.1; done"; };' >/etc/apt/apt.conf.d/99slow
mkdir /srv/image && cd /srv/image
echo one >file && tar -cf layer.tar file
echo "{\"architecture\":\"$(dpkg --print-architecture)\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$(sha256sum <layer.tar | cut -c-64)\"]}}" >config.json
echo '[{"Config":"config.json","RepoTags":["image.invalid/one:1"],"Layers":["layer.tar"]}]' >manifest.json
tar -cf image.tar manifest.json config.json layer.tar
`

// score fails above 5.5 by the rules of systemd 252, which the container has.
func (n node) score(t *testing.T) {
	t.Helper()
	const unit = "/usr/lib/systemd/system/nodeagent.service"
	if out := n.Script(t, "systemd-analyze --version"); !strings.HasPrefix(out, "systemd 252 ") {
		t.Errorf("the score is measured with %s", out)
	}
	out, err := n.TryScript("systemd-analyze security --offline=true --no-pager --threshold=55 " + unit)
	if err != nil || !strings.Contains(out, "Overall exposure level") {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// limits are those of the running daemon.
func (n node) limits(t *testing.T) {
	t.Helper()
	n.Wait(t, patience, `bash -c 'exec 3<>/dev/tcp/127.0.0.1/10980; printf "GET /healthz HTTP/1.0\r\n\r\n" >&3; head -n 1 <&3 | grep " 200 "'`)
	dir := "/proc/" + n.show(t, "MainPID")
	if out := n.Script(t, "grep -E '^(Seccomp|NoNewPrivs):' "+dir+"/status; grep 'core file' "+dir+"/limits"); strings.Join(strings.Fields(out), " ") !=
		"NoNewPrivs: 1 Seccomp: 2 Max core file size 0 0 bytes" {
		t.Errorf("of the daemon %s", out)
	}
	n.expect(t, "OOMPolicy=continue", "OOMScoreAdjust=-500") // a container's own may not be less than 0
	for _, limit := range []string{"MemoryHigh", "MemoryMax"} {
		if have := n.show(t, limit); have == "" || have == "infinity" || have == "0" {
			t.Errorf("%s is %q", limit, have)
		}
	}
}

// writes: directories that were absent are made inside, or outside, or mounted, and written
// inside; all is seen outside.
func (s *sandbox) writes(t *testing.T) {
	t.Helper()
	s.run(t, `for d in /etc/kubernetes/manifests /var/lib/etcd/member /etc/cni/net.d /opt/cni/bin /srv/backups /root/.kube; do
		mkdir -p $d; echo inside >$d/file; mv $d/file $d/renamed; chmod 600 $d/renamed; chown 12:34 $d/renamed; done
		chmod 644 /usr/lib/systemd/system/nodeagent.service # as node/files does with the kubelet's
		systemctl mask --quiet some.swap; systemctl daemon-reload`)
	s.Script(t, `cat /etc/kubernetes/manifests/renamed /var/lib/etcd/member/renamed /etc/cni/net.d/renamed /opt/cni/bin/renamed /srv/backups/renamed /root/.kube/renamed
		test "$(readlink /etc/systemd/system/some.swap)" = /dev/null
		rm -r /etc/kubernetes /var/lib/etcd /etc/cni /opt/cni /root/.kube
		mkdir -p /etc/kubernetes/pki /var/lib/etcd
		systemd-run --quiet --wait mount -t tmpfs disk /var/lib/etcd`)
	s.run(t, "echo inside >/var/lib/etcd/file; echo inside >/etc/kubernetes/pki/file; touch /tmp/inside")
	s.Script(t, "cat /var/lib/etcd/file /etc/kubernetes/pki/file /tmp/inside; umount /var/lib/etcd; test ! -e /var/lib/etcd/file")
	s.run(t, "test ! -e /var/lib/etcd/file; rm -r /etc/kubernetes; ! grep ' /var/lib/etcd ' /proc/self/mountinfo")
}

// child: apt as the agent runs it, from inside, in the middle of its work when the package is
// upgraded.
func (s *sandbox) child(t *testing.T) {
	t.Helper()
	s.run(t, "("+agent+"apply --only packages >/srv/apply.log 2>&1; echo $? >/srv/apply.code) &")
	s.Wait(t, nspawn.ScriptTimeout, "ls /srv/updating || { cat /srv/apply.log; systemctl status nodeagent-packages; ps axf | tail -20; exit 1; }")
	const show = "systemctl show -p ActiveState,SubState,MainPID nodeagent-packages.service"
	before, daemon := s.Script(t, show), s.show(t, "MainPID")
	if out := s.Script(t, `pid=$(systemctl show --value -p MainPID nodeagent-packages.service)
		for p in 1 $pid; do grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/$p/status | tr '\n' ' '; readlink /proc/$p/ns/mnt; done | uniq | wc -l`); out != "1\n" {
		t.Errorf("a child in a transient unit has something of the sandbox:\n%s", s.Script(t, "cat /proc/1/status /proc/$(systemctl show --value -p MainPID nodeagent-packages.service)/status"))
	}
	s.apt(t, "install /srv/new.deb")
	if after := s.Script(t, show); after != before || !strings.Contains(after, "ActiveState=active\nSubState=running") {
		t.Errorf("apt's unit was\n%safter an upgrade of the package it is\n%s", before, after)
	}
	s.expect(t, "ActiveState=active")
	if s.show(t, "MainPID") == daemon {
		t.Error("the daemon was not restarted")
	}
	s.Script(t, "touch /srv/go-on")
	if code := s.Wait(t, nspawn.ScriptTimeout, "cat /srv/apply.code"); code != "0\n" {
		t.Fatalf("apply ends with %s%s", code, s.Script(t, "cat /srv/apply.log"))
	}
	s.Script(t, "kubeadm version -o short; systemctl is-active containerd")
}

// sameMachine: every step sees inside what it sees outside, clock, processes and ports included.
func (s *sandbox) sameMachine(t *testing.T) {
	t.Helper()
	s.Script(t, "systemctl stop nodeagent") // it has no configuration, and need not be in between
	s.Script(t, "systemd-run --quiet --unit=holder systemd-socket-activate --listen=10250 /bin/cat")
	s.Wait(t, patience, "grep -q ':280A ' /proc/net/tcp6") // 10250
	outside, err := s.TryScript(agent + "plan 2>&1")
	inside, _ := s.try(t, agent+"plan 2>&1")
	free := regexp.MustCompile(`[0-9]+ MiB of`) // others write to the disk as well
	if free.ReplaceAllString(outside, "") != free.ReplaceAllString(inside, "") || !strings.Contains(outside, "systemd-socket") {
		t.Errorf("outside (%v):\n%s\ninside:\n%s", err, outside, inside)
	}
}

// shut is what nobody inside can do. Outside each can be done, or it would show nothing.
func (s *sandbox) shut(t *testing.T) {
	t.Helper()
	for _, script := range []string{
		"mount -t tmpfs none /mnt && umount /mnt",
		"unshare --net true",
		"unshare --user true",
		"chroot / true",
		"setpriv --reuid 12 true",
		"mknod /srv/zero c 1 5",
		"chmod u+s /srv/swaps",
		"for d in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do ! mkdir $d/tried || exit 0; done; exit 1",
		"dmesg --syslog",
	} {
		if out, err := s.TryScript(script); err != nil {
			t.Errorf("outside this fails, and proves nothing: %s: %v\n%s", script, err, out)
		}
		s.Script(t, "rm -f /srv/zero; rmdir /sys/fs/cgroup/*/tried /sys/fs/cgroup/tried 2>/dev/null || true")
		if out, code := s.try(t, script); code == "0" {
			t.Errorf("inside this can be done: %s\n%s", script, out)
		}
	}
}
