// Package etcdtest runs a real etcd inside a test's process and lays its files out below a
// scratch root as kubeadm does.
package etcdtest

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// PKI is where kubeadm keeps etcd's certificates.
const PKI = "/etc/kubernetes/pki/etcd"

// Member is a running member and the host it seems to run on.
type Member struct {
	Host *host.Host
	Port string
	etcd *embed.Etcd
}

// Start is Run with a CA, a server and a healthcheck-client pair made for it.
func Start(h *host.Host, dataDir string) (*Member, error) {
	if err := WritePKI(h, NewCA(), "127.0.0.1", "localhost"); err != nil {
		return nil, err
	}
	return Run(h, dataDir)
}

// Run runs a member on a free port of loopback: with mutual TLS by the files that lie in PKI,
// its data below dataDir, and its static pod manifest in place. It does not sync to disk.
func Run(h *host.Host, dataDir string) (*Member, error) {
	paths := map[string]string{}
	for _, name := range []string{"ca.crt", "server.crt", "server.key"} {
		real, err := h.Path(filepath.Join(PKI, name))
		if err != nil {
			return nil, err
		}
		paths[name] = real
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.UnsafeNoFsync = "cp1", dataDir, true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	client := url.URL{Scheme: "https", Host: "127.0.0.1:0"}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ClientTLSInfo = transport.TLSInfo{
		CertFile: paths["server.crt"], KeyFile: paths["server.key"],
		TrustedCAFile: paths["ca.crt"], ClientCertAuth: true,
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	m := &Member{Host: h, etcd: e}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), m.Close())
	case <-time.After(30 * time.Second):
		return nil, errors.Join(errors.New("start etcd: not ready within 30 s"), m.Close())
	}
	addr := e.Clients[0].Addr().String()
	m.Port = addr[strings.LastIndexByte(addr, ':')+1:]
	if err := h.WriteFile(etcd.Manifest, Manifest("https", m.Port), 0o600); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close stops the member.
func (m *Member) Close() error {
	m.etcd.Close()
	return nil
}

// Manifest is a static pod manifest of the shape kubeadm writes.
func Manifest(scheme, port string) []byte {
	return fmt.Appendf(nil, manifest, scheme+"://192.0.2.10:"+port, scheme+"://127.0.0.1:"+port)
}

const manifest = `apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: %[1]s
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=%[1]s
    - --cert-file=/etc/kubernetes/pki/etcd/server.crt
    - --client-cert-auth=true
    - --data-dir=/var/lib/etcd
    - --key-file=/etc/kubernetes/pki/etcd/server.key
    - --listen-client-urls=%[1]s,%[2]s
    - --listen-metrics-urls=http://127.0.0.1:2381
    - --name=cp1
    - --peer-client-cert-auth=true
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: registry.k8s.io/etcd:3.6.8-0
    name: etcd
  hostNetwork: true
status: {}
`
