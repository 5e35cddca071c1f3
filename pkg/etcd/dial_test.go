package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
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
	want := etcd.Local{
		Name: "cp1", DataDir: "/var/lib/etcd", Endpoint: "https://127.0.0.1:2379",
		CAFile: etcdtest.PKI + "/ca.crt", CertFile: etcdtest.PKI + "/server.crt", KeyFile: etcdtest.PKI + "/server.key",
	}
	if got := find(t, h); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	write(t, h, etcdtest.PKI+"/healthcheck-client.crt", nil)
	if got := find(t, h); got != want {
		t.Errorf("a client certificate without its key is used: %+v", got)
	}
	write(t, h, etcdtest.PKI+"/healthcheck-client.key", nil)
	want.CertFile, want.KeyFile = etcdtest.PKI+"/healthcheck-client.crt", etcdtest.PKI+"/healthcheck-client.key"
	if got := find(t, h); got != want {
		t.Errorf("got %+v, want %+v", got, want)
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

	// Each dial reads the files anew: a client certificate that etcd does not trust is used
	// as soon as it is there, and so is the next one.
	ca := etcdtest.NewCA()
	cert, key := ca.Issue("stranger")
	write(t, h, etcdtest.PKI+"/healthcheck-client.crt", cert)
	write(t, h, etcdtest.PKI+"/healthcheck-client.key", key)
	wantError(t, dial(t, h), "remote error: tls: ")
	_, otherKey := ca.Issue("stranger")
	write(t, h, etcdtest.PKI+"/healthcheck-client.key", otherKey)
	wantError(t, dial(t, h), "private key does not match")
	if err := h.Remove(etcdtest.PKI + "/healthcheck-client.key"); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, h); err != nil {
		t.Fatal("with the server pair again:", err)
	}
}

func TestDialVerifiesTheServer(t *testing.T) {
	m := start(t)
	h := m.Host
	l := find(t, h)

	// etcd reads its own pair at every handshake, so that the server's names can be changed
	// under it.
	ca, err := h.ReadFile(l.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, h, l.CAFile, []byte("no PEM"))
	wantError(t, dial(t, h), "no certificate in "+l.CAFile)
	if err := h.Remove(l.CAFile); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, h); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a CA file: %v, want fs.ErrNotExist", err)
	}
	write(t, h, l.CAFile, ca)

	other := etcdtest.NewCA()
	if err := etcdtest.WritePKI(h, other, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	write(t, h, l.CAFile, ca)
	wantError(t, dial(t, h), "unknown authority")

	if err := etcdtest.WritePKI(h, other, "192.0.2.10"); err != nil {
		t.Fatal(err)
	}
	wantError(t, dial(t, h), "not 127.0.0.1")
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
	l := etcd.Local{Endpoint: "http://" + listener.Addr().String()}

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
	wantError(t, err, fmt.Sprintf("dial etcd at %s", l.Endpoint))
}
