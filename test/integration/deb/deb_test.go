//go:build integration

// Package deb_test installs, upgrades, removes and purges the package under a live systemd.
package deb_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/nspawn"
)

// config is one that the container cannot fulfil: it must not matter to the package.
const config = `# written by cloud-init
role: control-plane
network: {cni: bridge}
`

const (
	configPath = "/etc/nodeagent/config.yaml"
	dropIn     = "/etc/systemd/system/nodeagent.service.d/mine.conf"
	patience   = 30 * time.Second

	// The lab's repositories and programs, as the machine sees them.
	labDir        = "/srv/lab"
	kubernetesDir = "/srv/kubernetes"
)

func TestPackage(t *testing.T) {
	b := buildAll(t)
	t.Run("reproducible", func(t *testing.T) { reproducible(t, b) })
	t.Run("arm64", func(t *testing.T) { onArm64(t, b) })
	t.Run("lintian", func(t *testing.T) { lintian(t, b) })
	for name, test := range map[string]func(*testing.T, node){
		"install without configuration":         installIdle,
		"install with a configuration before":   installConfigured,
		"installed as the guide says":           byTheGuide,
		"installed as the README says":          byTheReadme,
		"installed by Ansible":                  func(t *testing.T, n node) { byAnsible(t, n, b.new) },
		"install with a broken configuration":   installBroken,
		"upgrade and downgrade":                 upgrade,
		"disable survives an upgrade":           disabled,
		"edits survive":                         edited,
		"remove and install again":              reinstall,
		"a credential of the unit":              credential,
		"the hardened unit":                     hardened,
		"a running kubeadm survives an upgrade": kubeadmSurvives,
		"purge keeps what is not ours":          purge,
		"purge of an idle agent leaves nothing": purgeIdle,
	} {
		t.Run(name, func(t *testing.T) {
			n := node{nspawn.Up(t, b.rootfs,
				nspawn.Bind{Source: b.repository, Target: labDir}, nspawn.Bind{Source: b.kubernetes, Target: kubernetesDir})}
			n.CopyIn(t, b.old, "/srv/old.deb")
			n.CopyIn(t, b.new, "/srv/new.deb")
			// The unit wants network-online.target, and here is no network to wait for.
			n.Script(t, "systemctl mask --runtime systemd-networkd-wait-online.service")
			test(t, n)
		})
	}
}

// node is a machine with both packages in /srv.
type node struct{ *nspawn.Machine }

// apt runs apt-get as a script or Ansible would: with nobody to answer.
func (n node) apt(t *testing.T, args string) string {
	t.Helper()
	return n.Script(t, "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "+args+" </dev/null 2>&1")
}

// show is a property of the unit.
func (n node) show(t *testing.T, property string) string {
	t.Helper()
	return strings.TrimSpace(n.Script(t, "systemctl show --value -p "+property+" nodeagent.service"))
}

// expect checks properties of the unit: "ActiveState=active".
func (n node) expect(t *testing.T, properties ...string) {
	t.Helper()
	for _, p := range properties {
		property, want, _ := strings.Cut(p, "=")
		if got := n.show(t, property); got != want {
			t.Errorf("%s of the unit is %q, want %q\n%s", property, got, want, n.Script(t, "journalctl -u nodeagent --no-pager | tail -20"))
		}
	}
}

// working waits until the daemon does what its configuration says, or fails at it.
func (n node) working(t *testing.T) {
	t.Helper()
	n.Wait(t, patience, `systemctl show --value -p StatusText nodeagent | grep -E '^(step|bootstrap|running)'`)
}

func (n node) configure(t *testing.T) {
	t.Helper()
	n.Write(t, configPath, []byte(config), 0o600)
}

func (n node) expectConfig(t *testing.T) {
	t.Helper()
	if got := n.Script(t, "cat "+configPath); got != config {
		t.Errorf("the configuration became %q", got)
	}
	if left := n.Script(t, "ls -A /etc/nodeagent"); left != "config.yaml\n" {
		t.Errorf("/etc/nodeagent holds %q", left)
	}
}

