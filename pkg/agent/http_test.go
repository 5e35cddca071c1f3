package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
)

func testServer(t *testing.T) Server {
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "nodeagent_test", Help: "For the test."})
	registry.MustRegister(gauge)
	ok := func() error { return nil }
	return Server{
		Registry: registry, Healthy: ok, Ready: ok, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Status: func(context.Context) Status { return Status{Host: "node-1"} },
	}
}

// serve runs s on a free port of loopback and returns its address, and what ends it.
func serve(t *testing.T, s Server, webConfigFile string) (address string, stop func() error) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l, webConfigFile) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { _ = stop() })
	return l.Addr().String(), stop
}

func get(t *testing.T, client *http.Client, url, user, password string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestServer(t *testing.T) {
	s := testServer(t)
	var sick error
	s.Ready = func() error { return errors.New("the bootstrap is not complete") }
	s.Healthy = func() error { return sick }
	address, stop := serve(t, s, "")
	base := "http://" + address
	client := &http.Client{}

	want := func(path string, code int, text string) {
		t.Helper()
		got, _, body := get(t, client, base+path, "", "")
		if got != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %q, want %d and %q", path, got, body, code, text)
		}
	}
	want("/healthz", http.StatusOK, "ok\n")
	sick = errors.New("job snapshot is past its deadline")
	want("/healthz", http.StatusServiceUnavailable, "job snapshot is past its deadline")
	want("/readyz", http.StatusServiceUnavailable, "the bootstrap is not complete")
	want("/", http.StatusOK, "<h1>node-1")
	want("/nothing", http.StatusNotFound, "")
	want("/metrics", http.StatusOK, "nodeagent_test 0")
	resp, err := client.Post(base+"/metrics", "text/plain", nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	}
	_ = resp.Body.Close()

	_, _, page := get(t, client, base+"/metrics", "", "")
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	if err := stop(); err != nil {
		t.Errorf("a server that is told to stop returns %v", err)
	}
	if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		_ = conn.Close()
		t.Error("the port is open after the end")
	}
}

// A request in progress is answered before the server ends.
func TestServerEndsGracefully(t *testing.T) {
	s := testServer(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	s.Healthy = func() error { close(entered); <-leave; return nil }
	address, stop := serve(t, s, "")
	answered := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + address + "/healthz")
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		t.Fatalf("ended with a request in progress: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough for a server that does not wait
	}
	close(leave)
	if code := <-answered; code != http.StatusOK {
		t.Errorf("the request in progress got %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "metrics.listen") || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want the key, the address and why", err)
	}
}

// An exporter-toolkit file gives TLS with a client's certificate, and basic auth.
func TestWebConfig(t *testing.T) {
	root := t.TempDir()
	if err := certstest.Write(root, certstest.Options{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	pki := filepath.Join(root, certstest.Dir, "pki")
	// The hash of "open sesame", of the least cost.
	const hash = "$2a$04$dNM5hMkAD6ewDFY41QRuuOnITsiE7ndX0P/feQ1B6okw.VSkQI73y"
	config := filepath.Join(root, "web.yaml")
	text := "tls_server_config:\n  cert_file: " + pki + "/apiserver.crt\n  key_file: " + pki + "/apiserver.key\n" +
		"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: " + pki + "/ca.crt\n" +
		"basic_auth_users:\n  prometheus: " + hash + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address, stop := serve(t, testServer(t), config)
	pair, err := tls.LoadX509KeyPair(pki+"/apiserver-kubelet-client.crt", pki+"/apiserver-kubelet-client.key")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(pki + "/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	for _, test := range []struct {
		user, password string
		code           int
	}{{"", "", 401}, {"prometheus", "guess", 401}, {"prometheus", "open sesame", 200}} {
		if code, _, body := get(t, client, "https://"+address+"/metrics", test.user, test.password); code != test.code {
			t.Errorf("%q %q: %d, want %d: %s", test.user, test.password, code, test.code, body)
		}
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	if resp, err := stranger.Get("https://" + address + "/metrics"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("without a client's certificate: %s", resp.Status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestBrokenWebConfig(t *testing.T) {
	for name, text := range map[string]string{"not there": "", "unknown key": "tls: {}\n", "no certificate": "tls_server_config: {cert_file: /none, key_file: /none}\n"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "web.yaml")
			if text != "" {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = testServer(t).Serve(ctx, l, file)
			if err == nil || ctx.Err() != nil || !strings.HasPrefix(err.Error(), "serve metrics: ") {
				t.Errorf("served with a broken web.yaml: %v", err)
			}
			if again, err := Listen(t.Context(), l.Addr().String()); err != nil {
				t.Errorf("the port is not given back: %v", err)
			} else {
				_ = again.Close()
			}
		})
	}
}
