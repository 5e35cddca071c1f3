package bootstrap

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

var update = flag.Bool("update", false, "write the golden files")

const testPause = "registry.k8s.io/pause:3.10.2"

// fakeContainerd reads configurations as containerd 1.6 or 2 does, as far as these tests need
// it; that it does so was seen on the real ones, which the integration tests run.
type fakeContainerd struct {
	defaults string
	imported string // what a file named by imports says on top
}

const defaults16 = `
version = 2
disabled_plugins = []
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.6"
cni = { bin_dir = "/opt/cni/bin", conf_dir = "/etc/cni/net.d" }
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
sandbox_mode = "podsandbox" # 1.7 has this one
options = { SystemdCgroup = false, BinaryName = "" }
[plugins."io.containerd.internal.v1.opt"]
path = "/opt/containerd"
`

const defaults2 = `
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = { SystemdCgroup = false }
`

func (f fakeContainerd) exec(_ context.Context, c host.Command) ([]byte, error) {
	tree, err := decodeTOML([]byte(f.defaults))
	if err != nil {
		return nil, err
	}
	if args := strings.Join(c.Args, " "); args == "config default" {
		return toml.Marshal(tree)
	} else if len(c.Args) != 4 || c.Args[0] != "--config" || c.Args[2]+c.Args[3] != "configdump" {
		return nil, errors.New("unknown command line: " + args)
	}
	data, err := os.ReadFile(c.Args[1])
	if err != nil {
		return nil, err
	}
	for _, text := range []string{string(data), f.imported} {
		file, err := decodeTOML([]byte(text))
		if err != nil {
			return nil, err
		}
		if plugins, _ := file["plugins"].(map[string]any); versionOf(file) < 2 && plugins["cri"] != nil {
			plugins["io.containerd.grpc.v1.cri"] = plugins["cri"]
			delete(plugins, "cri")
		}
		delete(file, "version")
		overlayTree(tree, file, "")
	}
	if disabled, _ := tree["disabled_plugins"].([]any); slices.ContainsFunc(disabled, func(p any) bool { return isCRI(p.(string)) }) {
		delete(tree["plugins"].(map[string]any), "io.containerd.grpc.v1.cri")
	}
	return toml.Marshal(tree)
}

func overlayTree(into, from map[string]any, name string) {
	for key, value := range from {
		below, isTable := value.(map[string]any)
		old, wasTable := into[key].(map[string]any)
		switch {
		case isTable && name == "runtimes": // what it does not mention is forgotten
			into[key] = map[string]any{"runtime_type": ""}
			overlayTree(into[key].(map[string]any), below, key)
		case isTable && wasTable:
			overlayTree(old, below, key)
		default:
			into[key] = value
		}
	}
}

type fakeUnits struct {
	state    systemd.State
	restarts int
}

func (u *fakeUnits) State(context.Context, string) (systemd.State, error) { return u.state, nil }

func (u *fakeUnits) Enable(context.Context, string) error {
	u.state.UnitFileState = "enabled"
	return nil
}

func (u *fakeUnits) Restart(context.Context, string) error {
	u.restarts++
	u.state.ActiveState, u.state.ExecMainStartTimestamp = "active", time.Now().Add(time.Second)
	return nil
}

func runningUnit() *fakeUnits {
	return &fakeUnits{state: systemd.State{LoadState: "loaded", ActiveState: "active", UnitFileState: "enabled", ExecMainStartTimestamp: time.Now().Add(time.Second)}}
}

// containerdHost has a containerd, and config as its configuration unless it is "".
func containerdHost(t *testing.T, f fakeContainerd, config string) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir(), Exec: f.exec}
	put(t, h, "/usr/bin/containerd", "", 0o755)
	if config != "" {
		put(t, h, containerdConfig, config, 0o640)
	}
	return h
}

func put(t *testing.T, h *host.Host, path, data string, mode fs.FileMode) {
	t.Helper()
	if err := h.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s:\n%s", path, diff)
	}
}

func TestContainerdConverges(t *testing.T) {
	files, err := filepath.Glob("testdata/containerd/*.toml")
	if err != nil || len(files) < 9 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, "") {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) {
			f, config := fakeContainerd{defaults: defaults16}, ""
			if strings.HasPrefix(name, "version3") {
				f.defaults = defaults2
			}
			if file == "" {
				name = "missing"
			} else {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				config = string(data)
			}
			h, units := containerdHost(t, f, config), runningUnit()
			units.state.UnitFileState = "disabled"
			units.state.ExecMainStartTimestamp = time.Now().Add(-time.Hour)
			steptest.Converges(t, h, Containerd(h, units, testPause))

			got, err := h.ReadFile(containerdConfig)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata/containerd", name+".want"), got)
			if units.restarts != 1 || !units.state.Enabled() {
				t.Errorf("restarted %d times, %s", units.restarts, units.state.UnitFileState)
			}
			if there, err := h.Exists(containerdTrial); there || err != nil {
				t.Errorf("trial left behind: %v, %v", there, err)
			}
			if config == "" {
				return
			}
			if info, err := h.Stat(containerdConfig); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			kept, err := h.ReadFile("/var/lib/nodeagent/originals" + containerdConfig)
			if err != nil || string(kept) != config {
				t.Errorf("original kept as %q, %v", kept, err)
			}
		})
	}
}

