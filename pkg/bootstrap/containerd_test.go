package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

var update = flag.Bool("update", false, "write the golden files")

const testPause = "registry.k8s.io/pause:3.10.2"

// fakeContainerd reads configurations as containerd 1.6 or 2.4 does, as far as these tests need
// it; that it does so was seen on the real ones, which test/integration/containerd runs.
type fakeContainerd struct {
	defaults string
	imported string // what a file named by imports says on top
	root     string // of the host
}

const defaults16 = `
version = 2
disabled_plugins = []
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.6"
cni = { bin_dir = "/opt/cni/bin", conf_dir = "/etc/cni/net.d" }
registry = { config_path = "" }
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
sandbox_mode = "podsandbox" # 1.7 has this one
options = { SystemdCgroup = false, BinaryName = "" }
[plugins."io.containerd.internal.v1.opt"]
path = "/opt/containerd"
`

const defaults24 = `
version = 4
disabled_plugins = []
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10"
[plugins."io.containerd.cri.v1.images".registry]
config_path = ""
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
	data := c.Stdin
	if c.Args[1] != "/dev/stdin" {
		if data, err = os.ReadFile(c.Args[1]); err != nil {
			return nil, err
		}
	}
	if err := f.read(tree, data); err != nil {
		return nil, err
	}
	if disabled, _ := tree["disabled_plugins"].([]any); slices.ContainsFunc(disabled, func(p any) bool { return isCRI(p.(string)) }) {
		delete(tree["plugins"].(map[string]any), "io.containerd.grpc.v1.cri")
	}
	return toml.Marshal(tree)
}

func (f fakeContainerd) read(tree map[string]any, data []byte) error {
	two := versionOf(tree) > 2
	for _, text := range []string{string(data), f.imported} {
		file, err := decodeTOML([]byte(text))
		if err != nil {
			return err
		}
		if versionOf(file) > versionOf(tree) && two {
			return fmt.Errorf("unsupported config version %d", versionOf(file))
		}
		if plugins, _ := file["plugins"].(map[string]any); versionOf(file) < 2 && plugins["cri"] != nil {
			plugins["io.containerd.grpc.v1.cri"] = plugins["cri"]
			delete(plugins, "cri")
		}
		delete(file, "version")
		if !two {
			overlayTree(tree, file, "")
			continue
		}
		patterns, _ := file["imports"].([]any)
		delete(file, "imports")
		if err := migrated(file); err != nil {
			return err
		}
		mergeTables(tree, file)
		for _, pattern := range patterns {
			pattern := pattern.(string)
			if !strings.HasPrefix(pattern, f.root) {
				pattern = filepath.Join(f.root, pattern)
			}
			names, err := filepath.Glob(pattern)
			if err != nil || len(names) == 0 && !strings.Contains(pattern, "*") {
				return fmt.Errorf("open %s: no such file: %w", pattern, err)
			}
			for _, name := range names {
				data, err := os.ReadFile(name)
				if err == nil {
					err = f.read(tree, data)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// migrated turns what a file of version 2 says of the CRI into the words of version 4.
func migrated(file map[string]any) error {
	old, err := layoutOf(2)
	if err != nil {
		return err
	}
	at, err := layoutOf(4)
	if err != nil {
		return err
	}
	var errs []error
	move := func(from, to []string, change func(any) any) {
		if v := lookTree(file, from); v != nil {
			errs = append(errs, putTree(file, to, change(v)))
		}
	}
	same := func(v any) any { return v }
	move(old.sandbox, at.sandbox, same)
	move(old.registry, at.registry, same)
	move(old.runtimes, at.runtimes, same)
	move(sub(old.cni, "conf_dir"), sub(at.cni, "conf_dir"), same)
	move(sub(old.cni, "bin_dir"), sub(at.cni, "bin_dirs"), func(v any) any { return []any{v} })
	if plugins, _ := file["plugins"].(map[string]any); plugins != nil {
		delete(plugins, "io.containerd.grpc.v1.cri")
	}
	return errors.Join(errs...)
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

// fakeUnits starts a daemon that serves the CRI and tells what it was started with.
type fakeUnits struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	host     *host.Host
	state    systemd.State
	config   map[string]any // as the running daemon tells it
	restarts int
	reloads  int
	deaf     bool // to restarts: it goes on with what it has
}

func (u *fakeUnits) State(context.Context, string) (systemd.State, error) { return u.state, nil }

func (u *fakeUnits) Enable(context.Context, string) error {
	u.state.UnitFileState = "enabled"
	return nil
}

func (u *fakeUnits) DaemonReload(context.Context) error {
	u.reloads++
	return nil
}

func (u *fakeUnits) Restart(ctx context.Context, _ string) error {
	u.restarts++
	if u.state.MainPID == 0 {
		u.state.MainPID = 100
	}
	u.state.MainPID++
	u.state.ActiveState, u.state.ExecMainStartTimestamp = "active", time.Now().Add(time.Second)
	return u.start(ctx)
}

// start has the daemon read its files.
func (u *fakeUnits) start(ctx context.Context) error {
	if u.deaf {
		return nil
	}
	args := []string{"config", "default"}
	if there, err := u.host.Exists(containerdConfig); err != nil {
		return err
	} else if there {
		args = []string{"--config", filepath.Join(u.host.Root, containerdConfig), "config", "dump"}
	}
	out, err := u.host.Exec(ctx, host.Command{Args: args})
	if err != nil {
		return err
	}
	tree, err := decodeTOML(out)
	if err != nil {
		return err
	}
	u.config = toldOf(tree)
	environ := "PATH=/bin\x00"
	dropIn, err := u.host.ReadFile(proxyDropIn)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(dropIn)) {
		if value, is := strings.CutPrefix(strings.TrimSpace(line), `Environment="`); is {
			environ += strings.ReplaceAll(strings.TrimSuffix(value, `"`), "%%", "%") + "\x00"
		}
	}
	return u.host.WriteFile(fmt.Sprintf("/proc/%d/environ", u.state.MainPID), []byte(environ), 0o400)
}

