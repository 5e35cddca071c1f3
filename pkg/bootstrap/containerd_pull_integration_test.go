//go:build integration

package bootstrap

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	mirrorUser     = "puller"
	mirrorPassword = "hunter2:\\ \"%"
)

// mirror is a registry with one image, behind TLS and basic authentication.
type mirror struct {
	*httptest.Server
	blobs map[string][]byte // and manifests, by digest

	mu    sync.Mutex
	asked []string
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// smallImage is an image of one file, as a manifest and its blobs, and as an archive.
func smallImage(t *testing.T, name, program string) (manifest []byte, blobs map[string][]byte, archive string) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(program)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer := buf.Bytes()
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/program"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest(layer))
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",`+
		`"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":%d,"digest":%q},`+
		`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","size":%d,"digest":%q}]}`,
		len(config), digest([]byte(config)), len(layer), digest(layer))
	archive = tarOf(t, member{"config.json", config}, member{"layer.tar", string(layer)},
		member{"manifest.json", fmt.Sprintf(`[{"Config":"config.json","RepoTags":[%q],"Layers":["layer.tar"]}]`, name)})
	return manifest, map[string][]byte{digest(manifest): manifest, digest([]byte(config)): []byte(config), digest(layer): layer}, archive
}

func newMirror(t *testing.T) *mirror {
	t.Helper()
	manifest, blobs, _ := smallImage(t, "", "#!/bin/false\n")
	m := &mirror{blobs: blobs}
	m.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		m.mu.Lock()
		m.asked = append(m.asked, fmt.Sprintf("%s %s %v", r.Method, r.URL.Path, ok))
		m.mu.Unlock()
		if user != mirrorUser || password != mirrorPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		data := manifest
		switch {
		case strings.HasSuffix(r.URL.Path, "/manifests/1"):
			name = digest(manifest)
		case m.blobs[name] != nil:
			data = m.blobs[name]
		case r.URL.Path == "/v2/":
			return
		default:
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		}
		w.Header().Set("Docker-Content-Digest", name)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(data) // whoever asked may have gone
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) requests() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.asked, "\n")
}

// endpoint is how the mirror is configured, with the files of the mirror's credentials and certificate authority.
func (m *mirror) endpoint(t *testing.T, h *host.Host) EndpointConfig {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate().Raw})
	for path, data := range map[string]string{"/srv/ca.pem": string(ca), "/srv/user": mirrorUser + "\n", "/srv/password": mirrorPassword + "\n"} {
		if err := h.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return EndpointConfig{URL: m.URL, CAFile: "/srv/ca.pem", UsernameFile: "/srv/user", PasswordFile: "/srv/password"}
}

// pull pulls an image over the CRI, as the kubelet does, without credentials of its own.
func pull(ctx context.Context, image string) error {
	conn, err := grpc.NewClient("unix://"+containerdSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	images := runtimeapi.NewImageServiceClient(conn)
	spec := &runtimeapi.ImageSpec{Image: image}
	if _, err := images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec}); err != nil {
		return err
	}
	_, err = images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec})
	return err
}