func TestContainerdOffline(t *testing.T) {
	for _, config := range []string{"", "disabled_plugins = ['cri']\n", "version = 3\n", "version = 2\n[plugins]\n"} {
		h := containerdHost(t, fakeContainerd{}, config)
		h.Offline = true
		steptest.Converges(t, h, Containerd(h, nil, testPause))
		data, err := h.ReadFile(containerdConfig)
		if err != nil || strings.Contains(string(data), "version = 1") || !strings.Contains(string(data), "version = ") {
			t.Errorf("%q becomes %s, %v", config, data, err)
		}
	}
}

func TestContainerdUnit(t *testing.T) {
	good := containerdGood(t)
	for _, tt := range []struct {
		name       string
		change     func(*systemd.State)
		want       []string
		disruptive bool
		restarts   int
	}{
		{name: "fine", change: func(*systemd.State) {}},
		{name: "stopped", change: func(s *systemd.State) { s.ActiveState = "failed" }, want: []string{`containerd.service: "failed" → "active"`}, restarts: 1},
		{name: "disabled", change: func(s *systemd.State) { s.UnitFileState = "disabled" }, want: []string{`containerd.service: "disabled" → "enabled"`}},
		{name: "old", change: func(s *systemd.State) { s.ExecMainStartTimestamp = time.Unix(1000, 0) }, disruptive: true, restarts: 1,
			want: []string{`containerd.service: "started 1970-01-01T00:16:40Z" → "restarted after /etc/containerd/config.toml was written, 2001-09-09T01:46:40Z"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, units := containerdHost(t, fakeContainerd{defaults: defaults16}, good), runningUnit()
			path, err := h.Path(containerdConfig)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Time{}, time.Unix(1_000_000_000, 0)); err != nil {
				t.Fatal(err)
			}
			tt.change(&units.state)
			s := Containerd(h, units, testPause)
			changes, err := s.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				got = append(got, c.String())
				if c.Disruptive != tt.disruptive {
					t.Errorf("%v: disruptive %v", c, c.Disruptive)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if err := s.Apply(t.Context()); err != nil || units.restarts != tt.restarts {
				t.Errorf("restarted %d times, %v", units.restarts, err)
			}
		})
	}
}

// containerdGood is a configuration that needs no edit.
func containerdGood(t *testing.T) string {
	t.Helper()
	h := containerdHost(t, fakeContainerd{defaults: defaults16}, "")
	if err := Containerd(h, runningUnit(), testPause).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := h.ReadFile(containerdConfig)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What cannot be mended is an error that says so, and the host is as it was.
func TestContainerdRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, config string
		fake         fakeContainerd
		units        *fakeUnits
		want         string
		applyOnly    bool
	}{
		{name: "an imported file wins", config: "version = 2\nimports = ['x']\n", applyOnly: true,
			fake: fakeContainerd{defaults: defaults16, imported: "plugins.'io.containerd.grpc.v1.cri'.sandbox_image = 'mine'"},
			want: `containerd would still read containerd: "io.containerd.grpc.v1.cri".sandbox_image: "mine" → "registry.k8s.io/pause:3.10.2"`},
		{name: "too new a file", config: "version = 3\n", fake: fakeContainerd{defaults: defaults16}, want: "it is of version 3 and this containerd reads 2 at most"},
		{name: "too new a containerd", config: "version = 2\n", fake: fakeContainerd{defaults: "version = 9"}, want: "version 9 is not known"},
		{name: "no TOML", config: "= 1", fake: fakeContainerd{defaults: defaults16}, want: "read effective configuration of containerd"},
		{name: "kind", config: "version = 2\nplugins.'io.containerd.grpc.v1.cri'.cni.bin_dir = ['/usr/lib/cni']\n", applyOnly: true,
			fake: fakeContainerd{defaults: defaults16}, want: "is of another kind there"},
		{name: "no unit", config: "version = 2\n", fake: fakeContainerd{defaults: defaults16}, units: &fakeUnits{state: systemd.State{LoadState: "not-found"}}, want: "find containerd.service: it is not-found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, units := containerdHost(t, tt.fake, tt.config), tt.units
			if units == nil {
				units = runningUnit()
			}
			s := Containerd(h, units, testPause)
			_, err := s.Check(t.Context())
			if !tt.applyOnly && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("check: %v", err)
			}
			if err := s.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("apply: %v", err)
			}
			if tt.units != nil {
				return // the file is right by then; only the unit is missing
			}
			data, err := h.ReadFile(containerdConfig)
			if err != nil || string(data) != tt.config {
				t.Errorf("the file has become %q, %v", data, err)
			}
			if there, err := h.Exists(containerdTrial); there || err != nil || units.restarts > 0 {
				t.Errorf("trial left: %v, %v; restarted %d times", there, err, units.restarts)
			}
		})
	}
}

func TestContainerdNotInstalled(t *testing.T) {
	h := &host.Host{Root: t.TempDir(), Exec: fakeContainerd{}.exec}
	_, err := Containerd(h, runningUnit(), testPause).Check(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "install containerd") {
		t.Errorf("got %v", err)
	}
}

func TestStrayed(t *testing.T) {
	before, after := map[string]any{}, map[string]any{}
	maps.Copy(before, map[string]any{"same": int64(1), "gone": "x", "empty": "", "imports": []any{"a"}, "t": map[string]any{"in": true, "out": true}})
	maps.Copy(after, map[string]any{"same": int64(1), "new": "y", "zero": int64(0), "imports": []any{"b"}, "t": map[string]any{"in": false, "out": false}})
	got := words(strayed(before, after, [][]string{{"t", "in"}}))
	if got != "gone, new, t.out" {
		t.Errorf("got %s", got)
	}
}

var _ containerdUnits = (*systemd.Conn)(nil)
