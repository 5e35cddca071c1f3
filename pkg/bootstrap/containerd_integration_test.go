//go:build integration

// These tests change the machine they run on: test/integration/containerd builds them with `go
// test -c -tags integration` and runs them as root inside a throw-away container that systemd
// has booted, with one release of containerd after the other and Debian's
// containernetworking-plugins. RELEASE says which.
package bootstrap

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// countingUnits counts the restarts.
type countingUnits struct {
	*systemd.Conn
	restarts int
}

func (u *countingUnits) Restart(ctx context.Context, unit string) error {
	u.restarts++
	return u.Conn.Restart(ctx, unit)
}

func releaseTwo() bool { return strings.HasPrefix(os.Getenv("RELEASE"), "2.") }

func machine(t *testing.T) (context.Context, ContainerdDeps, *countingUnits) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	conn, err := systemd.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	units := &countingUnits{Conn: conn}
	unlimited(t, ctx, units)
	return ctx, ContainerdDeps{
		Host: host.New("/"), Units: units, Pause: testPause,
		NoProxy: func(context.Context) ([]string, error) { return []string{"10.96.0.0/12", "192.0.2.1"}, nil },
	}, units
}

// unlimited lets containerd be restarted more often than systemd likes.
func unlimited(t *testing.T, ctx context.Context, units *countingUnits) {
	t.Helper()
	if err := units.ResetFailed(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
}

// configured has the host hold these files and no others below /etc/containerd.
func configured(t *testing.T, files map[string]string) {
	t.Helper()
	entries, err := os.ReadDir("/etc/containerd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join("/etc/containerd", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// config is the files of a case with only a config.toml.
func config(text string) map[string]string { return map[string]string{containerdConfig: text} }

// applied applies a step that differs, and fails unless it is clean then.
func applied(t *testing.T, ctx context.Context, s step.Step) []step.Change {
	t.Helper()
	results, err := step.Apply(ctx, []step.Step{s}, nil)
	if err != nil || results[0].Outcome != step.Applied {
		t.Fatalf("%v: %+v", err, results)
	}
	results2, err := step.Apply(ctx, []step.Step{s}, nil)
	if err != nil || results2[0].Outcome != step.Clean {
		t.Fatalf("a second time: %v: %+v", err, results2)
	}
	return results[0].Changes
}

const (
	debianConfig = `version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
`
	userTwo = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "mine.example/pause:1" # ours
  max_concurrent_downloads = 10
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
      BinaryName = "/usr/bin/nvidia-container-runtime"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"
`
	userThree = `version = 3
[plugins.'io.containerd.cri.v1.images']
  max_concurrent_downloads = 10
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'mine.example/pause:1'
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni', '/mine']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]
  runtime_type = 'io.containerd.runc.v2'
`
	mineThree = "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  max_concurrent_downloads = 10\n"
)

// realCase is a configuration that a host may have. keep are words that its files hold as
// before, dump what containerd reads afterwards.
type realCase struct {
	files      map[string]string
	keep, dump []string
	one, two   bool // for containerd 1.x, for 2
}

var realCases = map[string]realCase{
	"Debian's own":     {files: config(debianConfig), one: true, two: true, dump: []string{"/var/lib/containerd/opt"}},
	"none":             {files: nil, one: true, two: true},
	"empty":            {files: config(""), one: true, two: true},
	"Docker's":         {files: config("#   Copyright\n\ndisabled_plugins = [\"cri\"]\n\n#root = \"/x\"\n"), one: true, two: true, keep: []string{"#   Copyright", "disabled_plugins = []", "#root"}},
	"version 1":        {files: config("[plugins.cri]\nsandbox_image = 'k8s.gcr.io/pause:3.1'\nmax_concurrent_downloads = 10\n"), one: true, two: true, dump: []string{"max_concurrent_downloads = 10"}},
	"dotted keys":      {files: config("version = 2\nplugins.\"io.containerd.grpc.v1.cri\".sandbox_image = \"x\"\n"), one: true, two: true},
	"inline tables":    {files: config("version = 2\nplugins.\"io.containerd.grpc.v1.cri\".cni = { bin_dir = '/usr/lib/cni' }\n"), one: true, two: true},
	"user's version 2": {files: config(userTwo), one: true, two: true, keep: []string{"max_concurrent_downloads = 10"}, dump: []string{"max_concurrent_downloads = 10", "nvidia-container-runtime", "io.containerd.kata.v2"}},
	"user's version 3": {files: config(userThree), two: true, keep: []string{userThree}, dump: []string{"max_concurrent_downloads = 10", "/opt/cni/bin", "/mine"}},
	"user's version 4": {files: config(strings.Replace(userThree, "= 3", "= 4", 1)), two: true, dump: []string{"max_concurrent_downloads = 10"}},
	"imports, and a file of the user's": {two: true, keep: []string{mineThree, `imports = ["conf.d/*.toml"]`}, dump: []string{"max_concurrent_downloads = 10"}, files: map[string]string{
		containerdConfig: "version = 3\nimports = [\"conf.d/*.toml\"]\n", "/etc/containerd/conf.d/50-mine.toml": mineThree,
	}},
	"other imports, and a file that they leave out": {two: true, keep: []string{mineThree}, dump: []string{"max_concurrent_downloads = 3"}, files: map[string]string{
		containerdConfig: "version = 3\nimports = [\"/etc/containerd/mine/*.toml\"]\n", "/etc/containerd/conf.d/50-mine.toml": mineThree,
	}},
	"our drop-in, on containerd 1": {one: true, dump: []string{"max_concurrent_downloads = 10"}, files: map[string]string{
		containerdConfig: strings.Replace(userTwo, "version = 2\n", "version = 2\nimports = [\"/etc/containerd/conf.d/90-nodeagent*.toml\"]\n", 1),
		containerdDropIn: "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
	}},
	"our files for containerd 2, on containerd 1": {one: true, files: map[string]string{
		containerdConfig: newConfigMark + "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
		containerdDropIn: "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'x'\n",
	}},
	"a drop-in of ours with a runtime that is gone": {two: true, files: map[string]string{
		containerdConfig: "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
		containerdDropIn: "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.gone.options]\nSystemdCgroup = true\n",
	}},
}

// The real containerd takes each configuration, brought to what is wanted, and runs with it.
func TestRealContainerd(t *testing.T) {
	ctx, deps, units := machine(t)
	s := Containerd(deps)
	for name, tt := range realCases {
		if releaseTwo() && !tt.two || !releaseTwo() && !tt.one {
			continue
		}
		t.Run(name, func(t *testing.T) {
			unlimited(t, ctx, units)
			configured(t, tt.files)
			units.restarts = 0
			applied(t, ctx, s)
			if units.restarts > 1 {
				t.Errorf("restarted %d times", units.restarts)
			}
			out, err := deps.Host.Run(ctx, "/usr/bin/containerd", "config", "dump")
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range append([]string{testPause, "SystemdCgroup = true", cniBinDir}, tt.dump...) {
				if !strings.Contains(string(out), word) {
					t.Errorf("containerd does not read %q:\n%s", word, out)
				}
			}
			if strings.Contains(string(out), "SystemdCgroup = false") || strings.Contains(string(out), "gone") {
				t.Errorf("containerd reads\n%s", out)
			}
			var text string
			for path := range tt.files {
				data, err := os.ReadFile(path)
				if err != nil && path != containerdDropIn {
					t.Error(err)
				}
				text += string(data)
			}
			for _, word := range tt.keep {
				// Our line of imports may have come in between.
				if !strings.Contains(strings.ReplaceAll(text, "imports = [\""+importOurs+"\"]\n", ""), word) {
					t.Errorf("the files do not keep %q:\n%s", word, text)
				}
			}
			if there, err := deps.Host.Exists(containerdDropIn); err != nil || there != releaseTwo() {
				t.Errorf("drop-in: %v, %v", there, err)
			}
		})
	}
}

// What cannot be mended is an error that says so, and nothing has changed.
func TestRealContainerdRefuses(t *testing.T) {
	ctx, deps, units := machine(t)
	s := Containerd(deps)
	cases := map[string]struct {
		files map[string]string
		mount string // options of what is mounted on /etc/containerd
		want  string
	}{
		"syntax error":     {files: config("version = 2\n[plugins\n"), want: "read effective configuration of containerd"},
		"duplicate tables": {files: config("version = 2\n[debug]\nlevel = 'info'\n[debug]\nlevel = 'warn'\n"), want: "read effective configuration of containerd"},
		"version 9":        {files: config("version = 9\n"), want: "version"},
		"read-only":        {files: config(userTwo), mount: "ro", want: "read-only file system"},
		"full disk":        {files: config(userTwo), mount: "full", want: "no space left on device"},
	}
	if releaseTwo() {
		cases["a later file"] = struct {
			files map[string]string
			mount string
			want  string
		}{want: "does a file say so that this one imports?", files: map[string]string{
			containerdConfig:                      "version = 3\nimports = ['conf.d/*.toml']\n",
			"/etc/containerd/conf.d/99-last.toml": "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'mine'\n",
		}}
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			unlimited(t, ctx, units)
			configured(t, tt.files)
			if tt.mount != "" {
				mounted(t, tt.mount, tt.files)
			}
			before := held(t)
			units.restarts = 0
			_, err := step.Apply(ctx, []step.Step{s}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if after := held(t); !slices.Equal(before, after) || units.restarts > 0 {
				t.Errorf("there is %q, was %q; restarted %d times", after, before, units.restarts)
			}
			if tt.mount == "" {
				return
			}
			if err := unix.Mount("", "/etc/containerd", "", unix.MS_REMOUNT, "size=1m"); err != nil {
				t.Fatal(err)
			}
			applied(t, ctx, s) // as soon as it can
		})
	}
}

// mounted has /etc/containerd be a small file system of its own with these files.
func mounted(t *testing.T, kind string, files map[string]string) {
	t.Helper()
	if err := unix.Mount("tmpfs", "/etc/containerd", "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/etc/containerd", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	configured(t, files)
	switch kind {
	case "ro":
		if err := unix.Mount("", "/etc/containerd", "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=64k"); err != nil {
			t.Fatal(err)
		}
	case "full":
		err := os.WriteFile("/etc/containerd/filler", make([]byte, 1<<20), 0o600)
		if err == nil {
			t.Fatal("the disk is not full")
		}
	}
}

// held is each file below /etc/containerd with what it holds.
func held(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("/etc/containerd", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out = append(out, path+": "+string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
