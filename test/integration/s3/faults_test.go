//go:build integration

package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/s3"
)

// via is the store through something else than the server itself.
func (n *node) via(t *testing.T, addr string) *s3.Store {
	t.Helper()
	n.cfg.Endpoint = "http://" + addr
	return n.store(t)
}

// everything calls each method, and gives each error.
func everything(ctx context.Context, s *s3.Store) map[string]error {
	_, list := s.List(ctx)
	_, open := s.Open(ctx, "a")
	return map[string]error{"list": list, "open": open, "put": s.Put(ctx, "b", section(content(10))), "delete": s.Delete(ctx, "a")}
}

// refused fails the test for a method that succeeds, whose error is not told apart from an answer, or
// lacks one of the words, or has a key in it.
func refused(t *testing.T, s *s3.Store, kind error, words ...string) {
	t.Helper()
	for method, err := range everything(t.Context(), s) {
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", method, err)
			continue
		}
		if kind != nil && !errors.Is(err, kind) {
			t.Errorf("%s: is not %q: %v", method, kind, err)
		}
		for _, word := range append(words, s.String()) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is not in: %v", method, word, err)
			}
		}
		if strings.Contains(err.Error(), secretKey) || strings.Contains(err.Error(), accessKey) {
			t.Errorf("%s: a key is in: %v", method, err)
		}
	}
}

func TestServerIsDown(t *testing.T) {
	server := start(t, false)
	refused(t, server.node(t).via(t, freePort(t)), nil, "connection refused", "is the server up")
}

func TestNoSuchHost(t *testing.T) {
	resolveToLoopback(t)
	server := start(t, false)
	node := server.node(t)
	node.cfg.AllowPlaintext = true
	refused(t, node.via(t, "s3.invalid"), nil, "no such host")
}

