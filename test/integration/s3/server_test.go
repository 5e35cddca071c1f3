//go:build integration

// Package s3_test holds the store in S3 against a real server, versitygw, and against what happens
// to one: down, hanging, slow, cut off, out of order, without the right, with a clock of its own.
package s3_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/s3"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	accessKey = "AKIDNODEAGENTTEST"
	secretKey = "wJalrXUtnFEMIcafeK7MDENGbPxRfiCYnodeagent"
	bucket    = "backups"
	patience  = time.Minute // for the server to start
)

// server is a versitygw on loopback, whose buckets are directories.
type server struct {
	addr, dir, ca string // ca is a file; "" without TLS
	admin         *minio.Client
	out           *output
}

type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(data)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// end is the last of it.
func (o *output) end() string {
	text := o.String()
	return text[max(0, len(text)-3000):]
}

// start runs a server with one bucket, with TLS or without, until the test ends.
func start(t *testing.T, secure bool, flags ...string) *server {
	t.Helper()
	bin, err := lab.Versitygw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: freePort(t), dir: t.TempDir(), out: &output{}}
	args := []string{"--port", s.addr, "--access", accessKey, "--secret", secretKey, "--iam-dir", t.TempDir(), "--iam-cache-disable"}
	if secure {
		cert, key := certificate(t, "127.0.0.1", "*.s3.test", "s3.test")
		args, s.ca = append(args, "--cert", cert, "--key", key), cert
	}
	cmd := exec.Command(filepath.Join(bin, "versitygw"), append(append(args, flags...), "posix", "--versioning-dir", t.TempDir(), s.dir)...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the child dies with the thread that started it
		started <- cmd.Start()
		_ = cmd.Wait() // how it ends is told by its output
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("versitygw, at last:\n%s", s.out.end())
		}
	})
	s.admin = s.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := s.admin.MakeBucket(ctx, bucket, minio.MakeBucketOptions{ObjectLocking: true})
		if err == nil {
			return s
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("versitygw does not answer: %v\n%s", err, s.out)
		}
	}
}

// client is the test's own, by which it does what an administrator does.
func (s *server) client(t *testing.T) *minio.Client {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if s.ca != "" {
		pem, err := os.ReadFile(s.ca)
		if err != nil {
			t.Fatal(err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
	}
	client, err := minio.New(s.addr, &minio.Options{
		Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Secure: s.ca != "", Transport: transport,
		Region: "us-east-1", BucketLookup: minio.BucketLookupPath, MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return client
}

// node is a host with the keys of the server and its authority in files.
type node struct {
	*host.Host
	cfg etcdbackup.S3Config
}

func (s *server) node(t *testing.T) *node {
	t.Helper()
	n := &node{host.New(t.TempDir()), etcdbackup.S3Config{
		Endpoint: "http://" + s.addr, Bucket: bucket, PathStyle: true,
		AccessKeyFile: "/etc/nodeagent/s3/access", SecretKeyFile: "/etc/nodeagent/s3/secret",
	}}
	n.keys(t, accessKey, secretKey)
	if s.ca != "" {
		n.cfg.Endpoint, n.cfg.CAFile = "https://"+s.addr, "/etc/nodeagent/s3/ca.crt"
		pem, err := os.ReadFile(s.ca)
		if err != nil {
			t.Fatal(err)
		}
		n.write(t, n.cfg.CAFile, string(pem), 0o644)
	}
	return n
}

func (n *node) write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	path = filepath.Join(n.Root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func (n *node) keys(t *testing.T, access, secret string) {
	t.Helper()
	n.write(t, n.cfg.AccessKeyFile, access+"\n", 0o600)
	n.write(t, n.cfg.SecretKeyFile, secret+"\n", 0o600)
}

// store is one that validates, for a server that is quick.
func (n *node) store(t *testing.T) *s3.Store {
	t.Helper()
	cfg := etcdbackup.DefaultConfig()
	cfg.Stores = []etcdbackup.StoreConfig{{S3: &n.cfg}}
	cfg.Recipients = []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"} // a bucket without any is a mistake
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	store, err := s3.New(n.Host, n.cfg, "cp-1")
	if err != nil {
		t.Fatal(err)
	}
	store.Patience.Pause = time.Millisecond
	return store
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// certificate makes one that is its own authority, for an address and names.
func certificate(t *testing.T, address string, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "s3 of the test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, DNSNames: names,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
