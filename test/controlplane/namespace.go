// Package controlplane runs a real etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler, made by the real kubeadm, for tests of what talks to them. There is no
// kubelet: the harness runs the commands of the static pod manifests itself.
//
// kubeadm writes the address it advertises into kubeconfigs, and the components dial it. So all
// of it happens in a network namespace that owns the address and has no way out, with /etc,
// /var/lib and /run under overlays that nothing outlives. The product's code then works on "/".
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/test/lab"
)

// Address is what the control plane advertises. Nobody else has it: it is in the namespace only.
const Address = "10.77.0.1"

// The lab's programs, for the process inside the namespace; one that is set says that it is there.
const (
	kubernetesEnv = "NODEAGENT_TEST_KUBERNETES"
	etcdEnv       = "NODEAGENT_TEST_ETCD"
)

// buildTimeout is long enough for a cold build of Kubernetes and etcd on two cores.
const buildTimeout = 25 * time.Minute

// Main is the body of TestMain in a package that uses the control plane. It runs the test
// binary once more, inside the namespaces, and returns its exit code.
func Main(m *testing.M) int {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		return 1
	}
	return code
}

func run(m *testing.M) (int, error) {
	if os.Getenv(kubernetesEnv) == "" {
		return reexec()
	}
	if err := enterNetwork(); err != nil {
		return 0, err
	}
	if err := coverDirectories(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// reexec builds the programs while there is a network, and starts this binary in namespaces.
func reexec() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("needs root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	kubernetes, err := lab.Kubernetes(ctx)
	if err != nil {
		return 0, err
	}
	etcd, err := lab.Etcd(ctx)
	if err != nil {
		return 0, err
	}
	// The child dies with the thread that started it, so that must be the main one.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), kubernetesEnv+"="+kubernetes, etcdEnv+"="+etcd)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, // and no mount propagates back
		Pdeathsig:    syscall.SIGKILL,
	}
	// -test.timeout is the child's to keep: it knows what was running.
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() > 0 {
			return exit.ExitCode(), nil
		}
		return 0, fmt.Errorf("run the tests in a namespace: %w", err)
	}
	return 0, err
}

// enterNetwork gives the namespace its address, after making sure that it is one: a loopback
// interface only, and nowhere to go.
func enterNetwork() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Flags&unix.IFF_LOOPBACK == 0 && link.Attrs().Flags&unix.IFF_UP != 0 {
			return fmt.Errorf("refuse to run: the interface %s is up, this is no private namespace", link.Attrs().Name)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	if len(routes) > 0 {
		return fmt.Errorf("refuse to run: there is a route: %s", routes[0])
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	// kubeadm refuses to advertise 127.0.0.1.
	addr, err := netlink.ParseAddr(Address + "/32")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		return fmt.Errorf("add address to lo: %w", err)
	}
	return nil
}

// coverDirectories puts an overlay in memory over every directory that a node's files lie in.
// Overlays, not empty mounts: /var/lib/etcd must be a directory that can be renamed.
func coverDirectories() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount over /run: %w", err)
	}
	for _, dir := range []string{"/etc", "/var/lib"} {
		upper, work := filepath.Join("/run/cover", dir, "upper"), filepath.Join("/run/cover", dir, "work")
		for _, d := range []string{upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
		if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
			return fmt.Errorf("mount over %s: %w", dir, err)
		}
	}
	return nil
}