// A server that takes the connection and says nothing is given up, and a caller that gives up is
// not kept.
func TestServerHangs(t *testing.T) {
	server := start(t, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	store := server.node(t).via(t, l.Addr().String())
	store.Patience.Answer, store.Patience.Stall = 50*time.Millisecond, 50*time.Millisecond
	refused(t, store, etcdbackup.ErrNoAnswer, "stalls", "50ms")

	store = server.node(t).via(t, l.Addr().String())
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	for method, err := range everything(ctx, store) {
		if !errors.Is(err, enough) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// One that goes silent in the middle of a download is given up by the connection, not by the download.
func TestDownloadStalls(t *testing.T) {
	server := start(t, false)
	data := content(3 << 20)
	put(t, server.node(t).store(t), "a", data)
	w := newWire(t, server.addr, func(n int64) fault {
		if n == 1 {
			return fault{hangDown: 1 << 20}
		}
		return fault{}
	})
	store := server.node(t).via(t, w.addr)
	store.Patience.Stall = 200 * time.Millisecond
	wantContent(t, store, "a", data)
	if w.dials.Load() != 2 {
		t.Errorf("%d connections", w.dials.Load())
	}
}

func TestUploadStalls(t *testing.T) {
	server := start(t, false)
	stuck := front(t, server.addr, func(_ int64, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		select {
		case <-r.Context().Done(): // not seen by a server that has not read the body
		case <-t.Context().Done():
		}
		return true
	})
	store := server.node(t).via(t, stuck)
	store.Patience.Stall = 200 * time.Millisecond
	for name, size := range map[string]int{"whole": 1 << 20, "parts": manyParts} {
		if err := store.Put(t.Context(), name, section(content(size))); err == nil || !strings.Contains(err.Error(), "stalls") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := uploads(t, server); len(left) != 0 {
		t.Errorf("unfinished uploads: %q", left)
	}
	wantNames(t, server.node(t).store(t))
}

// Connections that break are replaced; content arrives whole, or not at all.
func TestUploadIsCut(t *testing.T) {
	server := start(t, false)
	for name, size := range map[string]int{"whole": 5 << 20, "parts": manyParts} {
		data := content(size)
		w := newWire(t, server.addr, func(n int64) fault {
			if n%2 == 1 {
				return fault{cutUp: 3 << 20}
			}
			return fault{}
		})
		put(t, server.node(t).via(t, w.addr), name, data)
		wantContent(t, server.node(t).store(t), name, data)

		always := newWire(t, server.addr, func(int64) fault { return fault{cutUp: 3 << 20} })
		if err := server.node(t).via(t, always.addr).Put(t.Context(), name+"-never", section(data)); err == nil {
			t.Error("a put succeeded whose connections all break")
		}
	}
	wantNames(t, server.node(t).store(t), "whole", "parts")
}

func TestDownloadIsCut(t *testing.T) {
	server := start(t, false)
	data := content(9 << 20)
	put(t, server.node(t).store(t), "a", data)
	w := newWire(t, server.addr, func(n int64) fault { return fault{cutDown: n * 700_000} })
	wantContent(t, server.node(t).via(t, w.addr), "a", data)

	// One that brings nothing more ends in an error, after a bounded number of tries.
	stuck := newWire(t, server.addr, func(n int64) fault {
		if n == 1 {
			return fault{cutDown: 4 << 20}
		}
		return fault{cutDown: 2000}
	})
	got, err := read(t.Context(), server.node(t).via(t, stuck.addr), "a")
	if err == nil || errors.Is(err, io.EOF) || len(got) >= len(data) || !strings.Contains(err.Error(), "broke") {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
	if stuck.dials.Load() > 50 {
		t.Errorf("%d connections", stuck.dials.Load())
	}
}

// What changes or goes while it is read is an error, never a mixture.
func TestObjectChangesWhileItIsRead(t *testing.T) {
	server := start(t, false)
	for name, change := range map[string]func(key string) error{
		"replaced": func(key string) error {
			_, err := server.admin.PutObject(t.Context(), bucket, key, strings.NewReader(strings.Repeat("x", 3<<20)), 3<<20, minio.PutObjectOptions{})
			return err
		},
		"lost": func(key string) error {
			return server.admin.RemoveObject(t.Context(), bucket, key, minio.RemoveObjectOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			put(t, server.node(t).store(t), name, content(3<<20))
			w := newWire(t, server.addr, func(n int64) fault {
				if n == 1 {
					return fault{cutDown: 1 << 20}
				}
				return fault{}
			})
			r, err := server.node(t).via(t, w.addr).Open(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if err := change(name); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err == nil || n >= 3<<20 {
				t.Errorf("read %d bytes more: %v", n, err)
			}
			if name == "lost" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v, want fs.ErrNotExist", err)
			}
		})
	}
}

// A bit that flips on the way up is noticed by the server: sent again it arrives, and if every
// try is damaged nothing is stored.
func TestBitFlipsOnTheWayUp(t *testing.T) {
	server := start(t, false)
	for name, size := range map[string]int{"whole": 2 << 20, "parts": manyParts} {
		data := content(size)
		var flipped atomic.Int64
		w := newWire(t, server.addr, func(n int64) fault {
			if n == 2 || n == 1 {
				flipped.Add(1)
				return fault{flipUp: 1 << 20}
			}
			return fault{}
		})
		put(t, server.node(t).via(t, w.addr), name, data)
		wantContent(t, server.node(t).store(t), name, data)
		always := newWire(t, server.addr, func(int64) fault { return fault{flipUp: 1 << 20} })
		if err := server.node(t).via(t, always.addr).Put(t.Context(), name+"-never", section(data)); err == nil || !strings.Contains(err.Error(), "what arrived is not what was sent") {
			t.Errorf("%s: %v", name, err)
		}
		if flipped.Load() == 0 {
			t.Error("no bit was flipped")
		}
	}
	wantNames(t, server.node(t).store(t), "whole", "parts")
	if left := uploads(t, server); len(left) != 0 {
		t.Errorf("unfinished uploads: %q", left)
	}
}

// k3s#13087: an upload is not retried. What a server refuses because it is busy is asked for again.
func TestBusyThenWell(t *testing.T) {
	server := start(t, false)
	data := content(manyParts)
	for name, busy := range map[string]func(w http.ResponseWriter){
		"500": func(w http.ResponseWriter) { refuse(w, 500, "InternalError", "We encountered an internal error.") },
		"503": func(w http.ResponseWriter) { refuse(w, 503, "SlowDown", "Please reduce your request rate.") },
		"502 of a proxy": func(w http.ResponseWriter) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>Bad Gateway</html>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var refusals atomic.Int64
			var asked sync.Map // twice refused, then done
			addr := front(t, server.addr, func(_ int64, w http.ResponseWriter, r *http.Request) bool {
				n, _ := asked.LoadOrStore(r.Method+r.RequestURI, new(atomic.Int64))
				if n.(*atomic.Int64).Add(1)%3 == 0 {
					return false
				}
				refusals.Add(1)
				busy(w)
				return true
			})
			store := server.node(t).via(t, addr)
			put(t, store, name, data)
			wantContent(t, store, name, data)
			if _, err := store.List(t.Context()); err != nil {
				t.Error(err)
			}
			if err := store.Delete(t.Context(), name); err != nil {
				t.Error(err)
			}
			if refusals.Load() < 10 {
				t.Errorf("only %d refusals", refusals.Load())
			}
		})
	}
	for status, code := range map[int]string{500: "InternalError", 503: "SlowDown"} {
		refused(t, server.node(t).via(t, front(t, server.addr, func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, status, code, "Not now.")
			return true
		})), nil, code)
	}
}

// The answer to the last request of an upload is lost: the object is there, and that is found out.
func TestAnswerIsLost(t *testing.T) {
	server := start(t, false)
	data := content(manyParts)
	var lost atomic.Bool
	addr := front(t, server.addr, func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.URL.Query().Get("uploadId") == "" {
			return false
		}
		if lost.Swap(true) { // versitygw would say yes again; others know of no such upload any more
			refuse(w, 404, "NoSuchUpload", "The specified upload does not exist.")
			return true
		}
		request, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+server.addr+r.URL.RequestURI(), r.Body)
		if err != nil {
			t.Error(err)
			return true
		}
		request.Header, request.Host, request.ContentLength = r.Header, r.Host, r.ContentLength
		if answer, err := http.DefaultClient.Do(request); err != nil || answer.StatusCode != 200 {
			t.Errorf("%v, %v", answer, err)
		}
		panic(http.ErrAbortHandler)
	})
	put(t, server.node(t).via(t, addr), "a", data)
	if !lost.Load() {
		t.Error("no answer was lost")
	}
	wantContent(t, server.node(t).store(t), "a", data)
}

