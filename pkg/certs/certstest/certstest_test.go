package certstest_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
)

var now = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

func write(t *testing.T, o certstest.Options) string {
	t.Helper()
	root := t.TempDir()
	if err := certstest.Write(root, o); err != nil {
		t.Fatal(err)
	}
	return root
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every leaf verifies against its CA, for its usage, and fits the key beside it.
func TestLeaves(t *testing.T) {
	dir := filepath.Join(write(t, certstest.Options{Now: now}), certstest.Dir, "pki")
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for file, want := range map[string]struct {
		ca     string
		usages []x509.ExtKeyUsage
		hosts  []string
	}{
		"apiserver":                {"ca", []x509.ExtKeyUsage{server}, []string{"node-1", "kubernetes.default.svc", "10.96.0.1", "127.0.0.1"}},
		"apiserver-kubelet-client": {"ca", []x509.ExtKeyUsage{client}, nil},
		"apiserver-etcd-client":    {"etcd/ca", []x509.ExtKeyUsage{client}, nil},
		"front-proxy-client":       {"front-proxy-ca", []x509.ExtKeyUsage{client}, nil},
		"etcd/server":              {"etcd/ca", []x509.ExtKeyUsage{server, client}, []string{"node-1", "localhost", "127.0.0.1", "::1"}},
		"etcd/peer":                {"etcd/ca", []x509.ExtKeyUsage{server, client}, []string{"node-1", "localhost", "127.0.0.1", "::1"}},
		"etcd/healthcheck-client":  {"etcd/ca", []x509.ExtKeyUsage{client}, nil},
	} {
		p, err := tls.X509KeyPair(read(t, dir, file+".crt"), read(t, dir, file+".key"))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(read(t, dir, want.ca+".crt"))
		for _, usage := range want.usages {
			if _, err := p.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("%s, usage %v: %v", file, usage, err)
			}
		}
		for _, host := range want.hosts {
			if err := p.Leaf.VerifyHostname(host); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// Private keys are closed to others, and the files are the 22 of kubeadm.
func TestFiles(t *testing.T) {
	root := write(t, certstest.Options{Now: now, Kubelet: true})
	inPKI := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if strings.Contains(path, "/pki/") && strings.Contains(path, certstest.Dir) {
			inPKI++
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if bytes.Contains(read(t, path), []byte("PRIVATE KEY")) && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || inPKI != 22 {
		t.Errorf("%d files in pki, want 22 (%v)", inPKI, err)
	}
	current := filepath.Join(root, certstest.KubeletDir, "kubelet-client-current.pem")
	target, err := os.Readlink(current)
	if err != nil {
		t.Fatal(err)
	}
	both := read(t, root, target)
	if _, err := tls.X509KeyPair(both, both); err != nil {
		t.Errorf("%s: %v", target, err)
	}
}

func TestValidity(t *testing.T) {
	root := write(t, certstest.Options{Now: now, Validity: map[string]time.Duration{"pki/ca.crt": time.Hour, "pki/etcd/peer.crt": -time.Hour}})
	for file, want := range map[string]time.Time{
		"ca.crt": now.Add(time.Hour), "etcd/peer.crt": now.Add(-time.Hour), "apiserver.crt": now.Add(certstest.DefaultValidity),
	} {
		block, _ := pem.Decode(read(t, root, certstest.Dir, "pki", file))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !c.NotAfter.Equal(want) || !c.NotBefore.Before(c.NotAfter) {
			t.Errorf("%s: from %v to %v, want an end at %v", file, c.NotBefore, c.NotAfter, want)
		}
	}
}

func TestRefused(t *testing.T) {
	if err := certstest.Write(t.TempDir(), certstest.Options{}); err == nil {
		t.Error("no Now: no error")
	}
	err := certstest.Write(t.TempDir(), certstest.Options{Now: now, Validity: map[string]time.Duration{"pki/apiserver": time.Hour}})
	if err == nil || !strings.Contains(err.Error(), "pki/apiserver") {
		t.Errorf("validity of no file: %v", err)
	}
}
