// Package certstest writes the certificates, keys and kubeconfigs of a kubeadm control plane
// into a directory, with the names, subjects, usages and modes that kubeadm gives them. It
// serves tests and the demo: the certificates are real, and signed by CAs made on the spot.
package certstest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// What a certificate lasts when Options do not say, as in kubeadm.
const (
	DefaultValidity   = 365 * 24 * time.Hour
	DefaultCAValidity = 3650 * 24 * time.Hour
)

// Options is how the tree is to be. Only Now is required.
type Options struct {
	// Now is when the certificates are made. They begin five minutes earlier.
	Now time.Time
	// Node is the host's name, "node-1" when empty.
	Node string
	// Address is the advertise address, 127.0.0.1 when nil.
	Address net.IP
	// Server is the API server in the kubeconfigs, https://<Address>:6443 when empty.
	Server string
	// Validity is how long after Now a certificate lasts, negative for one that has ended,
	// by file: "pki/apiserver.crt", "admin.conf". A name that is no file of the tree is an error.
	Validity map[string]time.Duration
	// Kubelet adds /var/lib/kubelet/pki and has kubelet.conf name the certificate there, as on
	// a host that has been through kubeadm's phase kubelet-finalize. Without it kubelet.conf
	// holds its certificate.
	Kubelet bool
}

// Dir is where below its root the tree has kubeadm's files.
const Dir = "etc/kubernetes"

// KubeletDir is where below its root the tree has kubelet's certificates.
const KubeletDir = "var/lib/kubelet/pki"

// Write writes the tree below root, over what is there.
func Write(root string, o Options) error {
	if o.Now.IsZero() {
		return errors.New("write test PKI: Now is not set")
	}
	if o.Node == "" {
		o.Node = "node-1"
	}
	if o.Address == nil {
		o.Address = net.IPv4(127, 0, 0, 1)
	}
	if o.Server == "" {
		o.Server = "https://" + net.JoinHostPort(o.Address.String(), "6443")
	}
	w := &writer{Options: o, root: root, used: map[string]bool{}}
	err := w.all()
	for name := range o.Validity {
		if err == nil && !w.used[name] {
			err = fmt.Errorf("validity of %q: no such file in the tree", name)
		}
	}
	if err != nil {
		return fmt.Errorf("write test PKI below %s: %w", root, err)
	}
	return nil
}

type writer struct {
	Options
	root string
	used map[string]bool // names of Validity that were asked for
}

func (w *writer) all() error {
	authorities := map[string]*authority{}
	for _, ca := range []struct{ file, name string }{
		{"pki/ca", "kubernetes"}, {"pki/front-proxy-ca", "front-proxy-ca"}, {"pki/etcd/ca", "etcd-ca"},
	} {
		made, err := w.authority(ca.file, ca.name)
		if err != nil {
			return err
		}
		authorities[ca.file] = made
	}
	for _, leaf := range w.leaves() {
		p, err := w.issue(authorities[leaf.ca], leaf)
		if err != nil {
			return err
		}
		if err := errors.Join(w.put(Dir, leaf.file+".crt", p.cert, 0o644), w.put(Dir, leaf.file+".key", p.key, 0o600)); err != nil {
			return err
		}
	}
	if err := w.serviceAccount(); err != nil {
		return err
	}
	ca := authorities["pki/ca"]
	for _, u := range w.users() {
		if w.Kubelet && u.file == kubeletConf {
			continue
		}
		p, err := w.issue(ca, u.leaf)
		if err != nil {
			return err
		}
		if err := w.put(Dir, u.file, w.kubeconfig(ca, u, embedded(p)), 0o600); err != nil {
			return err
		}
	}
	if w.Kubelet {
		return w.kubelet(ca)
	}
	return nil
}

func (w *writer) put(dir, name string, data []byte, perm fs.FileMode) error {
	path := filepath.Join(w.root, dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, perm)
}

// ends is when the certificate in a file ends.
func (w *writer) ends(file string, standard time.Duration) time.Time {
	w.used[file] = true
	if d, ok := w.Validity[file]; ok {
		return w.Now.Add(d)
	}
	return w.Now.Add(standard)
}
