package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const access, secret = "AKIDCANARY", "canary-of-a-secret-key"

// What real servers do is in test/integration/s3. Here is what none of them does, or shows.
func storeAt(t *testing.T, server *httptest.Server, change func(*etcdbackup.S3Config)) *Store {
	t.Helper()
	h := host.New(t.TempDir())
	for name, key := range map[string]string{"access": access, "secret": secret} {
		if err := os.WriteFile(filepath.Join(h.Root, name), []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := etcdbackup.S3Config{Endpoint: server.URL, Bucket: "backups", Prefix: "blue", PathStyle: true, AccessKeyFile: "/access", SecretKeyFile: "/secret"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(h, cfg, "cp-1")
	if err != nil {
		t.Fatal(err)
	}
	s.Patience.Pause = time.Microsecond
	return s
}

func section(size int64) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(make([]byte, size)), 0, size)
}

// Every upload has the sums of its content and asks for the encryption that is configured; no
// request has the secret in it.
func TestHeaders(t *testing.T) {
	var mu sync.Mutex
	var puts, begins []http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		for _, values := range r.Header {
			if strings.Contains(strings.Join(values, " ")+r.RequestURI, secret) {
				t.Errorf("the secret is in %s %s", r.Method, r.RequestURI)
			}
		}
		switch {
		case r.Method == http.MethodPut:
			puts = append(puts, r.Header)
			if int64(len(body)) != r.ContentLength {
				t.Errorf("%d bytes of %d", len(body), r.ContentLength)
			}
			w.Header().Set("ETag", `"e"`)
		case r.Method == http.MethodPost && r.URL.Query().Has("uploads"):
			begins = append(begins, r.Header)
			_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	for sse, want := range map[string][2]string{
		"": {}, "AES256": {"AES256"}, "aws:kms": {"aws:kms"}, "aws:kms:key/1": {"aws:kms", "key/1"},
	} {
		puts, begins = nil, nil
		s := storeAt(t, server, func(c *etcdbackup.S3Config) { c.SSE = sse })
		for _, size := range []int64{100, wholeSize + 1} {
			if err := s.Put(t.Context(), "a", section(size)); err == nil { // this server has nothing, when it is asked
				t.Error("a put succeeded of which nothing is there")
			}
		}
		if len(puts) != 3 || len(begins) != 1 {
			t.Fatalf("%d puts, %d uploads", len(puts), len(begins))
		}
		for _, h := range puts {
			if h.Get(crcHeader) == "" || len(h.Get("X-Amz-Content-Sha256")) != 64 {
				t.Errorf("sums: %v", h)
			}
		}
		if begins[0].Get(algorithmHeader) != "CRC32C" {
			t.Errorf("upload: %v", begins[0])
		}
		for _, h := range []http.Header{puts[0], begins[0]} {
			if got := [2]string{h.Get("X-Amz-Server-Side-Encryption"), h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")}; got != want {
				t.Errorf("%q: encryption %q", sse, got)
			}
		}
	}
}

func TestPartSize(t *testing.T) {
	const tib = 1 << 40
	for _, size := range []int64{wholeSize + 1, 100 << 20, 8 << 30, 312 << 30, 313 << 30, tib, 40 * tib} {
		part := partSize(size)
		if n := (size + part - 1) / part; n > maxParts || part < wholeSize || part > 5<<30 {
			t.Errorf("%d bytes: %d parts of %d", size, n, part)
		}
	}
}

// A server's words go into logs and onto terminals.
func TestServersWords(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>is "+access+", not "+secret+" &#x9b;31m\u202e"+strings.Repeat("long ", 1000)+"</Message></Error>")
	}))
	defer server.Close()
	_, err := storeAt(t, server, nil).List(t.Context())
	if !errors.Is(err, etcdbackup.ErrDenied) || len(err.Error()) > 700 || strings.ContainsAny(err.Error(), "\u009b\u202e\n") {
		t.Errorf("%q", err)
	}
	if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), access) {
		t.Errorf("a key is in: %v", err)
	}
}

// A server that is busy all along has not answered: nothing is said of the object that was asked for.
func TestBusyIsNoAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
	}))
	defer server.Close()
	if _, err := storeAt(t, server, nil).List(t.Context()); !errors.Is(err, etcdbackup.ErrNoAnswer) || !strings.Contains(err.Error(), "SlowDown") {
		t.Errorf("%v, want ErrNoAnswer, and the server's own word", err)
	}
}

// A key file that is not there is no object that is not there, which nobody would miss.
func TestNoKeyIsNoMissingObject(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	s := storeAt(t, server, func(c *etcdbackup.S3Config) { c.SecretKeyFile = "/absent" })
	_, err := s.Open(t.Context(), "a")
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "secretKeyFile") {
		t.Error(err)
	}
	s = storeAt(t, server, nil)
	for _, key := range []string{"two words", "two\nlines", "ä"} {
		if err := os.WriteFile(filepath.Join(s.host.Root, "secret"), []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), "a"); err == nil || strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "secretKeyFile") {
			t.Error(err)
		}
	}
}

func TestInParallel(t *testing.T) {
	var mu sync.Mutex
	done := map[int]bool{}
	if err := inParallel(t.Context(), 20, func(_ context.Context, i int) error {
		mu.Lock()
		defer mu.Unlock()
		done[i] = true
		return nil
	}); err != nil || len(done) != 20 {
		t.Errorf("%d done, %v", len(done), err)
	}
	broken := errors.New("broken")
	if err := inParallel(t.Context(), 20, func(_ context.Context, i int) error {
		if i == 7 {
			return broken
		}
		return nil
	}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// The error of one part is not taken for another's, nor lost since another one succeeds at the same time.
// By the race detector, and by what the server is told to complete.
func TestPartThatFails(t *testing.T) {
	for range 2 {
		var completed atomic.Bool
		var arrived sync.WaitGroup
		arrived.Add(2)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			query := r.URL.Query()
			switch {
			case r.Method == http.MethodPut:
				arrived.Done()
				arrived.Wait() // both are answered at once
				if query.Get("partNumber") == "1" {
					w.WriteHeader(http.StatusForbidden)
					_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
					return
				}
				w.Header().Set("ETag", `"e"`)
			case r.Method == http.MethodPost && query.Has("uploads"):
				_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
			case r.Method == http.MethodPost:
				completed.Store(true)
				_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"e-2"</ETag></CompleteMultipartUploadResult>`)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		err := storeAt(t, server, nil).Put(t.Context(), "a", section(wholeSize+1))
		server.Close()
		if !errors.Is(err, etcdbackup.ErrDenied) || completed.Load() {
			t.Errorf("completed: %v, %v", completed.Load(), err)
		}
	}
}
