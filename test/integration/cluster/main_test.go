//go:build integration

// Package cluster_test runs three real etcd members, each in a network namespace of its own, and an
// agent beside each: a process of its own, that can be killed, paused and cut off, and that takes
// turns and saves by the product's code.
package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	// etcdEnv is the lab's etcd, for the process inside the namespaces.
	etcdEnv = "NODEAGENT_TEST_ETCD"
	// programEnv is the built program, for the same.
	programEnv = "NODEAGENT_TEST_PROGRAM"
	// s3Env is the lab's S3 server, for the same.
	s3Env = "NODEAGENT_TEST_S3"
	// agentEnv makes the test binary an agent.
	agentEnv = "NODEAGENT_TEST_AGENT"
	// buildTimeout is long enough for a cold build of etcd.
	buildTimeout = 10 * time.Minute
)

func TestMain(m *testing.M) {
	if config := os.Getenv(agentEnv); config != "" {
		if err := runAgent(config); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(etcdEnv) != "" {
		if err := enterNetwork(); err != nil {
			fmt.Fprintln(os.Stderr, "cluster:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := reexec()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = 1
	}
	os.Exit(code)
}

// reexec builds the programs and starts this binary in network and mount namespaces.
func reexec() (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("needs root")
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	etcd, err := lab.Etcd(ctx)
	if err != nil {
		return 0, err
	}
	s3, err := lab.Versitygw(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "nodeagent-cluster-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := dir + "/nodeagent"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "../../../cmd/nodeagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build nodeagent: %w\n%s", err, out)
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), etcdEnv+"="+etcd, programEnv+"="+program, s3Env+"="+s3)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

const members = 3

// address is a member's, on a wire of its own to this namespace, which routes between them.
func address(i int) string { return fmt.Sprintf("10.78.%d.2", i) }

func namespace(i int) string { return fmt.Sprintf("m%d", i) }

// enterNetwork makes the members' namespaces and their wires. They end with this one.
func enterNetwork() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount over /run: %w", err)
	}
	script := "ip link set lo up\necho 1 >/proc/sys/net/ipv4/ip_forward\n"
	for i := 1; i <= members; i++ {
		script += strings.NewReplacer("$i", fmt.Sprint(i), "$ns", namespace(i), "$a", address(i)).Replace(`ip netns add $ns
ip link add w$i type veth peer name eth0 netns $ns
ip address add 10.78.$i.1/24 dev w$i
ip link set w$i up
ip -n $ns address add $a/24 dev eth0
ip -n $ns link set lo up
ip -n $ns link set eth0 up
ip -n $ns route add default via 10.78.$i.1
`)
	}
	return shell(script)
}

// wire cuts a member off, or mends that.
func wire(t *testing.T, i int, state string) {
	t.Helper()
	script := fmt.Sprintf("ip link set w%d %s\n", i, state)
	if err := shell(script); err != nil {
		t.Fatal(err)
	}
}

func shell(script string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-eu")
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return nil
}

// inside is a program in a member's namespace, which does not outlive this one.
func inside(i int, program string, args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/nsenter", append([]string{"--net=/run/netns/" + namespace(i), "--", program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}