// Nothing is configured: the daemon runs, says that it idles, and changes nothing.
func installIdle(t *testing.T, n node) {
	n.Script(t, "touch /srv/before")
	out := n.apt(t, "install /srv/new.deb")
	if !strings.Contains(out, configPath) {
		t.Errorf("the installation does not say which file is missing:\n%s", out)
	}
	n.expect(t, "ActiveState=active", "UnitFileState=enabled", "NRestarts=0")
	n.Wait(t, patience, "systemctl show -p StatusText nodeagent | grep -F 'idle: no configuration at "+configPath+"'")
	n.Wait(t, patience, "journalctl -u nodeagent | grep -F 'idle: there is no configuration'")
	if out := n.Script(t, "systemd-analyze verify --man=no nodeagent.service 2>&1"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	if out := n.Script(t, "nodeagent version"); !strings.Contains(out, newVersion) {
		t.Errorf("version is %q, want %s", out, newVersion)
	}
	if out := n.Script(t, "stat -c '%a %U' /etc/nodeagent /var/lib/nodeagent /run/nodeagent"); out != "750 root\n700 root\n750 root\n" {
		t.Errorf("modes of /etc, /var/lib and /run/nodeagent are\n%s", out)
	}
	changed := n.Script(t, "find /etc /boot /usr/local /var/lib/containerd -newer /srv/before ! -type d")
	if changed != "/etc/systemd/system/multi-user.target.wants/nodeagent.service\n" {
		t.Errorf("without a configuration these changed:\n%s", changed)
	}

	// A configuration written later is taken up by a reload, by the same process.
	pid := n.show(t, "MainPID")
	n.configure(t)
	n.Script(t, "systemctl reload nodeagent")
	n.working(t)
	n.expect(t, "MainPID="+pid, "NRestarts=0")
}

// The configuration was there first, as cloud-init's write_files leaves it: no question asked.
func installConfigured(t *testing.T, n node) {
	n.configure(t)
	out := n.apt(t, "install /srv/new.deb")
	if strings.Contains(out, configPath) {
		t.Errorf("the installation complains about a configuration that is there:\n%s", out)
	}
	n.expect(t, "ActiveState=active", "UnitFileState=enabled")
	n.working(t)
	n.expectConfig(t)
}

// A mistake in the configuration leaves the package installed, is named in the journal, and is
// all there is to mend.
func installBroken(t *testing.T, n node) {
	n.Write(t, configPath, []byte("role: control-plane\nnetwrk: {}\n"), 0o600)
	out := n.apt(t, "install /srv/new.deb")
	if !strings.Contains(out, "journalctl -u nodeagent") {
		t.Errorf("the installation does not say where to look:\n%s", out)
	}
	n.Wait(t, patience, "journalctl -u nodeagent | grep -F netwrk")
	n.Script(t, "dpkg -s nodeagent | grep -Fx 'Status: install ok installed'")
	n.configure(t)
	n.Wait(t, patience, "systemctl is-active nodeagent")
	n.working(t)
}

// An upgrade restarts the daemon and nothing else.
func upgrade(t *testing.T, n node) {
	n.configure(t)
	n.apt(t, "install /srv/old.deb")
	n.working(t)
	n.Script(t, "systemd-run --unit=nodeagent-child.service sleep 1000") // as kubeadm runs
	pids := func() string {
		return n.Script(t, "systemctl show --value -p MainPID nodeagent-child containerd; pgrep containerd-shim || true")
	}
	others, daemon := pids(), n.show(t, "MainPID")
	for _, step := range []struct{ args, version string }{
		{"install /srv/new.deb", newVersion},
		{"install --allow-downgrades /srv/old.deb", oldVersion},
	} {
		n.apt(t, step.args)
		n.expect(t, "ActiveState=active", "UnitFileState=enabled")
		running := n.show(t, "MainPID")
		if running == daemon {
			t.Errorf("%s: the daemon was not restarted", step.args)
		}
		if out := n.Script(t, "/proc/"+running+"/exe version"); !strings.Contains(out, step.version) {
			t.Errorf("%s: the running daemon is %q", step.args, out)
		}
		daemon = running
	}
	if after := pids(); after != others {
		t.Errorf("other processes were %q and are %q", others, after)
	}
	n.working(t)
	n.expectConfig(t)
}

// Who disabled the unit does not find it enabled, or running, after an upgrade.
func disabled(t *testing.T, n node) {
	n.apt(t, "install /srv/old.deb")
	n.Script(t, "systemctl disable --now nodeagent.service")
	n.apt(t, "install /srv/new.deb")
	n.expect(t, "ActiveState=inactive", "UnitFileState=disabled")
	n.apt(t, "install --reinstall /srv/new.deb")
	n.expect(t, "ActiveState=inactive", "UnitFileState=disabled")
}

// What the operator has changed of the unit, by a drop-in and by masking, stays.
func edited(t *testing.T, n node) {
	n.Write(t, dropIn, []byte("[Service]\nNice=3\n"), 0o644)
	n.apt(t, "install /srv/old.deb")
	n.expect(t, "ActiveState=active", "Nice=3")
	for _, args := range []string{"install /srv/new.deb", "install --allow-downgrades /srv/old.deb", "remove nodeagent", "install /srv/new.deb"} {
		n.apt(t, args)
		if out := n.Script(t, "cat "+dropIn); out != "[Service]\nNice=3\n" {
			t.Errorf("%s: the drop-in became %q", args, out)
		}
	}
	n.expect(t, "ActiveState=active", "Nice=3")
	n.Script(t, "systemctl mask --now --quiet nodeagent")
	n.apt(t, "install --allow-downgrades /srv/old.deb")
	n.expect(t, "ActiveState=inactive", "LoadState=masked")
}

// Removing the package stops the daemon and leaves its state; installed again it goes on.
func reinstall(t *testing.T, n node) {
	n.configure(t)
	n.apt(t, "install /srv/new.deb")
	n.working(t)
	n.Script(t, "systemd-run --unit=nodeagent-child.service sleep 1000; systemctl stop nodeagent; echo kept > /var/lib/nodeagent/mark; systemctl start nodeagent")
	n.apt(t, "remove nodeagent")
	n.expect(t, "ActiveState=inactive", "LoadState=not-found")
	if out := n.Script(t, "cat /var/lib/nodeagent/mark; systemctl is-active nodeagent-child"); out != "kept\nactive\n" {
		t.Errorf("after remove: state and child are %q", out)
	}
	n.expectConfig(t)
	n.apt(t, "install /srv/new.deb")
	n.expect(t, "ActiveState=active", "UnitFileState=enabled")
	n.working(t)
}

// A purge removes what the agent can make again, and says what it leaves.
func purge(t *testing.T, n node) {
	n.configure(t)
	n.apt(t, "install /srv/new.deb")
	n.working(t)
	n.Script(t, `cd /var/lib/nodeagent; mkdir -p backups originals/etc /var/cache/nodeagent /var/log/nodeagent /etc/kubernetes /etc/containerd/conf.d /var/lib/etcd/member
		touch backups/a.db backups/a.db.json originals/etc/fstab bootstrapped state.json /var/cache/nodeagent/x /var/log/nodeagent/x /etc/kubernetes/admin.conf
		touch /etc/containerd/conf.d/90-nodeagent.toml`)
	n.Write(t, dropIn, []byte("[Service]\nNice=3\n"), 0o644)
	out := n.apt(t, "purge nodeagent")
	for _, path := range []string{
		"/etc/nodeagent", "/var/lib/nodeagent", "/etc/kubernetes", "/var/lib/nodeagent/backups", "/var/lib/nodeagent/originals",
		"/var/lib/etcd", "/etc/containerd/conf.d/90-nodeagent.toml", "/etc/systemd/system/nodeagent.service.d",
	} {
		if !strings.Contains(out, " "+path) {
			t.Errorf("the purge does not say that it leaves %s:\n%s", path, out)
		}
	}
	n.expectConfig(t)
	n.Script(t, `cd /var/lib/nodeagent; ls backups/a.db backups/a.db.json originals/etc/fstab bootstrapped /etc/kubernetes/admin.conf /var/lib/etcd/member /etc/containerd/conf.d/90-nodeagent.toml `+dropIn)
	if left := n.Script(t, "ls -d /var/lib/nodeagent/state.json /var/cache/nodeagent /var/log/nodeagent /var/lib/systemd/deb-systemd-helper-enabled/nodeagent* 2>/dev/null || true"); left != "" {
		t.Errorf("the purge left\n%s", left)
	}
	n.apt(t, "install /srv/new.deb")
	n.expect(t, "ActiveState=active", "UnitFileState=enabled")
	n.Script(t, "ls /var/lib/nodeagent/backups/a.db")

	// An image's purge from outside it (dpkg --root --force-script-chrootless) leaves this host's
	// own files alone.
	n.Script(t, `mkdir -p /srv/image/var/lib/nodeagent; touch /var/lib/nodeagent/state.json /srv/image/var/lib/nodeagent/state.json
		cp /var/lib/dpkg/info/nodeagent.postrm /srv/postrm; DPKG_ROOT=/srv/image sh /srv/postrm purge
		ls /var/lib/nodeagent/state.json; test ! -e /srv/image/var/lib/nodeagent`)
}

// Tried and not wanted: a purge of an agent that never had a configuration leaves no trace.
func purgeIdle(t *testing.T, n node) {
	const list = "find / -xdev -name '*nodeagent*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/run/*' ! -path '/var/log/*'"
	before := n.Script(t, list)
	n.apt(t, "install /srv/new.deb")
	n.expect(t, "ActiveState=active")
	if out := n.apt(t, "purge nodeagent"); strings.Contains(out, "left for you") {
		t.Errorf("the purge says that it leaves something:\n%s", out)
	}
	if after := n.Script(t, list); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
