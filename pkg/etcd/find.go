// Package etcd finds the etcd member of this host and connects to it.
package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Manifest is where kubeadm writes the static pod of a stacked etcd.
const Manifest = "/etc/kubernetes/manifests/etcd.yaml"

// Local is the etcd member of this host, as its static pod manifest describes it. The files
// are named, not read: whoever dials reads them anew, and so uses renewed ones.
type Local struct {
	Name    string // the member's name
	DataDir string

	// Endpoint is the client URL to use: a loopback one if the member listens there.
	Endpoint string

	// CAFile is what the server's certificate is verified against. When it is empty, the
	// system's roots are.
	CAFile string
	// CertFile and KeyFile are the client certificate: kubeadm's health check client, or the
	// server's own pair. Both are empty when etcd serves without TLS.
	CertFile, KeyFile string
}

// ErrNoMember is a host that no etcd is set up on. Unlike fs.ErrNotExist, which it comes with,
// it does not also stand for a certificate that is missing.
var ErrNoMember = errors.New("no etcd on this host")

// FindLocal finds the member that kubelet runs on h. Where there is none, the error is
// ErrNoMember and fs.ErrNotExist.
func FindLocal(h *host.Host) (Local, error) {
	data, err := h.ReadFile(Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Local{}, fmt.Errorf("find etcd: %w: %w", ErrNoMember, err)
	}
	if err != nil {
		return Local{}, fmt.Errorf("find etcd: %w", err)
	}
	l, err := parseManifest(data)
	if err != nil {
		return Local{}, fmt.Errorf("find etcd: read %s: %w", Manifest, err)
	}
	if err := l.preferHealthcheckClient(h); err != nil {
		return Local{}, fmt.Errorf("find etcd: %w", err)
	}
	return l, nil
}

// preferHealthcheckClient takes the client certificate that kubeadm makes for the liveness
// probe. The server pair, which kubeadm issues for client use too, stays where there is none.
func (l *Local) preferHealthcheckClient(h *host.Host) error {
	if l.CAFile == "" || l.CertFile == "" {
		return nil
	}
	base := filepath.Join(filepath.Dir(l.CAFile), "healthcheck-client")
	for _, path := range []string{base + ".crt", base + ".key"} {
		if there, err := h.Exists(path); err != nil || !there {
			return err
		}
	}
	l.CertFile, l.KeyFile = base+".crt", base+".key"
	return nil
}
