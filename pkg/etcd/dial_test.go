package etcd_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func start(t *testing.T) *etcdtest.Member {
	t.Helper()
	m, err := etcdtest.Start(host.New(t.TempDir()), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func write(t *testing.T, h *host.Host, path string, data []byte) {
	t.Helper()
	if err := h.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, h *host.Host) etcd.Local {
	t.Helper()
	l, err := etcd.FindLocal(h)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial finds and dials, and closes what it got.
func dial(t *testing.T, h *host.Host) error {
	t.Helper()
	client, err := find(t, h).Dial(t.Context(), h)
	if err == nil {
		err = client.Close()
	}
	return err
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error %v, want one with %q", err, part)
	}
}

func TestFindLocal(t *testing.T) {
	h := host.New(t.TempDir())
	if _, err := etcd.FindLocal(h); !errors.Is(err, etcd.ErrNoMember) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a manifest: %v, want ErrNoMember and fs.ErrNotExist", err)
	}
	write(t, h, etcd.Manifest, etcdtest.Manifest("https", "2379"))
	l := find(t, h)
	if l.Name != "cp1" || l.DataDir != "/var/lib/etcd" || !slices.Equal(l.Endpoints, []string{"https://127.0.0.1:2379"}) || !l.Stacked {
		t.Errorf("found %+v", l)
	}
}

func TestFindLocalUnreadable(t *testing.T) {
	h := host.New(t.TempDir())
	if err := h.MkdirAll(etcd.Manifest, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.FindLocal(h); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a manifest that cannot be read: %v, want an error other than fs.ErrNotExist", err)
	}
}

func TestDial(t *testing.T) {
	m := start(t)
	h := m.Host
	if err := dial(t, h); err != nil {
		t.Fatal("with the health check client:", err)
	}

	for _, name := range []string{"healthcheck-client.crt", "healthcheck-client.key"} {
		if err := h.Remove(filepath.Join(etcdtest.PKI, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := dial(t, h); err != nil {
		t.Fatal("with the server pair:", err)
	}

	// Each dial reads the files anew: a client certificate that etcd does not trust gives way
	// to the next, and so does one whose key is another's.
	ca := etcdtest.NewCA()
	cert, key := ca.Issue("stranger")
	write(t, h, etcdtest.PKI+"/healthcheck-client.crt", cert)
	write(t, h, etcdtest.PKI+"/healthcheck-client.key", key)
	if err := dial(t, h); err != nil {
		t.Fatal("with the server pair after a stranger's:", err)
	}
	_, otherKey := ca.Issue("stranger")
	write(t, h, etcdtest.PKI+"/healthcheck-client.key", otherKey)
	if err := dial(t, h); err != nil {
		t.Fatal("with the server pair after half a pair:", err)
	}
}

// Where no client certificate does, the error names each and says why.
func TestDialWithoutClientCertificate(t *testing.T) {
	h := host.New(t.TempDir())
	ca := etcdtest.NewCA()
	if err := etcdtest.WritePKI(h, ca, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	cert, key := ca.IssueFor([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, "cp1", "127.0.0.1")
	write(t, h, etcdtest.PKI+"/server.crt", cert)
	write(t, h, etcdtest.PKI+"/server.key", key)
	cert, key = etcdtest.NewCA().Issue("stranger")
	write(t, h, etcdtest.PKI+"/healthcheck-client.crt", cert)
	write(t, h, etcdtest.PKI+"/healthcheck-client.key", key)
	m, err := etcdtest.Run(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	err = dial(t, h)
	for _, part := range []string{
		"no client certificate that etcd takes: " + etcdtest.PKI + "/healthcheck-client.crt: etcd refuses the client: remote error: tls: ",
		etcdtest.PKI + "/server.crt is not for clients", "set backup.certFile and backup.keyFile",
	} {
		wantError(t, err, part)
	}

	// What is configured is used and nothing else, and what cannot be read is named.
	configured := etcd.Choice{CertFile: "/mine.crt", KeyFile: "/mine.key"}
	try := func() error {
		l, err := etcd.Find(t.Context(), h, configured)
		if err != nil {
			t.Fatal(err)
		}
		client, err := l.Dial(t.Context(), h)
		if err == nil {
			err = client.Close()
		}
		return err
	}
	wantError(t, try(), "/mine.crt: no such file or directory")
	cert, key = ca.Issue("mine")
	write(t, h, "/mine.crt", cert)
	wantError(t, try(), "/mine.key: no such file or directory")
	write(t, h, "/mine.key", key)
	if err := try(); err != nil {
		t.Error("with the pair that is configured:", err)
	}
}

func TestDialVerifiesTheServer(t *testing.T) {
	m := start(t)
	h := m.Host

	// etcd reads its own pair at every handshake, so that the server's names can be changed
	// under it.
	ca, err := h.ReadFile(etcdtest.PKI + "/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	write(t, h, etcdtest.PKI+"/ca.crt", []byte("no PEM"))
	wantError(t, dial(t, h), "no certificate in "+etcdtest.PKI+"/ca.crt")
	if err := h.Remove(etcdtest.PKI + "/ca.crt"); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, h); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a CA file: %v, want fs.ErrNotExist", err)
	}
	write(t, h, etcdtest.PKI+"/ca.crt", ca)

	other := etcdtest.NewCA()
	if err := etcdtest.WritePKI(h, other, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	write(t, h, etcdtest.PKI+"/ca.crt", ca)
	wantError(t, dial(t, h), "name the authority of etcd's certificate in backup.caFile")

	if err := etcdtest.WritePKI(h, other, "192.0.2.10", "elsewhere.invalid"); err != nil {
		t.Fatal(err)
	}
	err = dial(t, h)
	var names *etcd.NamesError
	if !errors.As(err, &names) || names.Dialed != "127.0.0.1" || !slices.Equal(names.Names, []string{"elsewhere.invalid", "192.0.2.10"}) {
		t.Errorf("error %v, want a NamesError with what the certificate names", err)
	}
	wantError(t, err, "backup.endpoints")
}

// Another name of this host's that the certificate has is used instead of the first.
func TestDialByAnotherName(t *testing.T) {
	h := host.New(t.TempDir())
	if err := etcdtest.WritePKI(h, etcdtest.NewCA(), "localhost", "vip.invalid"); err != nil {
		t.Fatal(err)
	}
	m, err := etcdtest.Run(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := find(t, h).Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if got := client.Endpoints(); !slices.Equal(got, []string{"https://localhost:" + m.Port}) {
		t.Errorf("connected to %v", got)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestDialPlain(t *testing.T) {
	cfg := embed.NewConfig()
	cfg.Dir, cfg.UnsafeNoFsync = t.TempDir(), true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = loopback, loopback, loopback, loopback
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, port, err := net.SplitHostPort(e.Clients[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := host.New(t.TempDir())
	write(t, h, etcd.Manifest, etcdtest.Manifest("http", port))
	if err := dial(t, h); err != nil {
		t.Fatal(err)
	}
}

func TestDialNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := host.New(t.TempDir())
	l := etcd.Local{Endpoints: []string{"http://" + listener.Addr().String()}}

	// Connections are taken and never answered.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Dial(ctx, h); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a member that does not answer: %v, want the deadline", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = l.Dial(t.Context(), h)
	wantError(t, err, "connection refused")
	wantError(t, err, fmt.Sprintf("dial etcd at %s", l.Endpoints[0]))
}
