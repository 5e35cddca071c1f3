package bootstrap

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

var testMirrors = []MirrorConfig{
	{Registry: "docker.io", Endpoints: []EndpointConfig{
		{URL: "https://mirror.example:5000", CAFile: "/etc/mirror/ca.pem", UsernameFile: "/etc/mirror/user", PasswordFile: "/etc/mirror/password"},
		{URL: "http://harbor.example/v2/docker%20hub/"},
	}},
	{Registry: "registry.example:5000", Endpoints: []EndpointConfig{{URL: "https://other.example/"}}},
}

func mirrorHost(t *testing.T, release string) ContainerdDeps {
	t.Helper()
	h := containerdHost(t, fakeContainerd{defaults: release}, "")
	put(t, h, "/etc/mirror/ca.pem", "a CA\n", 0o644)
	put(t, h, "/etc/mirror/user", "puller\n", 0o600)
	put(t, h, "/etc/mirror/password", "hunter2\"\\:\n", 0o600)
	d := testContainerd(h, running(t, h))
	d.Config.Mirrors = testMirrors
	return d
}

func TestRegistries(t *testing.T) {
	for name, release := range map[string]string{"1.6": defaults16, "2.4": defaults24} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := mirrorHost(t, release)
			steptest.Converges(t, d.Host, Containerd(d))
			s := Registries(d)
			changes, err := s.Check(t.Context())
			want := []step.Change{
				{Subject: "/etc/containerd/certs.d/docker.io/hosts.toml", Have: "absent", Want: "images from https://mirror.example:5000, http://harbor.example/v2/docker%20hub/"},
				{Subject: "/etc/containerd/certs.d/registry.example:5000/hosts.toml", Have: "absent", Want: "images from https://other.example/"},
			}
			if diff := cmp.Diff(want, changes); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
			put(t, d.Host, "/etc/containerd/certs.d/gone.example/hosts.toml", registriesHead+"x", 0o644)
			put(t, d.Host, "/etc/containerd/certs.d/theirs.example/hosts.toml", "# theirs\n", 0o644)
			steptest.Converges(t, d.Host, s)
			data, err := d.Host.ReadFile("/etc/containerd/certs.d/docker.io/hosts.toml")
			const file = registriesHead + `
[host."https://mirror.example:5000"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/mirror/ca.pem"
  [host."https://mirror.example:5000".header]
    Authorization = ["Basic cHVsbGVyOmh1bnRlcjIiXDo="]

[host."http://harbor.example/v2/docker%20hub/"]
  capabilities = ["pull", "resolve"]
  override_path = true
`
			if diff := cmp.Diff(file, string(data)); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
			if _, err := decodeTOML(data); err != nil {
				t.Error(err)
			}
			for path, mode := range map[string]string{"docker.io/hosts.toml": "-rw-------", "registry.example:5000/hosts.toml": "-rw-r--r--", "theirs.example/hosts.toml": "-rw-r--r--"} {
				if info, err := d.Host.Stat(certsDir + "/" + path); err != nil || info.Mode().String() != mode {
					t.Errorf("%s: %v, %v", path, info, err)
				}
			}
			if there, err := d.Host.Exists(certsDir + "/gone.example"); there || err != nil {
				t.Errorf("what is not asked for is there: %v, %v", there, err)
			}
		})
	}
}

// What lies there under either of its names is the operator's, and containerd reads it.
func TestRegistriesOfTheOperator(t *testing.T) {
	d := mirrorHost(t, defaults16)
	put(t, d.Host, "/etc/containerd/certs.d/registry.example_5000_/hosts.toml", "# theirs\n", 0o644)
	put(t, d.Host, "/etc/containerd/certs.d/docker.io/hosts.toml", "# theirs\n", 0o644)
	s := Registries(d)
	if err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	changes, err := s.Check(t.Context())
	if err != nil || len(changes) != 2 || !changes[0].Manual || !changes[1].Manual || !strings.Contains(changes[1].Subject, "registry.example_5000_") {
		t.Errorf("%v, %v", changes, err)
	}
	if there, err := d.Host.Exists(certsDir + "/registry.example:5000"); there || err != nil {
		t.Errorf("ours is beside theirs: %v, %v", there, err)
	}
}

