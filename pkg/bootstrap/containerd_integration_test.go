//go:build integration

// These tests change the machine they run on: they are built with `go test -c -tags
// integration` and run as root inside a throw-away container or VM that systemd has booted and
// that has Debian's containerd and containernetworking-plugins.
package bootstrap

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

func machine(t *testing.T) (context.Context, *host.Host, *systemd.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	units, err := systemd.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(units.Close)
	unlimited(t, ctx, units)
	return ctx, host.New("/"), units
}

// unlimited lets containerd be restarted more often than systemd likes.
func unlimited(t *testing.T, ctx context.Context, units *systemd.Conn) {
	t.Helper()
	if err := units.ResetFailed(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
}

// applied applies a step that differs, and fails unless it is clean then.
func applied(t *testing.T, ctx context.Context, s step.Step) []step.Result {
	t.Helper()
	results, err := step.Apply(ctx, []step.Step{s}, nil)
	if err != nil || results[0].Outcome != step.Applied {
		t.Fatalf("%v: %+v", err, results)
	}
	return results
}

// The real containerd takes each configuration of the golden tests, edited, and runs with it.
func TestRealContainerd(t *testing.T) {
	ctx, h, units := machine(t)
	s := Containerd(ContainerdDeps{Host: h, Units: units, Pause: testPause})
	for _, tt := range []struct{ name, config string }{
		{"Debian's own", ""},
		{"none", "-"},
		{"Docker's", "disabled_plugins = [\"cri\"]\n"},
		{"version 1", "[plugins.cri]\nsandbox_image = 'k8s.gcr.io/pause:3.1'\n"},
		{"dotted keys", "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".sandbox_image = \"x\"\n"},
		{"inline tables", "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".cni = { bin_dir = '/usr/lib/cni' }\n"},
		{"a second runtime", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\nruntime_type = \"io.containerd.runc.v2\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			unlimited(t, ctx, units)
			switch tt.config {
			case "":
			case "-":
				if err := os.Remove(containerdConfig); err != nil {
					t.Fatal(err)
				}
			default:
				if err := os.WriteFile(containerdConfig, []byte(tt.config), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			before, err := units.State(ctx, containerdUnit)
			if err != nil {
				t.Fatal(err)
			}
			applied(t, ctx, s)
			after, err := units.State(ctx, containerdUnit)
			if err != nil || !after.ExecMainStartTimestamp.After(before.ExecMainStartTimestamp) {
				t.Errorf("not restarted: %+v, %v", after, err)
			}
			if results, err := step.Apply(ctx, []step.Step{s}, nil); err != nil || results[0].Outcome != step.Clean {
				t.Errorf("a second time: %+v, %v", results, err)
			}
			again, err := units.State(ctx, containerdUnit)
			if err != nil || again.MainPID != after.MainPID {
				t.Errorf("restarted for nothing: %+v, %v", again, err)
			}
		})
	}
}

// Written and not restarted is a difference, though the file says all that is wanted and is
// older than the daemon.
func TestRealContainerdRunsWithAnOlderFile(t *testing.T) {
	ctx, h, units := machine(t)
	s := Containerd(ContainerdDeps{Host: h, Units: units, Pause: testPause})
	if _, err := step.Apply(ctx, []step.Step{s}, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(containerdConfig)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(data, []byte("SystemdCgroup = true"), []byte("SystemdCgroup = false"), 1)
	if err := os.WriteFile(containerdConfig, other, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := units.Restart(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(containerdConfig, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(containerdConfig, time.Time{}, time.Unix(1_000_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	result := applied(t, ctx, s)[0]
	if len(result.Changes) != 1 || !result.Changes[0].Disruptive || !strings.Contains(result.Changes[0].Subject, "SystemdCgroup") {
		t.Errorf("got %+v", result.Changes)
	}
}

func TestRealCNIPlugins(t *testing.T) {
	ctx, h, _ := machine(t)
	applied(t, ctx, CNIPlugins(h, false))
	applied(t, ctx, Bridge(h, "10.244.0.0/16"))
	for _, name := range bridgePlugins {
		out, err := h.RunCommand(ctx, host.Command{Path: filepath.Join(cniBinDir, name), Env: []string{"CNI_COMMAND=VERSION"}, Stdin: []byte(`{"cniVersion":"1.0.0"}`)})
		if err != nil {
			t.Errorf("%s: %s %v", name, out, err)
		}
	}
}

// An image without layers is all that an import needs.
func TestRealImages(t *testing.T) {
	ctx, h, units := machine(t)
	if _, err := step.Apply(ctx, []step.Step{Containerd(ContainerdDeps{Host: h, Units: units, Pause: testPause})}, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}`
	archive := tarOf(t, member{"config.json", config}, member{"manifest.json", `[{"Config":"config.json","RepoTags":["nodeagent-test:1","registry.example/nodeagent/test:2"],"Layers":[]}]`})
	if err := os.WriteFile(path, []byte(archive), 0o644); err != nil {
		t.Fatal(err)
	}
	s := Images(h, []string{path}, false)
	if got := applied(t, ctx, s)[0].Changes; len(got) != 2 || got[0].Subject != "image docker.io/library/nodeagent-test:1" {
		t.Errorf("got %v", got)
	}
	if err := units.Stop(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
	result := step.Plan(ctx, []step.Step{s}, nil)[0]
	if result.Outcome != step.Waiting {
		t.Errorf("containerd stopped: %+v", result)
	}
	if err := units.Start(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
}
