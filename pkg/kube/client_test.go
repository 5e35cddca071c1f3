package kube_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

func edit(t *testing.T, h *host.Host, path string, change func(string) string) {
	t.Helper()
	real := filepath.Join(h.Root, path)
	data, err := os.ReadFile(real)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(real, []byte(change(string(data))), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReady(t *testing.T) {
	tests := map[string]struct {
		code int
		body string
		want string
	}{
		"ready":         {200, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n", ""},
		"two checks":    {500, "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed: not finished\nreadyz check failed\n", "the API server is not ready: etcd, poststarthook/rbac/bootstrap-roles"},
		"seven checks":  {500, strings.Repeat("[-]x failed: reason withheld\n", 7), "the API server is not ready: x, x, x, x, x and 2 more"},
		"a proxy":       {502, "<html>Bad Gateway</html>", "ask whether the API server is ready: 502 Bad Gateway"},
		"not permitted": {403, `{"kind":"Status","message":"forbidden: User \"x\" cannot get path \"/readyz\"","reason":"Forbidden"}`, `the API server answers, and has no role yet that lets this user ask: forbidden: User "x" cannot get path "/readyz"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var asked string
			h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.URL.RequestURI() + " as " + r.TLS.PeerCertificates[0].Subject.CommonName
				w.WriteHeader(tt.code)
				_, _ = w.Write([]byte(tt.body))
			}))
			err := connect(t, h, admin).Ready(t.Context())
			if got := text(err); got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
			if want := "GET /readyz?verbose= as kubernetes-admin"; asked != want {
				t.Errorf("asked %q, want %q", asked, want)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// kubelet.conf names a file below the host's root, behind an absolute link.
func TestConnectFilesBelowRoot(t *testing.T) {
	var as string
	h := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { as = r.TLS.PeerCertificates[0].Subject.CommonName }))
	if err := connect(t, h, "/etc/kubernetes/kubelet.conf").Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if as != "system:node:node-1" {
		t.Errorf("signed in as %q", as)
	}
}

// A relative file is relative to the kubeconfig; a token is read from its file and sent.
func TestConnectTokenFile(t *testing.T) {
	var token string
	h := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { token = r.Header.Get("Authorization") }))
	edit(t, h, "/etc/kubernetes/token", func(string) string { return "s3cret\n" })
	edit(t, h, admin, func(s string) string { return s + "    tokenFile: token\n" })
	if err := connect(t, h, admin).Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if token != "Bearer s3cret" {
		t.Errorf("Authorization %q", token)
	}
}

func TestConnectRefused(t *testing.T) {
	const canary = "TUlHSEFnRUFNQk1HQnlxR1NNNDlBZ0VH"
	set := func(s string) func(string) string { return func(string) string { return s } }
	without := func(old, s string) func(string) string {
		return func(in string) string { return strings.Replace(in, old, s, 1) }
	}
	tests := map[string]struct {
		change func(string) string
		want   string
	}{
		"empty":      {set(""), `it has no context ""`},
		"not YAML":   {set("users:\n\t- " + canary), "is not a kubeconfig"},
		"alias":      {set("users: *" + canary), "is not a kubeconfig"},
		"wrong type": {set("users: " + canary), "is not a kubeconfig"},
		"no context": {without("current-context: kubernetes-admin@kubernetes", "current-context: other"), `it has no context "other"`},
		"runs program": {func(s string) string {
			return s + "    exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false, interactiveMode: Never}\n"
		}, `user "kubernetes-admin" signs in by running a program`},
		"missing file": {func(s string) string { return s + "    tokenFile: /gone\n" }, "/gone: no such file"},
		"bad key": {func(s string) string {
			return s[:strings.Index(s, "client-key-data:")] + "client-key-data: " + canary + "\n"
		}, "tls: failed to find any PEM data in key input"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := pki(t, "https://127.0.0.1:1")
			edit(t, h, admin, tt.change)
			_, err := kube.Connect(h, admin)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), admin) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if strings.Contains(text(err), canary) {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
	if _, err := kube.Connect(host.New(t.TempDir()), admin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no kubeconfig: %v", err)
	}
}

// A server with another CA's certificate is not believed.
func TestServerIsVerified(t *testing.T) {
	asked := false
	h := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	other := t.TempDir()
	if err := certstest.Write(other, certstest.Options{Now: time.Now(), Server: connect(t, h, admin).Server()}); err != nil {
		t.Fatal(err)
	}
	err := connect(t, host.New(other), admin).Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "unknown authority") || asked {
		t.Errorf("error %v, asked %v", err, asked)
	}
}

func TestNode(t *testing.T) {
	const answer = `{"kind":"Node","metadata":{"name":"node-1","uid":"u-1","labels":{"kubernetes.io/os":"linux"}},
		"spec":{"unschedulable":true,"taints":[{"key":"node-role.kubernetes.io/control-plane","effect":"NoSchedule"}]},
		"status":{"conditions":[{"type":"MemoryPressure","status":"False","reason":"x","message":"y","lastTransitionTime":"2026-03-29T12:00:00Z"},
		{"type":"Ready","status":"False","reason":"KubeletNotReady","message":"cni plugin not initialized","lastTransitionTime":"2026-03-29T12:00:01Z"}],
		"nodeInfo":{"kubeletVersion":"v1.36.3"}}}`
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/nodes/node-1" {
			status(w, http.StatusNotFound, `nodes "node-2" not found`)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	c := connect(t, h, admin)
	got, err := c.Node(t.Context(), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)
	ready := kube.Condition{Type: "Ready", Status: "False", Reason: "KubeletNotReady", Message: "cni plugin not initialized", Since: at.Add(time.Second)}
	want := kube.Node{
		Name: "node-1", UID: "u-1", Labels: map[string]string{"kubernetes.io/os": "linux"}, Unschedulable: true, KubeletVersion: "v1.36.3",
		Taints:     []kube.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: "NoSchedule"}},
		Conditions: []kube.Condition{{Type: "MemoryPressure", Status: "False", Reason: "x", Message: "y", Since: at}, ready},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ready, got.Ready()); diff != "" || got.Ready().True() {
		t.Errorf("ready (-want +got):\n%s", diff)
	}
	if unknown := (kube.Node{}).Ready(); unknown.Status != "Unknown" || unknown.True() {
		t.Errorf("a node that never reported: %+v", unknown)
	}
	if _, err := c.Node(t.Context(), "node-2"); !kube.IsNotFound(err) {
		t.Errorf("unknown node: %v", err)
	}
	if _, err := c.Node(t.Context(), "../secrets"); err == nil || kube.IsNotFound(err) {
		t.Errorf("a path as a name: %v", err)
	}
}
