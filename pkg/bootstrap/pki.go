package bootstrap

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// pkiPair is a certificate and its key, "NAME.crt" and "NAME.key" below the PKI's directory.
type pkiPair struct {
	name string
	ca   string // the pair that signs it; "" for a CA
}

// pkiPairs are what kubeadm's phase certs makes, in its order; the service accounts' keys, which
// have no certificate, aside. With an external etcd the pairs that etcd signs are the operator's.
func pkiPairs(externalEtcd bool) []pkiPair {
	pairs := []pkiPair{
		{"ca", ""}, {"apiserver", "ca"}, {"apiserver-kubelet-client", "ca"},
		{"front-proxy-ca", ""}, {"front-proxy-client", "front-proxy-ca"},
	}
	if externalEtcd {
		return pairs
	}
	return append(pairs, []pkiPair{
		{"etcd/ca", ""}, {"etcd/server", "etcd/ca"}, {"etcd/peer", "etcd/ca"},
		{"etcd/healthcheck-client", "etcd/ca"}, {"apiserver-etcd-client", "etcd/ca"},
	}...)
}

// The keys that sign and verify the tokens of service accounts.
const saKey, saPub = "sa.key", "sa.pub"

// pkiFiles are the files of the PKI, each key beside its certificate.
func pkiFiles(externalEtcd bool) []string {
	var files []string
	for _, p := range pkiPairs(externalEtcd) {
		files = append(files, p.name+".key", p.name+".crt")
	}
	return append(files, saKey, saPub)
}

// pki is what lies in a directory of kubeadm's PKI.
type pki struct {
	host         *host.Host
	dir          string
	externalEtcd bool
}

// missing are the files that are not there. What is there and does not belong together is an
// error that names it: a program that is killed leaves a key without its certificate, or an
// empty file, and kubeadm stumbles over the one and takes the other for good.
func (p pki) missing() ([]string, error) {
	var missing []string
	for _, pair := range pkiPairs(p.externalEtcd) {
		gone, err := p.pair(pair)
		if err != nil {
			return nil, err
		}
		missing = append(missing, gone...)
	}
	gone, err := p.serviceAccounts()
	return append(missing, gone...), err
}

// pair is which files of a pair are missing: none or both. A CA may lack its key, where somebody
// else signs.
func (p pki) pair(pair pkiPair) ([]string, error) {
	crt, err := p.read(pair.name + ".crt")
	if err != nil {
		return nil, err
	}
	key, err := p.read(pair.name + ".key")
	if err != nil {
		return nil, err
	}
	switch {
	case crt == nil && key == nil:
		return []string{pair.name + ".key", pair.name + ".crt"}, nil
	case key == nil && pair.ca == "":
		if _, err := firstCertificate(crt); err != nil {
			return nil, p.broken(pair, pair.name+".crt", err)
		}
		return nil, nil
	case key == nil:
		return nil, p.broken(pair, pair.name+".crt", errors.New("its key is missing"))
	case crt == nil:
		return nil, p.broken(pair, pair.name+".key", errors.New("its certificate is missing"))
	}
	if _, err := tls.X509KeyPair(crt, key); err != nil {
		return nil, p.broken(pair, pair.name+".crt", err)
	}
	if pair.ca == "" {
		return nil, nil
	}
	return nil, p.signed(pair, crt)
}

// signed says whether the CA that lies there is the one that signed the pair.
func (p pki) signed(pair pkiPair, crt []byte) error {
	caData, err := p.read(pair.ca + ".crt")
	if err != nil {
		return err
	}
	if caData == nil {
		return p.broken(pair, pair.name+".crt", fmt.Errorf("%s.crt, which signed it, is missing", pair.ca))
	}
	// A CA that is being replaced is there beside its successor, and a chain lies with its leaf.
	signers, err := certificatesIn(caData)
	if err != nil {
		return p.broken(pkiPair{name: pair.ca}, pair.ca+".crt", err)
	}
	chain, err := certificatesIn(crt)
	if err != nil {
		return p.broken(pair, pair.name+".crt", err)
	}
	for _, signer := range append(signers, chain[1:]...) {
		if chain[0].CheckSignatureFrom(signer) == nil {
			return nil
		}
	}
	return p.broken(pair, pair.name+".crt", fmt.Errorf("%s.crt did not sign it", pair.ca))
}

// serviceAccounts is which of the two files are missing: none or both. kubeadm makes no sa.pub
// for a key that is there.
func (p pki) serviceAccounts() ([]string, error) {
	key, err := p.read(saKey)
	if err != nil {
		return nil, err
	}
	pub, err := p.read(saPub)
	if err != nil {
		return nil, err
	}
	switch {
	case key == nil && pub == nil:
		return []string{saKey, saPub}, nil
	case key == nil:
		return nil, p.brokenFile(saPub, errors.New("its key is missing"))
	}
	want, err := publicKey(key)
	if err != nil {
		return nil, p.brokenFile(saKey, err)
	}
	if block, _ := pem.Decode(pub); block == nil || !bytes.Equal(block.Bytes, want) {
		return nil, p.brokenFile(saPub, errors.New("it is not there, or not the public half of "+saKey))
	}
	return nil, nil
}

// publicKey is the public half of a private key in PEM, in PKIX form, which is kubeadm's.
func publicKey(key []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, errors.New("it holds no key")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return x509.MarshalPKIXPublicKey(key.Public())
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return x509.MarshalPKIXPublicKey(key.Public())
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it holds no key that can be read")
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("it holds no key that signs")
	}
	return x509.MarshalPKIXPublicKey(signer.Public())
}

// firstCertificate is the certificate a file begins with.
func firstCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it holds no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// certificatesIn are all the certificates of a file: at least one.
func certificatesIn(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		crt, err := firstCertificate(data)
		if err != nil {
			if len(all) > 0 {
				err = nil // the rest is somebody's note
			}
			return all, err
		}
		all = append(all, crt)
		_, data = pem.Decode(data)
	}
}

// read is a file of the PKI; nil when it is not there.
func (p pki) read(name string) ([]byte, error) {
	data, err := p.host.ReadFile(filepath.Join(p.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read PKI: %w", err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// brokenFile is the error for a file that does not belong to the others, or cannot be read.
type brokenFile struct {
	path   string
	why    error
	remedy string // while there is no cluster yet
}

func (e *brokenFile) Error() string { return fmt.Sprintf("check %s: %v; %s", e.path, e.why, e.remedy) }

func (e *brokenFile) Unwrap() error { return e.why }

// broken is the error for a pair that does not belong together, with what mends it.
func (p pki) broken(pair pkiPair, file string, why error) error {
	remedy := "it is a CA: put it back from a backup"
	if pair.ca != "" {
		remedy = fmt.Sprintf("`rm -f %s %s` and `nodeagent apply` make the pair anew",
			filepath.Join(p.dir, pair.name+".crt"), filepath.Join(p.dir, pair.name+".key"))
	}
	return &brokenFile{path: filepath.Join(p.dir, file), why: why, remedy: remedy}
}

func (p pki) brokenFile(file string, why error) error {
	return &brokenFile{path: filepath.Join(p.dir, file), why: why, remedy: fmt.Sprintf(
		"put it back from a backup, or, as long as there is no cluster, `rm -f %s %s` and `nodeagent apply` make both anew",
		filepath.Join(p.dir, saKey), filepath.Join(p.dir, saPub))}
}
