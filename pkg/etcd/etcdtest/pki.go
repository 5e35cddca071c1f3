package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// CA is a certificate authority.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// NewCA makes one. It panics when it cannot: there is no randomness then.
func NewCA() CA {
	template := template("etcd-ca")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return CA{cert: must(x509.ParseCertificate(der)), key: key, pem: encode("CERTIFICATE", der)}
}

// PEM is its certificate.
func (ca CA) PEM() []byte { return ca.pem }

// Issue returns a pair, as PEM, for the given names and addresses; one without names is for
// clients only.
func (ca CA) Issue(commonName string, sans ...string) (cert, key []byte) {
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(sans) > 0 {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	return ca.IssueFor(usages, commonName, sans...)
}

// IssueFor is Issue for the given usages alone; none of them leaves the extension out.
func (ca CA) IssueFor(usages []x509.ExtKeyUsage, commonName string, sans ...string) (cert, key []byte) {
	template := template(commonName)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = usages
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key))
	return encode("CERTIFICATE", der), encode("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(private)))
}

// WritePKI writes what kubeadm would into PKI, with the server valid for sans.
func WritePKI(h *host.Host, ca CA, sans ...string) error {
	server, serverKey := ca.Issue("cp1", sans...)
	client, clientKey := ca.Issue("kube-etcd-healthcheck-client")
	for name, data := range map[string][]byte{
		"ca.crt": ca.pem, "server.crt": server, "server.key": serverKey,
		"healthcheck-client.crt": client, "healthcheck-client.key": clientKey,
	} {
		if err := h.WriteFile(filepath.Join(PKI, name), data, 0o600); err != nil {
			return fmt.Errorf("write PKI: %w", err)
		}
	}
	return nil
}

// template is valid at any time a test may run.
func template(commonName string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
