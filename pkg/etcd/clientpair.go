package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// maxFile is in bytes: no certificate, key or configuration file comes near.
const maxFile = 1 << 20

// file is one as the process pid sees it; 0 stands for this process.
type file struct {
	pid  int
	path string
}

// read refuses what is no regular file: a pipe would hold us up.
func (f file) read(h *host.Host) ([]byte, error) {
	data, err := f.readThere(h)
	if err != nil && f.pid != 0 {
		return nil, fmt.Errorf("%w, as process %d sees it", err, f.pid)
	}
	return data, err
}

func (f file) readThere(h *host.Host) ([]byte, error) {
	if f.pid != 0 {
		h = inside(h, f.pid)
	}
	info, err := h.Stat(f.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of less than %d bytes", f.path, maxFile)
	}
	return h.ReadFile(f.path)
}

// pair is a client certificate and its key.
type pair struct {
	cert, key file
	// perhaps says that a tool may have put it there, and that it is no matter if none has.
	perhaps bool
}

// clientPairs are the client certificates that etcd may take, the one that is meant for it
// first: kubeadm's health check client, the API server's, those that kubespray and the
// handbooks for a cluster of one's own make beside the authority; then what etcd has itself.
func (p process) clientPairs() []pair {
	var pairs []pair
	add := func(perhaps bool, cert, key string) {
		// Without both it is none. Etcd has been told of a file that is missing, and we say so.
		if cert != "" && key != "" {
			pairs = append(pairs, pair{file{p.pid, cert}, file{p.pid, key}, perhaps})
		}
	}
	if p.caFile != "" {
		dir := path.Dir(p.caFile)
		kubeadm := func(base string) { add(true, base+".crt", base+".key") }
		kubeadm(dir + "/healthcheck-client")
		for _, at := range []string{path.Dir(dir), dir, "/etc/kubernetes/pki"} {
			kubeadm(path.Join(at, "apiserver-etcd-client"))
		}
		pem := func(name string) { add(true, path.Join(dir, name+".pem"), path.Join(dir, name+"-key.pem")) }
		if node, is := strings.CutPrefix(path.Base(p.server.cert), "member-"); is {
			pem("admin-" + strings.TrimSuffix(node, ".pem"))
		}
		pem("client")
		kubeadm(dir + "/client")
	}
	add(false, p.client.cert, p.client.key)
	add(false, p.server.cert, p.server.key)
	add(false, p.peer.cert, p.peer.key)
	return slices.CompactFunc(pairs, func(a, b pair) bool { return a.cert == b.cert && a.key == b.key })
}

// errNoPair is a pair that may be there and is not.
var errNoPair = errors.New("no such pair")

// load reads the pair. One that is only perhaps there is also looked for where this process
// sees its files: a static pod is shown no more than etcd needs.
func (p pair) load(h *host.Host) (tls.Certificate, error) {
	loaded, err := p.loadThere(h)
	if err != nil && p.perhaps && p.cert.pid != 0 && errors.Is(err, fs.ErrNotExist) {
		p.cert.pid, p.key.pid = 0, 0
		loaded, err = p.loadThere(h)
	}
	if p.perhaps && errors.Is(err, fs.ErrNotExist) {
		err = errNoPair
	}
	return loaded, err
}

func (p pair) loadThere(h *host.Host) (tls.Certificate, error) {
	cert, err := p.cert.read(h)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := p.key.read(h)
	if err != nil {
		return tls.Certificate{}, err
	}
	loaded, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and its key: %w", p.cert.path, err)
	}
	usages := loaded.Leaf.ExtKeyUsage
	if len(usages) > 0 && !slices.Contains(usages, x509.ExtKeyUsageClientAuth) && !slices.Contains(usages, x509.ExtKeyUsageAny) {
		return tls.Certificate{}, fmt.Errorf("%s is not for clients: it lacks the extended key usage of client authentication", p.cert.path)
	}
	return loaded, nil
}