// ebr#778, etcd#18340: a stored snapshot that is shorter than what was sent is found at a restore. A server that says it has
// stored something, and has stored something else or nothing, is found when it is put.
func TestServerLies(t *testing.T) {
	server := start(t, false)
	for name, change := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"nothing": func(w http.ResponseWriter, _ *http.Request) bool { w.Header().Set("ETag", `"x"`); return true },
		"less": func(w http.ResponseWriter, _ *http.Request) bool {
			_, err := server.admin.PutObject(t.Context(), bucket, "less", strings.NewReader("x"), 1, minio.PutObjectOptions{})
			w.Header().Set("ETag", `"x"`)
			return err == nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr := front(t, server.addr, func(_ int64, w http.ResponseWriter, r *http.Request) bool {
				return r.Method == http.MethodPut && change(w, r)
			})
			err := server.node(t).via(t, addr).Put(t.Context(), name, section(content(1000)))
			if err == nil || !strings.Contains(err.Error(), "the server") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestClockIsSkewed(t *testing.T) {
	server := start(t, false)
	addr := front(t, server.addr, func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead { // which has no body to say why
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		refuse(w, 403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
		return true
	})
	refused(t, server.node(t).via(t, addr), etcdbackup.ErrDenied, "RequestTimeTooSkewed", "timedatectl")
}