// toldOf is the status of a daemon with an effective configuration, in the shape of 1.6 or 2.4.
func toldOf(tree map[string]any) map[string]any {
	l, err := layoutOf(versionOf(tree))
	if err != nil {
		return nil
	}
	cni, _ := lookTree(tree, l.cni).(map[string]any)
	told := map[string]any{"cni": map[string]any{"confDir": cni["conf_dir"], "binDir": cni["bin_dir"]}}
	if dirs, several := cni["bin_dirs"]; several {
		told["cni"] = map[string]any{"confDir": cni["conf_dir"], "binDirs": dirs}
	}
	runtimes, told2 := map[string]any{}, map[string]any{}
	if all, _ := lookTree(tree, l.runtimes).(map[string]any); all != nil {
		runtimes = all
	}
	for name, r := range runtimes {
		table, _ := r.(map[string]any)
		told2[name] = map[string]any{"runtimeType": table["runtime_type"], "options": table["options"]}
	}
	told["containerd"] = map[string]any{"runtimes": told2}
	if versionOf(tree) < 3 {
		told["sandboxImage"] = lookTree(tree, l.sandbox)
		told["registry"] = map[string]any{"configPath": lookTree(tree, sub(l.registry, "config_path"))}
	}
	return told
}

func (u *fakeUnits) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "fake"}, nil
}

func (u *fakeUnits) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	config, err := json.Marshal(u.config)
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}}},
		Info:   map[string]string{"config": string(config)},
	}, err
}

// running is a daemon that was started with what lies on the host now, an hour ago.
func running(t *testing.T, h *host.Host) *fakeUnits {
	t.Helper()
	u := &fakeUnits{host: h, state: systemd.State{LoadState: "loaded", ActiveState: "active", UnitFileState: "enabled", MainPID: 100, ExecMainStartTimestamp: time.Now().Add(time.Second)}}
	if err := u.start(t.Context()); err != nil {
		t.Log("no daemon could start with this: ", err)
	}
	if err := h.MkdirAll("/run/containerd", 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(h.Root, containerdSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, u)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return u
}

// containerdHost has a containerd, and config as its configuration unless it is "".
func containerdHost(t *testing.T, f fakeContainerd, config string) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir()}
	f.root = h.Root
	h.Exec = f.exec
	put(t, h, "/usr/bin/containerd", "", 0o755)
	if config != "" {
		put(t, h, containerdConfig, config, 0o640)
	}
	return h
}

