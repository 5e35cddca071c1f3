//go:build integration

package backup_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy is a wire between the program and etcd that something may befall.
type proxy struct {
	net.Listener
	to string

	mu sync.Mutex
	// down is given what etcd sends, and how much it has sent of the stream before, and may change
	// it or take its time; false cuts the wire. Nil lets all pass.
	down func(before int64, p []byte) bool
	wait sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to}
	p.wait.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.befalls(nil)
		p.wait.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.Addr().String() }

// befalls sets what befalls connections to come.
func (p *proxy) befalls(down func(before int64, p []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *proxy) accept() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		end := func() { _, _ = client.Close(), server.Close() }
		p.wait.Go(func() {
			defer end()
			_, _ = io.Copy(server, client)
		})
		p.wait.Go(func() {
			defer end()
			pass(client, server, down)
		})
	}
}

func pass(client io.Writer, server io.Reader, down func(int64, []byte) bool) {
	buf := make([]byte, 32<<10)
	for before := int64(0); ; {
		n, err := server.Read(buf)
		if n > 0 && down != nil && !down(before, buf[:n]) {
			return
		}
		before += int64(n)
		if _, writeErr := client.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}
