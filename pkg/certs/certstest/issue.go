package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"time"
)

// backdate is how long before Now certificates begin.
const backdate = 5 * time.Minute

// pair is a certificate and its key, both PEM.
type pair struct{ cert, key []byte }

// authority is a CA that can sign.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// leaf is a certificate to be issued. A file of the PKI is named without its extension.
type leaf struct {
	file, ca     string
	name         string
	organization string
	usage        []x509.ExtKeyUsage
	dns          []string
	ips          []net.IP
}

func (w *writer) leaves() []leaf {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	local := []net.IP{w.Address, net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", w.Node}
	return []leaf{
		{file: "pki/apiserver", ca: "pki/ca", name: "kube-apiserver", usage: server, dns: names, ips: []net.IP{net.IPv4(10, 96, 0, 1), w.Address}},
		{file: "pki/apiserver-kubelet-client", ca: "pki/ca", name: "kube-apiserver-kubelet-client", organization: "kubeadm:cluster-admins", usage: client},
		{file: "pki/front-proxy-client", ca: "pki/front-proxy-ca", name: "front-proxy-client", usage: client},
		{file: "pki/etcd/server", ca: "pki/etcd/ca", name: w.Node, usage: both, dns: []string{"localhost", w.Node}, ips: local},
		{file: "pki/etcd/peer", ca: "pki/etcd/ca", name: w.Node, usage: both, dns: []string{"localhost", w.Node}, ips: local},
		{file: "pki/etcd/healthcheck-client", ca: "pki/etcd/ca", name: "kube-etcd-healthcheck-client", usage: client},
		{file: "pki/apiserver-etcd-client", ca: "pki/etcd/ca", name: "kube-apiserver-etcd-client", usage: client},
	}
}

func (w *writer) authority(file, name string) (*authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := w.sign(template, w.ends(file+".crt", DefaultCAValidity), template, key, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	p, err := encode(der, key)
	if err != nil {
		return nil, err
	}
	return &authority{certificate, key, p.cert}, errors.Join(
		w.put(Dir, file+".crt", p.cert, 0o644), w.put(Dir, file+".key", p.key, 0o600))
}

// issue makes a key and has its certificate signed. Files of the PKI are looked up in Validity
// as the ".crt" that they become.
func (w *writer) issue(ca *authority, l leaf) (pair, error) {
	file := l.file
	if l.ca != "" {
		file += ".crt"
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: l.name},
		DNSNames:              l.dns,
		IPAddresses:           l.ips,
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           l.usage,
		BasicConstraintsValid: true,
	}
	if l.organization != "" {
		template.Subject.Organization = []string{l.organization}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	der, err := w.sign(template, w.ends(file, DefaultValidity), ca.certificate, key, ca.key)
	if err != nil {
		return pair{}, err
	}
	return encode(der, key)
}

func (w *writer) sign(template *x509.Certificate, ends time.Time, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	template.NotBefore = w.Now.Add(-backdate)
	template.NotAfter = ends
	if !ends.After(template.NotBefore) { // one that has ended began before that
		template.NotBefore = ends.Add(-backdate)
	}
	return x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
}

func encode(der []byte, key *ecdsa.PrivateKey) (pair, error) {
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// serviceAccount writes the pair that signs service account tokens; it has no certificate.
func (w *writer) serviceAccount() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	p, err := encode(nil, key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return errors.Join(
		w.put(Dir, "pki/sa.key", p.key, 0o600),
		w.put(Dir, "pki/sa.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600),
	)
}