func TestRegistriesSecrets(t *testing.T) {
	d := mirrorHost(t, defaults16)
	s := Registries(d)
	put(t, d.Host, "/etc/mirror/password", "hunter2", 0o640)
	if _, err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "mirrors of docker.io: read secret: /etc/mirror/password is not safe to go by: others can read or write it (mode 0640)") {
		t.Errorf("got %v", err)
	}
	put(t, d.Host, "/etc/mirror/password", "hunter2", 0o600)
	put(t, d.Host, "/etc/mirror/ca.pem", "a CA\n", 0o666)
	if _, err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "mirrors of docker.io: look at caFile: /etc/mirror/ca.pem is not safe to go by: others can write it (mode 0666)") {
		t.Errorf("got %v", err)
	}
	put(t, d.Host, "/etc/mirror/ca.pem", "a CA\n", 0o644)
	put(t, d.Host, "/etc/mirror/user", "a:b", 0o600)
	if _, err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "has a colon") {
		t.Errorf("got %v", err)
	}
	d.Host.Offline = true
	if _, err := s.Check(t.Context()); !errors.As(err, new(step.Blocked)) {
		t.Errorf("in an image: %v", err)
	}
}

// Without mirrors nobody is asked anything.
func TestRegistriesWithoutMirrors(t *testing.T) {
	d := testContainerd(&host.Host{Root: t.TempDir()}, nil)
	if changes, err := Registries(d).Check(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("%v, %v", changes, err)
	}
}

func TestCertsDirs(t *testing.T) {
	for _, tt := range []struct{ version, cri, want, err string }{
		{"2", `registry = { config_path = "" }`, certsDir, ""},
		{"2", `registry = { config_path = "/a:/b" }`, "/a:/b", ""},
		{"2", `registry = { mirrors = { "docker.io" = { endpoint = ["x"] } } }`, "", "registry.mirrors in it"},
		{"2", `registry = { config_path = "", configs = { x = {} } }`, "", "registry.configs in it"},
		{"4", `registry = { config_path = "/a:/b" }`, "/a", ""},
		{"4", "registry = { config_path = \"/a:/b\" }\nuse_local_image_pull = true", "/a:/b", ""},
	} {
		plugin := "io.containerd.grpc.v1.cri"
		if tt.version == "4" {
			plugin = "io.containerd.cri.v1.images"
		}
		tree, err := decodeTOML(fmt.Appendf(nil, "version = %s\n[plugins.%q]\n%s\n", tt.version, plugin, tt.cri))
		if err != nil {
			t.Fatal(err)
		}
		at, err := layoutOf(versionOf(tree))
		if err != nil {
			t.Fatal(err)
		}
		got, err := certsDirs(tree, at)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
}

func TestCrictl(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	steptest.Converges(t, h, Crictl(h))
	for text, manual := range map[string]bool{
		"runtime-endpoint: unix:///run/containerd/containerd.sock\ntimeout: 2\n": false,
		"runtime-endpoint: /run/containerd/containerd.sock\n":                    false,
		"runtime-endpoint: unix:///var/run/containerd/containerd.sock\n":         false,
		"runtime-endpoint: unix:///var/run/dockershim.sock\n":                    true,
		"timeout: 2\n": true,
		"\t{":          true,
	} {
		put(t, h, crictlConfig, text, 0o644)
		changes, err := Crictl(h).Check(t.Context())
		if err != nil || (len(changes) == 1 && changes[0].Manual) != manual {
			t.Errorf("%q: %v, %v", text, changes, err)
		}
		if err := Crictl(h).Apply(t.Context()); err != nil {
			t.Error(err)
		}
		if data, err := h.ReadFile(crictlConfig); err != nil || string(data) != text {
			t.Errorf("%q has become %q, %v", text, data, err)
		}
	}
}
