//go:build integration

package packages_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	repositoryHost = "packages.example"
	repositoryPort = "8443"
	serverURL      = "https://" + repositoryHost + ":" + repositoryPort + "/k8s/v1.36/deb"
	overTLS        = `repository: {url: "` + serverURL + `"}`
)

// server serves a directory over TLS, on the loopback of a machine that trusts it.
type server struct {
	files http.Handler
	mu    sync.Mutex
	asked map[string]int
	cut   string // requests that end so are cut off half-way
}

// serve makes a server of dir, by the name that overTLS has.
func serve(t *testing.T, n node, dir string) *server {
	t.Helper()
	pair, ca := certificate(t)
	s := &server{files: http.StripPrefix("/k8s/v1.36/deb/", http.FileServer(http.Dir(dir))), asked: map[string]int{}}
	listener := n.Listen(t, "127.0.0.1:"+repositoryPort)
	web := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = web.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})) }()
	t.Cleanup(func() { _ = web.Close() })
	n.Write(t, "/usr/local/share/ca-certificates/lab.crt", ca, 0o644)
	n.Script(t, "update-ca-certificates; echo 127.0.0.1 "+repositoryHost+" >>/etc/hosts")
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked[filepath.Base(r.URL.Path)]++
	cut := s.cut != "" && strings.HasSuffix(r.URL.Path, s.cut)
	s.mu.Unlock()
	if !cut {
		s.files.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Length", "100000")
	_, _ = w.Write(make([]byte, 5000))
	panic(http.ErrAbortHandler)
}

func (s *server) times(file string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[file]
}

func (s *server) cutOff(suffix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = suffix
}

// certificate is the server's, and the CA that signed it: itself.
func certificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: repositoryHost}, DNSNames: []string{repositoryHost},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// overHTTPS installs a patch that is not the newest. The key is fetched once, and it is apt's
// proxy that is asked, where there is one.
func overHTTPS(t *testing.T, n node) {
	s := serve(t, n, filepath.Join(labRepository(t), "kubernetes"))
	older := strings.TrimPrefix(lab.OlderKubernetesVersion, "v")
	n.configure(t, `kubernetesVersion: "`+older+`", `+overTLS)
	n.Write(t, "/etc/apt/apt.conf.d/99proxy", []byte(`Acquire::https::Proxy "http://127.0.0.1:1";`+"\n"), 0o644)
	n.refuse(t, "fetch key of repository", "proxyconnect", "127.0.0.1:1")
	n.Script(t, "test ! -e /etc/apt/sources.list.d/nodeagent-kubernetes.sources")
	n.Write(t, "/etc/apt/apt.conf.d/99proxy", []byte(`Acquire::https::Proxy "http://127.0.0.1:1"; Acquire::https::Proxy::`+repositoryHost+` "DIRECT";`+"\n"), 0o644)
	n.apply(t)
	n.wantVersion(t, older+"-1.1")
	n.apply(t)
	if times := s.times("Release.key"); times != 1 {
		t.Errorf("the key was asked for %d times", times)
	}
	if out := n.Script(t, "apt-cache policy kubernetes-cni kubelet; apt-get -q -y upgrade; apt-get -q -y dist-upgrade"); !strings.Contains(out, "Candidate: "+older) {
		t.Errorf("the candidate is another:\n%s", out)
	}
	n.wantVersion(t, older+"-1.1")
}

func labRepository(t *testing.T) string {
	t.Helper()
	dir, err := lab.Repository(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// cutConnection is a server that goes away in the middle of the key, the index, a package.
func cutConnection(t *testing.T, n node) {
	s := serve(t, n, n.own)
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	n.configure(t, overTLS)
	s.cutOff("Release.key")
	n.refuse(t, "fetch key of repository", "unexpected EOF")
	n.Script(t, "test ! -e /etc/apt/keyrings/nodeagent-kubernetes.asc")
	for _, file := range []string{"InRelease", "Packages.gz", "_amd64.deb"} {
		s.cutOff(file)
		n.refuse(t, "E: Failed to fetch https://"+repositoryHost, log)
	}
	s.cutOff("")
	n.apply(t)
}

// noWay is a name that nobody knows, and a port where nobody listens.
func noWay(t *testing.T, n node) {
	n.publish(t, newKey(t), append(small("1.36.2-1.1"), containerd())...)
	n.Script(t, "cp "+testDir+"/Release.key /root/key.asc; echo 127.0.0.1 "+repositoryHost+" >>/etc/hosts")
	// The order counts: the key of the last repository is there already, and only another one's
	// is fetched.
	for _, try := range []struct{ url, want string }{
		{"https://" + repositoryHost + ":1/k8s", "Could not connect"},
		{"http://nowhere.example/k8s", "resolv"},
	} {
		n.configure(t, `repository: {url: "`+try.url+`", keyFile: /root/key.asc}`)
		n.refuse(t, "E: Failed to fetch", try.want, "the repository is not reached: check DNS")
	}
	n.configure(t, `repository: {url: "https://`+repositoryHost+`:1/k8s"}`)
	n.refuse(t, "fetch key of repository", "connection refused", "packages.repository.keyFile")
}
