package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
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
