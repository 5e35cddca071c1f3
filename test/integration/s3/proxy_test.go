//go:build integration

package s3_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// fault is what happens to a connection through a wire. Offsets count the bytes of one direction from 1;
// 0 is never.
type fault struct {
	cutUp, cutDown   int64 // both directions end there, without a word
	flipUp, flipDown int64 // a bit of this byte
	hangDown         int64 // nothing more comes from there on
}

// wire carries TCP connections to a server, each with the fault that its number, from 1, has.
type wire struct {
	addr  string
	dials atomic.Int64
}

func newWire(t *testing.T, target string, faultOf func(n int64) fault) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String()}
	var running sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() {
		close(ended)
		l.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f := faultOf(w.dials.Add(1))
			running.Go(func() { carry(conn, target, f, ended) })
		}
	})
	return w
}

func carry(client net.Conn, target string, f fault, ended <-chan struct{}) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	stop := make(chan struct{})
	var once sync.Once
	half := func(dst io.Writer, src io.Reader, cut, flip, hang int64) {
		defer once.Do(func() { close(stop) })
		damage(dst, src, cut, flip, hang, ended)
	}
	both.Go(func() { half(server, client, f.cutUp, f.flipUp, 0) })
	both.Go(func() { half(client, server, f.cutDown, f.flipDown, f.hangDown) })
	select {
	case <-stop:
	case <-ended:
	}
	client.Close()
	server.Close()
	both.Wait()
}

var errCut = errors.New("cut")

func damage(dst io.Writer, src io.Reader, cut, flip, hang int64, ended <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for at := int64(0); ; {
		n, err := src.Read(buf)
		data := buf[:n]
		if i := flip - 1 - at; flip > 0 && i >= 0 && i < int64(n) {
			data[i] ^= 1
		}
		if cut > 0 && at+int64(n) >= cut {
			data, err = data[:cut-at], errCut
		}
		if hang > 0 && at+int64(n) >= hang {
			<-ended
			return
		}
		at += int64(n)
		if _, werr := dst.Write(data); werr != nil || err != nil {
			return
		}
	}
}

// front is an HTTP server before a server, which answers itself what instead says that it has answered.
func front(t *testing.T, target string, instead func(n int64, w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: target})
		r.Out.Host = r.In.Host // it is signed
	}}
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !instead(requests.Add(1), w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<?xml version=\"1.0\"?><Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
}
