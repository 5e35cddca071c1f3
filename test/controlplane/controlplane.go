package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	// NodeName is the node that kubeadm makes certificates for. It never registers.
	NodeName = "node1"
	// SuperAdmin is the kubeconfig that needs no RBAC object to be allowed everything.
	SuperAdmin = "/etc/kubernetes/super-admin.conf"
	// EtcdDataDir is where etcd keeps its data.
	EtcdDataDir = "/var/lib/etcd"

	configFile  = "/run/kubeadm.yaml"
	startupTime = 90 * time.Second
)

// KubeadmConfig is the configuration that the control plane is made from. It ends inside its
// ClusterConfiguration, so that a test can append keys.
const KubeadmConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: ` + Address + `}
nodeRegistration: {name: ` + NodeName + `, criSocket: unix:///run/containerd/containerd.sock}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: ` + lab.KubernetesVersion + `
encryptionAlgorithm: ECDSA-P256
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}
`

// ControlPlane is a control plane at the places where kubeadm puts one.
type ControlPlane struct {
	etcd, apiserver *Process
}

// New makes a new control plane's PKI, kubeconfigs and manifests. Nothing runs yet, and nothing
// of an earlier one is left.
func New(t testing.TB) *ControlPlane {
	t.Helper()
	for _, dir := range []string{"/etc/kubernetes", EtcdDataDir, "/var/lib/nodeagent"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(configFile, []byte(KubeadmConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &ControlPlane{}
	for _, phase := range [][]string{{"certs", "all"}, {"kubeconfig", "all"}, {"etcd", "local"}, {"control-plane", "all"}} {
		c.Kubeadm(t, "init", "phase", phase[0], phase[1], "--config", configFile)
	}
	return c
}

// Start is New with etcd and the API server running and ready. They stop with the test, the API
// server first: one that is asked to stop after etcd is gone hangs for minutes.
func Start(t testing.TB) *ControlPlane {
	t.Helper()
	c := New(t)
	c.StartEtcd(t)
	c.StartAPIServer(t)
	return c
}

// StartEtcd starts etcd, with the manifest's command, and waits until it is healthy.
func (c *ControlPlane) StartEtcd(t testing.TB) *Process {
	t.Helper()
	c.etcd = c.StartComponent(t, "etcd")
	c.etcd.until(t, startupTime, func(ctx context.Context) error {
		_, err := command(ctx, Program("etcdctl"), EtcdctlArgs("endpoint", "health")...)
		return err
	})
	return c.etcd
}

// StartAPIServer starts the API server and waits until it says that it is ready.
func (c *ControlPlane) StartAPIServer(t testing.TB) *Process {
	t.Helper()
	c.apiserver = c.StartComponent(t, "kube-apiserver")
	c.apiserver.until(t, startupTime, func(ctx context.Context) error {
		_, err := command(ctx, Program("kubectl"), "get", "--raw=/readyz", "--request-timeout=5s")
		return err
	})
	return c.apiserver
}

// Stop stops the API server and etcd, in this order. The data stay.
func (c *ControlPlane) Stop(t testing.TB) {
	t.Helper()
	c.apiserver.Stop(t)
	c.etcd.Stop(t)
}

// StartComponent runs the command of a static pod's manifest.
func (c *ControlPlane) StartComponent(t testing.TB, name string) *Process {
	t.Helper()
	args, err := manifestCommand(filepath.Join("/etc/kubernetes/manifests", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if name == "kube-controller-manager" || name == "kube-scheduler" {
		args = append(args, "--leader-elect=false") // it would wait for the lease of an earlier one
	}
	return start(t, Program(args[0]), args[1:]...)
}

func manifestCommand(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	var pod struct {
		Spec struct {
			Containers []struct {
				Command []string `yaml:"command"`
			} `yaml:"containers"`
		} `yaml:"spec"`
	}
	if err := yaml.Unmarshal(data, &pod); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	if len(pod.Spec.Containers) != 1 || len(pod.Spec.Containers[0].Command) == 0 {
		return nil, fmt.Errorf("read manifest %s: not one container with a command", path)
	}
	return pod.Spec.Containers[0].Command, nil
}

// Program is the path of one of the lab's programs.
func Program(name string) string {
	switch name {
	case "etcd", "etcdctl", "etcdutl":
		return filepath.Join(os.Getenv(etcdEnv), name)
	}
	return filepath.Join(os.Getenv(kubernetesEnv), name)
}

// EtcdctlArgs are etcdctl's arguments for the local member, with args after them.
func EtcdctlArgs(args ...string) []string {
	const pki = "/etc/kubernetes/pki/etcd/"
	return append([]string{
		"--endpoints=https://127.0.0.1:2379", "--cacert=" + pki + "ca.crt",
		"--cert=" + pki + "healthcheck-client.crt", "--key=" + pki + "healthcheck-client.key",
	}, args...)
}

// Kubeadm runs kubeadm and returns its stdout. A failure is the test's.
func (c *ControlPlane) Kubeadm(t testing.TB, args ...string) string {
	t.Helper()
	return Run(t, "kubeadm", args...)
}

// Kubectl runs kubectl as the super-admin and returns its stdout. A failure is the test's.
func (c *ControlPlane) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return Run(t, "kubectl", args...)
}

// Script runs a script of the shell with the lab's programs on its path, and returns its stdout. A
// failure is the test's.
func Script(t testing.TB, script string) string {
	t.Helper()
	path := fmt.Sprintf("PATH=%s:%s:$PATH\n", os.Getenv(kubernetesEnv), os.Getenv(etcdEnv))
	out, err := command(t.Context(), "/bin/sh", "-euc", path+script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Run runs one of the lab's programs to its end and returns its stdout. A failure is the test's.
func Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := command(t.Context(), Program(program), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
