package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	service "github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	nodeName = "cp1"
	// soon is how long the certificate that is about to expire has left.
	soon = 9*24*time.Hour + time.Hour
	// age is how long ago the machine was made.
	age = 200 * 24 * time.Hour
	// sysctls is the agent's own file, which somebody disturbs.
	sysctls = "/etc/sysctl.d/90-nodeagent.conf"
)

// configuration is what an operator would write, but for the short times.
const configuration = `role: control-plane
network:
  cni: bridge
packages:
  manage: false # they are there
backup:
  interval: 5s
  retention: {keepLast: 3}
drift:
  interval: 5s
metrics:
  listen: %s
log: {format: text}
`

// machine is the scratch machine: a root directory, and the etcd that seems to run on it.
type machine struct {
	root   string
	listen string // where the agent serves
	host   *host.Host
	member *etcdtest.Member
}

// newMachine lays out what a kubeadm control plane has, packages included, and starts its etcd.
func newMachine(ctx context.Context, now time.Time) (m *machine, err error) {
	root, err := os.MkdirTemp("", "nodeagent-demo-")
	if err != nil {
		return nil, fmt.Errorf("make scratch machine: %w", err)
	}
	m = &machine{root: root, host: host.New(root)}
	if err := m.make(ctx, now); err != nil {
		return nil, errors.Join(fmt.Errorf("make scratch machine: %w", err), m.remove())
	}
	return m, nil
}

func (m *machine) make(ctx context.Context, now time.Time) error {
	var err error
	if m.listen, err = freeAddress(ctx); err != nil {
		return err
	}
	files := map[string]string{
		"/etc/hostname":               nodeName + "\n",
		"/etc/machine-id":             "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e\n",
		"/etc/fstab":                  "LABEL=root / ext4 defaults 0 1\n/dev/vdb1 none swap sw 0 0\n",
		"/etc/containerd/config.toml": "version = 2\n",
		"/var/lib/dpkg/status":        "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n",
		"/etc/nodeagent/config.yaml":  fmt.Sprintf(configuration, m.listen),
	}
	for path, text := range files {
		if err := m.host.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	// Debian's containernetworking-plugins would bring these; nothing here runs them.
	for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
		if err := m.host.WriteFile("/usr/lib/cni/"+plugin, []byte("#!/bin/false\n"), 0o755); err != nil {
			return err
		}
	}
	err = certstest.Write(m.root, certstest.Options{
		Now: now.Add(-age), Node: nodeName, Kubelet: true, Validity: map[string]time.Duration{"pki/apiserver.crt": age + soon},
	})
	if err != nil {
		return err
	}
	m.member, err = etcdtest.Run(m.host, filepath.Join(m.root, "var/lib/etcd"))
	return err
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// complete puts the mark of a bootstrap that has ended, with the fingerprint of what was applied.
// apply puts it on a running machine; here it cannot, since some of its steps wait for a boot.
// Without it the agent takes the machine for somebody else's work, and mends no drift.
func (m *machine) complete(version string) error {
	const path = "/etc/nodeagent/config.yaml"
	text, err := m.host.ReadFile(path)
	if err != nil {
		return err
	}
	c, err := config.Parse(path, text)
	if err != nil {
		return err
	}
	steps, err := yaml.Marshal(bootstrap.Config{
		Role: c.Role, Node: c.Node, Network: c.Network, Preflight: c.Preflight, Kernel: c.Kernel,
		Packages: c.Packages, Containerd: c.Containerd, Images: c.Images, Kubeadm: c.Kubeadm, Addons: c.Addons, Timeouts: c.Timeouts,
	})
	if err != nil {
		return err
	}
	return service.CompleteBootstrap(m.host, fmt.Sprintf("%x", sha256.Sum256(append([]byte(version+"\n"), steps...))))
}

// disturb is somebody who edits the agent's sysctls by hand.
func (m *machine) disturb() error {
	text, err := m.host.ReadFile(sysctls)
	if err != nil {
		return err
	}
	changed := bytes.Replace(text, []byte("net.ipv4.ip_forward = 1"), []byte("net.ipv4.ip_forward = 0"), 1)
	if bytes.Equal(changed, text) {
		return fmt.Errorf("%s does not set net.ipv4.ip_forward", sysctls)
	}
	return m.host.WriteFile(sysctls, changed, 0o644)
}

// forwards says that the machine's sysctls are as the agent made them.
func (m *machine) forwards() (bool, error) {
	text, err := m.host.ReadFile(sysctls)
	return bytes.Contains(text, []byte("net.ipv4.ip_forward = 1")), err
}

// put writes keys to etcd, as the agent reaches it: over TLS, by the static pod's manifest.
func (m *machine) put(ctx context.Context, keys ...string) error {
	local, err := etcd.FindLocal(m.host)
	if err != nil {
		return err
	}
	client, err := local.Dial(ctx, m.host)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if _, err := client.Put(ctx, key, "written by the demo"); err != nil {
			return errors.Join(fmt.Errorf("write to etcd: %w", err), client.Close())
		}
	}
	return client.Close()
}

// remove ends etcd and leaves nothing of the machine.
func (m *machine) remove() error {
	var err error
	if m.member != nil {
		err = m.member.Close()
	}
	return errors.Join(err, os.RemoveAll(m.root))
}