// An image of docker.io and one of a registry with a port come from a mirror that asks for a
// password, to ctr and over the CRI; what is told of it holds none.
func TestRealRegistries(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	m := newMirror(t)
	endpoint := m.endpoint(t, deps.Host)
	deps.Config.Mirrors = []MirrorConfig{{"docker.io", []EndpointConfig{endpoint}}, {"registry.example:5000", []EndpointConfig{endpoint}}}
	changes := append(applied(t, ctx, Containerd(deps)), applied(t, ctx, Registries(deps))...)
	told, err := json.Marshal(changes)
	if err != nil || strings.Contains(string(told), "Basic") || strings.Contains(string(told), "hunter2") {
		t.Errorf("told: %s, %v", told, err)
	}
	path := filepath.Join(certsDir, "docker.io", hostsFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, image := range []string{"docker.io/library/small:1", "registry.example:5000/a/small:1"} {
		if err := pull(ctx, image); err != nil {
			t.Errorf("pull %s over the CRI: %v\n%s", image, err, m.requests())
		}
	}
	if out, err := deps.Host.Run(ctx, "/usr/bin/ctr", "-n", "k8s.io", "images", "pull", "--hosts-dir", certsDir, "docker.io/library/small:1"); err != nil {
		t.Errorf("pull by ctr: %s %v\n%s", out, err, m.requests())
	}

	// Another password is taken up without a restart.
	if err := os.WriteFile("/srv/password", []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	units.restarts = 0
	applied(t, ctx, Registries(deps))
	if err := pull(ctx, "registry.example:5000/a/small:1"); err == nil {
		t.Error("pulled with a wrong password")
	}
	endpoint = m.endpoint(t, deps.Host)
	// What others can read is refused, and nothing is said of it.
	if err := os.Chmod("/srv/password", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := step.Apply(ctx, []step.Step{Registries(deps)}, nil); err == nil || !strings.Contains(err.Error(), "/srv/password is not safe to go by: others can read or write it (mode 0644)") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod("/srv/password", 0o600); err != nil {
		t.Fatal(err)
	}
	applied(t, ctx, Registries(deps))
	if err := pull(ctx, "registry.example:5000/a/small:1"); err != nil {
		t.Error(err)
	}

	// A project of a registry: the path of the URL stands for the whole of it.
	endpoint.URL += "/v2/project"
	deps.Config.Mirrors = []MirrorConfig{{"docker.io", []EndpointConfig{endpoint}}}
	applied(t, ctx, Registries(deps))
	if err := pull(ctx, "docker.io/library/small:1"); err != nil || !strings.Contains(m.requests(), "/v2/project/library/small/") {
		t.Errorf("%v\n%s", err, m.requests())
	}
	if there, err := deps.Host.Exists(filepath.Join(certsDir, "registry.example:5000")); there || err != nil {
		t.Errorf("what is not asked for any more is there: %v, %v", there, err)
	}
	deps.Config.Mirrors = nil
	applied(t, ctx, Registries(deps))
	if units.restarts > 0 {
		t.Errorf("restarted %d times", units.restarts)
	}
}

// A directory of the operator's is used, and a file of the operator's is left.
func TestRealRegistriesOfTheOperator(t *testing.T) {
	ctx, deps, _ := machine(t)
	if err := os.RemoveAll("/srv/certs"); err != nil {
		t.Fatal(err)
	}
	configured(t, config("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/srv/certs\"\n"))
	const theirs = "server = \"https://registry-1.docker.io\"\n"
	if err := deps.Host.WriteFile("/srv/certs/docker.io/hosts.toml", []byte(theirs), 0o644); err != nil {
		t.Fatal(err)
	}
	m := newMirror(t)
	endpoint := m.endpoint(t, deps.Host)
	deps.Config.Mirrors = []MirrorConfig{{"docker.io", []EndpointConfig{endpoint}}, {"registry.example", []EndpointConfig{endpoint}}}
	applied(t, ctx, Containerd(deps))
	changes := applied(t, ctx, Registries(deps))
	if len(changes) != 2 || !changes[0].Manual || changes[0].Subject != "/srv/certs/docker.io/hosts.toml" {
		t.Errorf("got %v", changes)
	}
	if err := pull(ctx, "registry.example/small:1"); err != nil {
		t.Errorf("%v\n%s", err, m.requests())
	}
	if data, err := os.ReadFile("/srv/certs/docker.io/hosts.toml"); err != nil || string(data) != theirs {
		t.Errorf("it holds %q, %v", data, err)
	}
	if releaseTwo() { // a list is not read there: the default that some releases print
		configured(t, config("version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = \"/srv/certs:/etc/docker/certs.d\"\n"))
		applied(t, ctx, Containerd(deps))
		if err := pull(ctx, "registry.example/small:1"); err != nil {
			t.Error(err)
		}
	}
	// Mirrors in the old style and a directory go not together: an error, before anything is written.
	configured(t, config("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n"))
	if _, err := Containerd(deps).Check(ctx); err == nil || !strings.Contains(err.Error(), "registry.mirrors in it keeps containerd from reading") {
		t.Errorf("got %v", err)
	}
}

// A container lives on while containerd is restarted, and its init is the same process.
func TestRealContainersKeepRunning(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	program, err := os.ReadFile("/srv/pause")
	if err != nil {
		t.Fatal(err)
	}
	const name = "nodeagent.test/pause:1"
	_, _, archive := smallImage(t, name, string(program))
	if err := os.WriteFile("/srv/pause.tar", []byte(archive), 0o644); err != nil {
		t.Fatal(err)
	}
	applied(t, ctx, Images(deps.Host, []string{"/srv/pause.tar"}, ""))
	ctr := func(args ...string) string {
		t.Helper()
		out, err := deps.Host.Run(ctx, "/usr/bin/ctr", append([]string{"-n", "k8s.io"}, args...)...)
		if err != nil {
			t.Fatalf("%s %v", out, err)
		}
		return string(out)
	}
	ctr("run", "-d", name, "keeps")
	before := ctr("tasks", "ls")
	if !strings.Contains(before, "RUNNING") {
		t.Fatalf("it does not run: %s", before)
	}
	configured(t, config(debianConfig))
	unlimited(t, ctx, units)
	units.restarts = 0
	deps.Pause = "registry.k8s.io/pause:3.9"
	applied(t, ctx, Containerd(deps))
	if after := ctr("tasks", "ls"); after != before || units.restarts != 1 {
		t.Errorf("restarted %d times; there was %s and is %s", units.restarts, before, after)
	}
	ctr("tasks", "kill", "-s", "SIGKILL", "keeps")
}

// Whether containerd answers is asked before anything is imported.
func TestRealImages(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	path := filepath.Join(t.TempDir(), "image.tar")
	_, _, archive := smallImage(t, "nodeagent-test:1", "x")
	if err := os.WriteFile(path, []byte(archive), 0o644); err != nil {
		t.Fatal(err)
	}
	s := Images(deps.Host, []string{path}, "")
	if got := applied(t, ctx, s); len(got) != 1 || got[0].Subject != "image docker.io/library/nodeagent-test:1" {
		t.Errorf("got %v", got)
	}
	if err := units.Stop(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
	if result := step.Plan(ctx, []step.Step{s}, nil)[0]; result.Outcome != step.Waiting {
		t.Errorf("containerd stopped: %+v", result)
	}
	if err := units.Start(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
}
