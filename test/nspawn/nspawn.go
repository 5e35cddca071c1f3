// Package nspawn boots a Debian root file system in a container whose PID 1 is the real
// systemd, for tests of the unit, the package, D-Bus and the journal. It needs root, and
// everything it changes lies under a temporary overlay and in control groups of its own.
//
// What it is not: a virtual machine. Modules cannot be loaded, swap and most sysctls are the
// host's and cannot be changed, and control groups are of the host's kind.
package nspawn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	bootTimeout  = 60 * time.Second
	stopTimeout  = 20 * time.Second
	killTimeout  = 10 * time.Second
	pollInterval = 50 * time.Millisecond
)

// Machine is a running container.
type Machine struct {
	name   string
	rootfs string
	binds  []Bind
	dir    string // holds the console's log and what is bound into the container
	group  groups
	spawn  *exec.Cmd
	ended  chan struct{} // closed when systemd-nspawn has been waited for
	leader int           // PID 1 of the container, as the host sees it
}

// Bind is a directory of the host that is seen in the machine, read-only.
type Bind struct{ Source, Target string }

// Up boots rootfs, a directory tree that stays unchanged, and returns when systemd has started
// everything. The machine goes down with the test; its console is printed if the test failed.
func Up(t testing.TB, rootfs string, binds ...Bind) *Machine {
	t.Helper()
	m, err := boot(t, rootfs, binds)
	if err != nil {
		t.Fatalf("boot %s: %v", rootfs, err)
	}
	return m
}

func boot(t testing.TB, rootfs string, binds []Bind) (*Machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root")
	}
	path, err := exec.LookPath("systemd-nspawn")
	if err != nil {
		return nil, fmt.Errorf("%w: install systemd-container", err)
	}
	if _, err := os.Stat(filepath.Join(rootfs, "usr/lib/systemd/systemd")); err != nil {
		return nil, fmt.Errorf("no systemd in it: %w", err)
	}
	dir := t.TempDir()
	m := &Machine{name: groupName(), rootfs: rootfs, binds: binds, dir: dir, ended: make(chan struct{})}
	// Registered before anything is made, so that half a machine is taken down as well.
	t.Cleanup(func() {
		if err := m.down(); err != nil {
			t.Errorf("take down %s: %v", m.name, err)
		}
		if t.Failed() {
			m.logConsole(t)
		}
	})
	if m.group, err = newGroups(m.name); err != nil {
		return nil, err
	}
	if err := m.start(path); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	if err := m.waitBooted(ctx); err != nil {
		return nil, err
	}
	return m, m.unlockGroups(ctx)
}

// start runs systemd-nspawn as a child that cannot outlive this process.
func (m *Machine) start(path string) error {
	console, err := os.Create(filepath.Join(m.dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	args := []string{
		"-D", m.rootfs, "--quiet", "--volatile=overlay", "--machine=" + m.name,
		"--register=no", "--keep-unit", "--private-network", "--capability=all",
		"--console=pipe", "--link-journal=no", "--timezone=off", "--resolv-conf=off",
		"--system-call-filter=@keyring bpf perf_event_open", // and not @swap: swap is the host's
	}
	// Overlays do not stack: what makes overlays of its own needs a real directory.
	for _, dir := range []string{"containerd", "kubelet"} {
		if err := os.Mkdir(filepath.Join(m.dir, dir), 0o755); err != nil {
			return err
		}
		args = append(args, fmt.Sprintf("--bind=%s:/var/lib/%s", filepath.Join(m.dir, dir), dir))
	}
	for _, b := range m.binds {
		args = append(args, fmt.Sprintf("--bind-ro=%s:%s", b.Source, b.Target))
	}
	// A shell joins the groups and becomes systemd-nspawn: it must be in them before it forks.
	// It is PID 1 of a namespace around the container's own, so that with it all ends, also
	// when this process is killed; systemd-nspawn alone would leave the container behind.
	script := m.group.joinScript() + `mount -t proc proc /proc; exec "$@"`
	m.spawn = exec.Command("/bin/sh", append([]string{"-euc", script, "sh", path}, append(args, "--boot")...)...)
	// Of /proc/sys only net is the machine's own; the rest is the host's and stays read-only.
	m.spawn.Env = append(baseEnv(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network")
	m.spawn.Stdout, m.spawn.Stderr = console, console
	m.spawn.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS,
		Setsid: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := m.spawn.Start(); err != nil {
		m.spawn = nil
		return fmt.Errorf("start systemd-nspawn: %w", err)
	}
	go func() {
		_ = m.spawn.Wait() // how it ends says nothing that the console does not
		close(m.ended)
	}()
	return nil
}

// waitBooted waits for PID 1 of the container, then for systemd to have started everything.
// A unit that failed ("degraded") does not make the machine useless.
func (m *Machine) waitBooted(ctx context.Context) error {
	for {
		if m.leader == 0 {
			m.leader = childNamed(m.spawn.Process.Pid, "systemd")
		}
		if m.leader != 0 {
			out, _ := m.Run(ctx, "/usr/bin/systemctl", "is-system-running")
			switch strings.TrimSpace(out) {
			case "running", "degraded":
				return nil
			}
		}
		select {
		case <-m.ended:
			return errors.New("systemd-nspawn ended while booting")
		case <-ctx.Done():
			return fmt.Errorf("wait for systemd in %s: %w", m.name, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// unlockGroups makes the container's v1 hierarchies writable for it, in its own mount
// namespace: runc writes there, and systemd-nspawn mounts them read-only.
func (m *Machine) unlockGroups(ctx context.Context) error {
	if !m.group.v1 {
		return nil
	}
	const script = `for m in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$m" 2>/dev/null || true; done`
	_, err := m.Run(ctx, "/bin/sh", "-c", script)
	return err
}

// down powers the machine off as its console's user would, and kills it if that takes too long.
func (m *Machine) down() error {
	if m.spawn != nil {
		if m.leader != 0 {
			const powerOff = syscall.Signal(34 + 4) // SIGRTMIN+4, to systemd
			_ = syscall.Kill(m.leader, powerOff)
		}
		if m.leader == 0 || !m.waitEnded(stopTimeout) {
			// The kernel kills everything in its PID namespace.
			_ = m.spawn.Process.Kill()
			if !m.waitEnded(killTimeout) {
				return errors.New("systemd-nspawn does not end, not even by SIGKILL")
			}
		}
	}
	// systemd-nspawn refuses to remove this one where /run is no tmpfs.
	err := os.Remove(filepath.Join("/run/systemd/nspawn/propagate", m.name))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, m.group.remove())
}

func (m *Machine) waitEnded(timeout time.Duration) bool {
	select {
	case <-m.ended:
		return true
	case <-time.After(timeout):
		return false
	}
}

func (m *Machine) logConsole(t testing.TB) {
	log, err := os.ReadFile(filepath.Join(m.dir, "console.log"))
	if err != nil {
		t.Logf("console of %s: %v", m.name, err)
		return
	}
	t.Logf("console of %s:\n%s", m.name, log)
}
