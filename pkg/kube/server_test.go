package kube_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

const admin = "/etc/kubernetes/admin.conf"

// pki is a host with a kubeadm PKI whose kubeconfigs point at server.
func pki(t *testing.T, server string) *host.Host {
	t.Helper()
	root := t.TempDir()
	if err := certstest.Write(root, certstest.Options{Now: time.Now(), Server: server, Kubelet: true}); err != nil {
		t.Fatal(err)
	}
	return host.New(root)
}

// serve answers over TLS with the host's apiserver certificate, asks for client certificates
// of its CA, and points the kubeconfigs at itself.
func serve(t *testing.T, handler http.Handler) *host.Host {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	h := pki(t, "https://"+server.Listener.Addr().String())
	dir := filepath.Join(h.Root, certstest.Dir, "pki")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return h
}

func connect(t *testing.T, h *host.Host, kubeconfig string) *kube.Client {
	t.Helper()
	c, err := kube.Connect(h, kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// api is as much of an API server as the requests of this package meet: discovery, reading
// metadata, server-side apply. It remembers what it was asked.
type api struct {
	mu         sync.Mutex
	calls      []string                     // "PATCH /path?query Content-Type as user"
	objects    map[string]map[string]any    // by path
	refuse     map[string][]int             // by path: status codes to answer first
	answers    map[string]string            // by path: what is answered to an apply, dry or not
	answerCode int                          // with which that is
	lists      map[string]string            // items by path and query
	served     map[string][]json.RawMessage // resources by root
}

func newAPI() *api {
	a := &api{objects: map[string]map[string]any{}, refuse: map[string][]int{}, lists: map[string]string{}, answers: map[string]string{}, answerCode: http.StatusConflict, served: map[string][]json.RawMessage{}}
	a.serve("/api/v1", `{"name":"namespaces","kind":"Namespace","namespaced":false}`, `{"name":"configmaps","kind":"ConfigMap","namespaced":true}`,
		`{"name":"namespaces/status","kind":"Namespace","namespaced":false}`, `{"name":"serviceaccounts/token","kind":"TokenRequest","namespaced":true}`)
	a.serve("/apis/apps/v1", `{"name":"deployments","kind":"Deployment","namespaced":true}`, `{"name":"daemonsets","kind":"DaemonSet","namespaced":true}`,
		`{"name":"statefulsets","kind":"StatefulSet","namespaced":true}`)
	a.serve("/apis/batch/v1", `{"name":"jobs","kind":"Job","namespaced":true}`)
	a.serve("/apis/apiextensions.k8s.io/v1", `{"name":"customresourcedefinitions","kind":"CustomResourceDefinition","namespaced":false}`)
	return a
}

func (a *api) serve(root string, resources ...string) {
	for _, r := range resources {
		a.served[root] = append(a.served[root], json.RawMessage(r))
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	call := r.Method + " " + r.URL.RequestURI()
	if ct := r.Header.Get("Content-Type"); ct != "" {
		call += " " + ct
	}
	a.calls = append(a.calls, call+" as "+r.TLS.PeerCertificates[0].Subject.CommonName)
	if codes := a.refuse[r.URL.Path]; len(codes) > 0 {
		a.refuse[r.URL.Path] = codes[1:]
		status(w, codes[0], "refused by the test")
		return
	}
	if list, ok := a.served[r.URL.Path]; ok {
		reply(w, map[string]any{"kind": "APIResourceList", "resources": list})
		return
	}
	if items, ok := a.lists[r.URL.RequestURI()]; ok {
		_, _ = io.WriteString(w, `{"items": [`+items+`]}`)
		return
	}
	switch r.Method {
	case http.MethodGet:
		object, ok := a.objects[r.URL.Path]
		if !ok {
			status(w, http.StatusNotFound, r.URL.Path+" not found")
			return
		}
		reply(w, object)
	case http.MethodPatch:
		var object map[string]any
		body := json.NewDecoder(r.Body)
		body.UseNumber()
		if err := body.Decode(&object); err != nil {
			status(w, http.StatusBadRequest, "no JSON")
			return
		}
		if namespace := strings.Index(r.URL.Path, "/namespaces/"); namespace >= 0 && strings.Count(r.URL.Path[namespace:], "/") > 3 {
			name := strings.Split(r.URL.Path[namespace:], "/")[2]
			if _, ok := a.objects["/api/v1/namespaces/"+name]; !ok && name != "default" {
				status(w, http.StatusNotFound, fmt.Sprintf("namespaces %q not found", name))
				return
			}
		}
		if answer, ok := a.answers[r.URL.Path]; ok {
			w.WriteHeader(a.answerCode)
			_, _ = io.WriteString(w, answer)
			return
		}
		if r.URL.Query().Get("dryRun") == "" {
			a.objects[r.URL.Path] = object
		}
		reply(w, object)
	default:
		status(w, http.StatusMethodNotAllowed, r.Method)
	}
}

func (a *api) said() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string{}, a.calls...)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func status(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "message": message, "reason": strings.ReplaceAll(http.StatusText(code), " ", ""), "code": code})
}
