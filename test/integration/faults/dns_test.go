//go:build integration

package faults_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
)

const (
	mirror     = "packages.example"
	mirrorPort = "8443"
)

// freshConfig is that of a machine which gets its packages from a mirror. What a container cannot
// have is ignored.
const freshConfig = `role: worker
node: {address: 10.77.0.1}
preflight: {ignore: [CgroupV2, SystemVerification, Mem, NumCPU, DiskSpace, TimeSync, Hostname]}
packages: {repository: {url: "https://` + mirror + `:` + mirrorPort + `/deb"}}
`

// A fresh machine whose name resolution is broken when its packages are to be fetched: the bootstrap
// says so, and goes on by itself once the mirror's name is known.
func TestNoNames(t *testing.T) {
	b := buildAll(t)
	n := b.node(t, freshConfig)
	serve(t, n, smallRepository(t))
	n.Script(t, `rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; apt-get -q update
		echo nameserver 127.0.0.1 >/etc/resolv.conf`)
	n.start(t)
	n.metric(t, clean("packages/repository")+"0")
	n.Wait(t, patience, "journalctl -u nodeagent -o cat | grep -F 'bootstrap failed; it is tried again' | grep -F 'lookup "+mirror+"'")
	n.Wait(t, patience, "systemctl show -P StatusText nodeagent.service | grep -F 'bootstrap failed, next try in' | grep -F 'lookup "+mirror+"'")
	n.status(t, "step packages/repository: ", "lookup "+mirror)
	n.Script(t, "test ! -e /etc/apt/sources.list.d/nodeagent-kubernetes.sources; test ! -e /etc/apt/keyrings/nodeagent-kubernetes.asc; test -z \"$(find /etc/apt -name '.*')\"")
	before := n.same(t)
	n.Script(t, "echo 127.0.0.1 "+mirror+" >>/etc/hosts")
	n.metric(t, clean("packages")+"1")
	n.silent(t, "lookup "+mirror)
	if now := n.same(t); now != before {
		t.Errorf("the daemon was %q and is %q", before, now)
	}
}

// smallRepository is a repository of packages of the right names with next to nothing in them.
func smallRepository(t *testing.T) (dir string) {
	t.Helper()
	key, err := lab.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range []string{"kubelet", "kubeadm", "kubectl", "containerd"} {
		deb := lab.Deb{
			Name: name, Version: "1.36.2-1.1", Description: "small", Fields: "Maintainer: nobody <nobody@nodeagent.invalid>\n",
			Files: []lab.DebFile{{Path: "/usr/bin/" + name, Content: "#!/bin/sh\n", Mode: 0o755}},
		}
		file, err := deb.Write(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	dir = t.TempDir()
	if err := lab.WriteRepository(t.Context(), dir, files, key); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve serves a directory over TLS, on the loopback of a machine that trusts it and does not know
// its name.
func serve(t *testing.T, n node, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{mirror}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener := tls.NewListener(n.Listen(t, "127.0.0.1:"+mirrorPort), &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	server := &http.Server{Handler: http.StripPrefix("/deb/", http.FileServer(http.Dir(dir))), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	n.Write(t, "/usr/local/share/ca-certificates/mirror.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	n.Script(t, "update-ca-certificates >/dev/null 2>&1")
}
