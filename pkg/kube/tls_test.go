package kube_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/kube"
)

// listen serves each connection with serve until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { serve(conn); _ = conn.Close() }()
		}
	}()
	return l.Addr().String()
}

func tlsServer(t *testing.T, change func(*tls.Config)) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{}
	change(server.TLS)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAnswersTLS(t *testing.T) {
	certificate := ownCertificate(t)
	closed := listen(t, func(net.Conn) {})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	tests := map[string]struct {
		address string
		want    bool
	}{
		"TLS":                       {tlsServer(t, func(*tls.Config) {}), true},
		"TLS 1.2":                   {tlsServer(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), true},
		"client certificate":        {tlsServer(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), true},
		"client certificate at 1.2": {tlsServer(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert; c.MaxVersion = tls.VersionTLS12 }), true},
		"alert": {tlsServer(t, func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return &tls.Config{}, nil } // has no certificate
		}), true},
		"closed after its hello": {listen(t, func(c net.Conn) {
			_ = tls.Server(&oneFlight{Conn: c}, &tls.Config{Certificates: certificate, MaxVersion: tls.VersionTLS12}).Handshake()
		}), true},
		"refused": {free.Addr().String(), false},
		"closed":  {closed, false},
		"plain HTTP": {listen(t, func(c net.Conn) {
			_, _ = bufio.NewReader(c).Peek(1)
			_, _ = c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
		}), false},
		"SSH":    {listen(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")) }), false},
		"silent": {listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Read(make([]byte, 1)) }), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := kube.AnswersTLS(t.Context(), tt.address)
			if err != nil || got != tt.want {
				t.Errorf("%v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// oneFlight is a connection that ends once something has been written to it.
type oneFlight struct {
	net.Conn
	written bool
}

func (c *oneFlight) Write(data []byte) (int, error) { c.written = true; return c.Conn.Write(data) }

func (c *oneFlight) Read(data []byte) (int, error) {
	if c.written {
		return 0, io.EOF
	}
	return c.Conn.Read(data)
}

func ownCertificate(t *testing.T) []tls.Certificate {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	return server.TLS.Certificates
}

func TestAnswersTLSCannotTell(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1", ":6443", "127.0.0.1:", "a:b:c"} {
		if _, err := kube.AnswersTLS(t.Context(), address); err == nil {
			t.Errorf("%q: no error", address)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kube.AnswersTLS(ctx, tlsServer(t, func(*tls.Config) {})); err == nil {
		t.Error("ctx ended: no error")
	}
}

// Nothing is sent after the handshake.
func TestAnswersTLSSendsNothing(t *testing.T) {
	got := make(chan int, 1)
	certificate := ownCertificate(t)
	address := listen(t, func(c net.Conn) {
		n, _ := tls.Server(c, &tls.Config{Certificates: certificate}).Read(make([]byte, 1))
		got <- n
	})
	if ok, err := kube.AnswersTLS(t.Context(), address); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if n := <-got; n != 0 {
		t.Errorf("%d bytes were sent", n)
	}
}
