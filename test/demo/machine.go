package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	nodeName = "cp1"
	// soon is how long the certificate that is about to expire has left.
	soon = 9*24*time.Hour + time.Hour
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
  interval: 10s
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
		Now: now, Node: nodeName, Kubelet: true, Validity: map[string]time.Duration{"pki/apiserver.crt": soon},
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
