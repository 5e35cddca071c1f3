package bootstrap

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// cluster is as much of an API as "node/ready" and "network/addons" use, over real TLS.
type cluster struct {
	*host.Host
	connections atomic.Int32 // that were made to it

	mu      sync.Mutex
	ready   []string // what the node's condition Ready says, one answer after the other
	objects map[string]json.RawMessage
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	noJournal := func(context.Context, host.Command) ([]byte, error) { return nil, errors.New("no journal") }
	c := &cluster{Host: &host.Host{Root: t.TempDir(), Exec: noJournal}, objects: map[string]json.RawMessage{}}
	server := httptest.NewUnstartedServer(c)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			c.connections.Add(1)
		}
	}
	if err := certstest.Write(c.Root, certstest.Options{Now: time.Now(), Server: "https://" + server.Listener.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	pki := filepath.Join(c.Root, certstest.Dir, "pki")
	pair, err := tls.LoadX509KeyPair(pki+"/apiserver.crt", pki+"/apiserver.key")
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return c
}

func (c *cluster) connect() (*kube.Client, error) { return kube.Connect(c.Host, AdminConf) }

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	object, there := c.objects[r.URL.Path]
	switch {
	case r.URL.Path == "/api/v1/nodes/node-1" && len(c.ready) > 0:
		says := c.ready[0]
		if len(c.ready) > 1 {
			c.ready = c.ready[1:]
		}
		fmt.Fprintf(w, `{"metadata": {"name": "node-1"}, "status": {"conditions": [{"type": "Ready", "status": %q, "reason": "KubeletNotReady", "message": "no network"}]}}`, says)
	case r.URL.Path == "/api/v1":
		fmt.Fprint(w, `{"kind": "APIResourceList", "resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true}]}`)
	case r.URL.Path == "/apis/apps/v1":
		fmt.Fprint(w, `{"kind": "APIResourceList", "resources": [{"name": "daemonsets", "kind": "DaemonSet", "namespaced": true}]}`)
	case strings.HasSuffix(r.URL.Path, "/pods") || strings.HasSuffix(r.URL.Path, "/events"):
		fmt.Fprint(w, `{"items": []}`)
	case r.Method == http.MethodPatch:
		object = nil // not to be decoded over what is kept
		if err := json.NewDecoder(r.Body).Decode(&object); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.URL.Query().Get("dryRun") == "" {
			c.objects[r.URL.Path] = object
		}
		_, _ = w.Write(object)
	case there:
		_, _ = w.Write(object)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"kind": "Status", "reason": "NotFound", "message": "%s not found"}`, r.URL.Path)
	}
}

func TestNodeReady(t *testing.T) {
	c := newCluster(t)
	s := NodeReady(c.Host, "node-1", time.Minute, c.connect)
	check := func(want string) {
		t.Helper()
		changes, err := s.Check(t.Context())
		if err != nil || fmt.Sprint(changes) != want {
			t.Errorf("got %v, %v, want %s", changes, err, want)
		}
	}
	check(`[node node-1: "read node node-1: /api/v1/nodes/node-1 not found" → "Ready"]`)
	c.ready = []string{"Unknown"}
	check(`[node node-1: "not Ready: KubeletNotReady: no network" → "Ready"]`)
	c.ready = []string{"False", "False", "True"}
	results, err := step.Apply(t.Context(), []step.Step{s}, nil)
	if err != nil || results[0].Outcome != step.Applied || s.Name != NodeReadyStep {
		t.Errorf("%+v, %v", results, err)
	}
	check("[]")

	put(t, c.Host, AdminConf, "no kubeconfig", 0o600)
	changes, err := s.Check(t.Context())
	if err != nil || len(changes) == 0 || !strings.Contains(changes[0].Have, "is not a kubeconfig") {
		t.Errorf("%v, %v", changes, err)
	}
}

// Before there is a cluster nothing is asked of it.
func TestClusterStepsWait(t *testing.T) {
	never := func() (*kube.Client, error) { t.Error("connected"); return nil, errors.New("unreachable") }
	h := &host.Host{Root: t.TempDir()}
	put(t, h, "/a.yaml", configMap("a", "1"), 0o644)
	for _, s := range []step.Step{
		NodeReady(h, "node-1", time.Minute, never), Addons(h, []string{"/a.yaml"}, never), AddonsReady(h, []string{"/a.yaml"}, time.Minute, never),
	} {
		if _, err := s.Check(t.Context()); !errors.Is(err, step.Blocked{On: WaitStep}) {
			t.Errorf("%s: %v", s.Name, err)
		}
		h.Offline = true
		if _, err := s.Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
			t.Errorf("%s offline: %v", s.Name, err)
		}
		h.Offline = false
	}
}

// Whoever answers over TLS at an address that is not this host's is another cluster. The
// address 127.0.0.2 is no interface's, and yet answers: as good as another host's.
func TestForeignCluster(t *testing.T) {
	listen := func(address string, secure bool) string {
		t.Helper()
		l, err := net.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		_ = server.Listener.Close()
		server.Listener = l
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		if secure {
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		return l.Addr().String()
	}
	_, nobody, err := net.SplitHostPort(closedPort(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		endpoint string
		want     bool
	}{
		"own, TLS":            {listen("127.0.0.1", true), false},
		"another's, TLS":      {listen("127.0.0.2", true), true},
		"another's, no TLS":   {listen("127.0.0.2", false), false},
		"another's, nobody":   {"127.0.0.2:" + nobody, false},
		"own, without a port": {"127.0.0.1", false},
		"own name":            {"localhost:" + nobody, false},
	} {
		got, err := ForeignCluster(t.Context(), test.endpoint)
		if err != nil || got != test.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, test.want)
		}
	}
	mapped := "[::ffff:127.0.0.2]:" + portOf(t, listen("127.0.0.2", true))
	if got, err := ForeignCluster(t.Context(), mapped); err != nil || !got {
		t.Errorf("%s: %v, %v", mapped, got, err)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
