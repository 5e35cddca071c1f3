//go:build integration

// Package containerd_test runs the tests of pkg/bootstrap that need a containerd and a systemd,
// on each release of containerd that a Debian or an Ubuntu has or that Docker ships.
package containerd_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const (
	buildTimeout = 15 * time.Minute
	testTimeout  = 10 * time.Minute
)

// must are tests that have to have run.
var must = []string{"TestRealContainerd", "TestRealContainerdRefuses", "TestRealContainerdLostRestart", "TestRealContainerdProxy", "TestRealRegistries", "TestRealContainersKeepRunning"}

func TestContainerd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	dirs := map[string]string{}
	for name, build := range map[string]func(context.Context) (string, error){
		"rootfs": lab.Rootfs, "repository": lab.Repository, "1.7": lab.Containerd17, "2.4": lab.Containerd2,
		"pause": func(ctx context.Context) (string, error) { return lab.Build(ctx, "pause") },
	} {
		dir, err := build(ctx)
		if err != nil {
			t.Fatal(err)
		}
		dirs[name] = dir
	}
	binary := filepath.Join(t.TempDir(), "bootstrap.test")
	compile := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "integration", "-o", binary, "./pkg/bootstrap")
	compile.Dir = "../../.."
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.WaitDelay = 5 * time.Second
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile the tests: %v\n%s", err, out)
	}
	for _, release := range []string{"1.6", "1.7", "2.4"} {
		t.Run(release, func(t *testing.T) {
			m := nspawn.Up(t, filepath.Join(dirs["rootfs"], "rootfs"))
			install(t, m, dirs, release)
			m.CopyIn(t, filepath.Join(dirs["pause"], "pause"), "/srv/pause")
			m.CopyIn(t, binary, "/srv/bootstrap.test")
			ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
			defer cancel()
			// In a unit of its own: processes that only entered the namespaces are in no unit.
			out, err := m.Run(ctx, "/usr/bin/systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--setenv=RELEASE="+release,
				"--working-directory=/tmp", "/srv/bootstrap.test", "-test.v", "-test.run=^TestReal", "-test.timeout=9m")
			t.Log(out)
			if err != nil {
				t.Error(err)
			}
			for _, name := range must {
				if !strings.Contains(out, "--- PASS: "+name+" ") {
					t.Errorf("%s did not run or did not pass", name)
				}
			}
			if strings.Contains(out, "--- SKIP") {
				t.Error("a test was skipped")
			}
		})
	}
}

// install installs Debian's containerd, and puts the programs of another release in its place.
func install(t *testing.T, m *nspawn.Machine, dirs map[string]string, release string) {
	t.Helper()
	for _, name := range []string{"runc", "containerd", "containernetworking-plugins"} {
		debs, err := filepath.Glob(filepath.Join(dirs["repository"], "debian/amd64", name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			t.Fatalf("find the package %s: %v, %v", name, debs, err)
		}
		m.CopyIn(t, debs[0], "/srv/"+name+".deb")
	}
	m.Script(t, "dpkg -i /srv/runc.deb /srv/containerd.deb /srv/containernetworking-plugins.deb; systemctl stop containerd")
	if dir, other := dirs[release]; other {
		for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
			m.CopyIn(t, filepath.Join(dir, name), "/usr/bin/"+name)
		}
	}
	if out := m.Script(t, "containerd --version; systemctl start containerd"); !strings.Contains(strings.ReplaceAll(out, " v", " "), " "+release+".") {
		t.Fatalf("there is %s and not %s", out, release)
	}
}