func testContainerd(h *host.Host, u *fakeUnits) ContainerdDeps {
	d := ContainerdDeps{Host: h, Pause: testPause, NoProxy: func(context.Context) ([]string, error) { return []string{"10.96.0.0/12", "192.0.2.1"}, nil }}
	if u != nil {
		d.Units = u
	}
	return d
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
		name, config := "missing", ""
		if file != "" {
			name = strings.TrimSuffix(filepath.Base(file), ".toml")
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			config = string(data)
		}
		for _, release := range []struct{ name, defaults string }{{"1.6", defaults16}, {"2.4", defaults24}} {
			if strings.HasPrefix(name, "version3") && release.name == "1.6" {
				continue
			}
			t.Run(name+"-"+release.name, func(t *testing.T) {
				t.Parallel()
				h := containerdHost(t, fakeContainerd{defaults: release.defaults}, config)
				units := running(t, h)
				units.state.UnitFileState = "disabled"
				steptest.Converges(t, h, Containerd(testContainerd(h, units)))
				if units.restarts != 1 || !units.state.Enabled() {
					t.Errorf("restarted %d times, %s", units.restarts, units.state.UnitFileState)
				}
				for _, path := range []string{containerdConfig, containerdDropIn} {
					got, _, err := readOwned(h, path)
					if err != nil {
						t.Fatal(err)
					}
					if path == containerdDropIn && release.name == "1.6" {
						if got != nil {
							t.Errorf("a drop-in on containerd 1: %s", got)
						}
						continue
					}
					golden(t, filepath.Join("testdata/containerd", fmt.Sprintf("%s-%s-%s.want", name, release.name, strings.TrimSuffix(filepath.Base(path), ".toml"))), got)
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
}

const dpkgParagraph = "Package: %s\nStatus: install ok installed\nVersion: %s\nDescription: x\n y\n\n"

func TestContainerdOffline(t *testing.T) {
	for _, pkg := range []string{"containerd 1.6.20~ds1-1+deb12u1", "containerd.io 2.1.3-1~debian.12~bookworm"} {
		for _, config := range []string{"", "disabled_plugins = ['cri']\n", "version = 2\n[plugins]\n", "version = 3\n"} {
			name, version, _ := strings.Cut(pkg, " ")
			h := containerdHost(t, fakeContainerd{}, config)
			h.Offline = true
			put(t, h, dpkgStatus, fmt.Sprintf(dpkgParagraph+dpkgParagraph, "bash", "5.2", name, version), 0o644)
			steptest.Converges(t, h, Containerd(testContainerd(h, nil)))
			data, err := h.ReadFile(containerdConfig)
			if err != nil || strings.Contains(string(data), "version = 1") || !strings.Contains(string(data), "version = ") {
				t.Errorf("%q becomes %s, %v", config, data, err)
			}
			there, err := h.Exists(containerdDropIn)
			if err != nil || there != (name == "containerd.io") {
				t.Errorf("%s: drop-in %v, %v", pkg, there, err)
			}
			if !there {
				continue
			}
			// At its boot there is nothing left to do, whatever pause image this containerd has by itself.
			h.Offline = false
			var units *fakeUnits
			for _, defaults := range []string{defaults24, strings.Replace(defaults24, "registry.k8s.io/pause:3.10", testPause, 1)} {
				h.Exec = fakeContainerd{defaults: defaults, root: h.Root}.exec
				if units == nil {
					units = running(t, h)
				}
				if changes, err := Containerd(testContainerd(h, units)).Check(t.Context()); err != nil || len(changes) > 0 {
					t.Errorf("%q after boot: %v, %v", config, changes, err)
				}
			}
		}
	}
}

func TestContainerdOfflineWithoutPackage(t *testing.T) {
	for _, status := range []string{"", "Package: containerd\nStatus: deinstall ok config-files\nVersion: 1.6\n", "Package: containerd-doc\nStatus: install ok installed\nVersion: 2\n"} {
		h := containerdHost(t, fakeContainerd{}, "version = 2\n")
		h.Offline = true
		put(t, h, dpkgStatus, status, 0o644)
		_, err := Containerd(testContainerd(h, nil)).Check(t.Context())
		if blocked := (step.Blocked{}); !errors.As(err, &blocked) || blocked.On != step.Boot {
			t.Errorf("%q: %v", status, err)
		}
	}
}

func TestContainerdUnit(t *testing.T) {
	good := containerdGood(t)
	for _, tt := range []struct {
		name       string
		change     func(*fakeUnits)
		want       []string
		disruptive bool
		restarts   int
	}{
		{name: "fine", change: func(*fakeUnits) {}},
		{name: "stopped", change: func(u *fakeUnits) { u.state.ActiveState = "failed" }, want: []string{`containerd.service: "failed" → "active"`}, restarts: 1},
		{name: "disabled", change: func(u *fakeUnits) { u.state.UnitFileState = "disabled" }, want: []string{`containerd.service: "disabled" → "enabled"`}},
		{name: "older than its file, and right", change: func(u *fakeUnits) { u.state.ExecMainStartTimestamp = time.Unix(1000, 0) }},
		{name: "not restarted", change: func(u *fakeUnits) { u.config["sandboxImage"] = "old" }, disruptive: true, restarts: 1,
			want: []string{`running containerd: sandboxImage: "old" → "registry.k8s.io/pause:3.10.2"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := containerdHost(t, fakeContainerd{defaults: defaults16}, good)
			units := running(t, h)
			tt.change(units)
			s := Containerd(testContainerd(h, units))
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
	if err := Containerd(testContainerd(h, running(t, h))).Apply(t.Context()); err != nil {
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
			h := containerdHost(t, tt.fake, tt.config)
			units := tt.units
			if units == nil {
				units = running(t, h)
			}
			s := Containerd(testContainerd(h, units))
			_, err := s.Check(t.Context())
			if !tt.applyOnly && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("check: %v", err)
			}
			if err := s.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("apply: %v", err)
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
	d := testContainerd(&host.Host{Root: t.TempDir()}, nil)
	_, err := Containerd(d).Check(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "install containerd") {
		t.Errorf("got %v", err)
	}
	d.Installer = PackagesStep
	d.Config.Mirrors = testMirrors
	for _, s := range []step.Step{Containerd(d), Registries(d), CNIPlugins(d.Host, true), Images(d.Host, []string{"/a.tar"}, PackagesStep)} {
		_, err := s.Check(t.Context())
		if blocked := (step.Blocked{}); !errors.As(err, &blocked) || blocked.On != PackagesStep {
			t.Errorf("%s, managed: %v", s.Name, err)
		}
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
