//go:build integration

package bootstrap

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// good has the host be as wanted, and is its files.
func good(t *testing.T, ctx context.Context, deps ContainerdDeps) []string {
	t.Helper()
	configured(t, config(debianConfig))
	if _, err := step.Apply(ctx, []step.Step{Containerd(deps)}, nil); err != nil {
		t.Fatal(err)
	}
	return held(t)
}

// Killed between the write and the restart, or changed and changed back by hand with the times
// kept: the files say all that is wanted, and the daemon runs with something else.
func TestRealContainerdLostRestart(t *testing.T) {
	ctx, deps, units := machine(t)
	deps.Pause = "registry.k8s.io/pause:3.9" // no release has it by itself
	old := func(t *testing.T) {              // as `cp -p` and `tar` leave them
		for _, path := range []string{containerdConfig, containerdDropIn} {
			if err := os.Chtimes(path, time.Time{}, time.Unix(1_000_000_000, 0)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	forget := func(t *testing.T) {
		if err := os.Remove(loadedRecord); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	for name, prepare := range map[string]func(t *testing.T){
		"killed": func(t *testing.T) {
			c := containerd{deps}
			state, err := c.state(ctx)
			if err == nil {
				err = c.noteLoaded(ctx, state)
			}
			if err == nil {
				_, err = c.configure(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			old(t)
		},
		"by hand": func(t *testing.T) {
			forget(t)
			if _, err := (containerd{deps}).configure(ctx); err != nil {
				t.Fatal(err)
			}
			old(t)
		},
	} {
		// All of it, or only what containerd 2 does not tell over the CRI.
		for _, text := range []string{"version = 2\n", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\noptions = { SystemdCgroup = true }\n"} {
			t.Run(fmt.Sprintf("%s %d", name, len(text)), func(t *testing.T) {
				unlimited(t, ctx, units)
				configured(t, config(text))
				if err := units.Conn.Restart(ctx, containerdUnit); err != nil {
					t.Fatal(err)
				}
				prepare(t)
				units.restarts = 0
				for _, change := range applied(t, ctx, Containerd(deps)) {
					if !change.Disruptive {
						t.Errorf("got %v", change)
					}
				}
				if units.restarts != 1 {
					t.Errorf("restarted %d times", units.restarts)
				}
			})
		}
	}
}

// An edit of what is not ours is the operator's to bring into force, where the daemon can be
// asked for all of ours. A daemon of whose start nothing is known and that is younger than its
// files has read them.
func TestRealContainerdIsNotRestartedForNothing(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	s := Containerd(deps)
	units.restarts = 0
	clean := func(what string) {
		t.Helper()
		if results, err := step.Apply(ctx, []step.Step{s}, nil); err != nil || results[0].Outcome != step.Clean {
			t.Errorf("%s: %+v, %v", what, results, err)
		}
	}
	data, err := os.ReadFile(containerdConfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(containerdConfig, append(data, "# seen\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	clean("a comment")
	if err := os.Chtimes(containerdConfig, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	clean("a time to come")
	if err := units.Conn.Restart(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
	clean("a restart by somebody else")
	if err := os.RemoveAll(loadedRecord); err != nil {
		t.Fatal(err)
	}
	clean("nothing known of the start")
	if units.restarts > 0 {
		t.Errorf("restarted %d times", units.restarts)
	}
}

// A daemon that is stopped, or that answers nothing over the CRI, is a difference.
func TestRealContainerdDoesNotAnswer(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	s := Containerd(deps)
	if err := units.Stop(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
	applied(t, ctx, s)

	// Without the CRI it was started, and with it the file is by now.
	files := held(t)
	configured(t, config("disabled_plugins = ['cri']\n"))
	unlimited(t, ctx, units)
	if err := units.Conn.Restart(ctx, containerdUnit); err != nil {
		t.Fatal(err)
	}
	put := map[string]string{}
	for _, f := range files {
		path, text, _ := strings.Cut(f, ": ")
		put[path] = text
	}
	configured(t, put)
	changes := applied(t, ctx, s)
	if len(changes) != 1 || !strings.Contains(changes[0].Have, "it serves no CRI") {
		t.Errorf("got %v", changes)
	}
}

// A unit that starts containerd with another file than the one that is ours to edit.
func TestRealContainerdOfAnotherFile(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	if err := os.WriteFile("/srv/other.toml", []byte("version = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const dropIn = "/run/systemd/system/containerd.service.d/other.conf"
	if err := deps.Host.WriteFile(dropIn, []byte("[Service]\nExecStart=\nExecStart=/usr/bin/containerd --config /srv/other.toml\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := func() {
		unlimited(t, ctx, units)
		if err := units.DaemonReload(ctx); err != nil {
			t.Error(err)
		}
		if err := units.Conn.Restart(ctx, containerdUnit); err != nil {
			t.Error(err)
		}
	}
	again()
	err := containerd{deps}.apply(ctx)
	if err == nil || !strings.Contains(err.Error(), "does containerd.service start it with another file?") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(dropIn); err != nil {
		t.Fatal(err)
	}
	again()
}

func TestRealContainerdProxy(t *testing.T) {
	ctx, deps, units := machine(t)
	good(t, ctx, deps)
	environ := func() string {
		t.Helper()
		state, err := units.State(ctx, containerdUnit)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", state.MainPID))
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.ReplaceAll(data, []byte{0}, []byte("\n")))
	}
	deps.Config.Proxy = ProxyConfig{HTTPS: "http://proxy.example:3128/a%20b", NoProxy: []string{".example", ".svc"}}
	unlimited(t, ctx, units)
	changes := applied(t, ctx, Containerd(deps))
	if len(changes) != 1 || !changes[0].Disruptive {
		t.Errorf("got %v", changes)
	}
	const want = "NO_PROXY=.example,.svc,127.0.0.0/8,::1,localhost,10.96.0.0/12,192.0.2.1\n"
	if env := environ(); !strings.Contains(env, "HTTPS_PROXY=http://proxy.example:3128/a%20b\n") || !strings.Contains(env, want) || strings.Contains(env, "HTTP_PROXY=http") {
		t.Errorf("its environment is\n%s", env)
	}
	// Written and neither read by systemd nor by the daemon.
	deps.Config.Proxy.HTTPS = "http://other.example:3128"
	if err := (containerd{deps}).writeProxy(ctx); err != nil {
		t.Fatal(err)
	}
	if changes := applied(t, ctx, Containerd(deps)); len(changes) != 1 || !strings.Contains(changes[0].Subject, "HTTPS_PROXY") {
		t.Errorf("got %v", changes)
	}
	// Another drop-in has the last word, with a password in it.
	other := filepath.Join(filepath.Dir(proxyDropIn), "99-mine.conf")
	if err := os.WriteFile(other, []byte("[Service]\nEnvironment=HTTPS_PROXY=http://me:hunter2@p:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	deps.Config.Proxy.HTTPS = "http://third.example:3128"
	unlimited(t, ctx, units)
	_, err := step.Apply(ctx, []step.Step{Containerd(deps)}, nil)
	if err == nil || !strings.Contains(err.Error(), "does another drop-in of containerd.service set it?") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	unlimited(t, ctx, units)
	deps.Config.Proxy = ProxyConfig{}
	applied(t, ctx, Containerd(deps))
	if env := environ(); strings.Contains(env, "PROXY") {
		t.Errorf("its environment is\n%s", env)
	}
	if there, err := deps.Host.Exists(proxyDropIn); there || err != nil {
		t.Errorf("the drop-in is there: %v, %v", there, err)
	}
}

func TestRealCNIPlugins(t *testing.T) {
	ctx, deps, _ := machine(t)
	applied(t, ctx, CNIPlugins(deps.Host, false))
	applied(t, ctx, Bridge(deps.Host, "10.244.0.0/16"))
	for _, name := range bridgePlugins {
		out, err := deps.Host.RunCommand(ctx, host.Command{Path: filepath.Join(cniBinDir, name), Env: []string{"CNI_COMMAND=VERSION"}, Stdin: []byte(`{"cniVersion":"1.0.0"}`)})
		if err != nil {
			t.Errorf("%s: %s %v", name, out, err)
		}
	}
}
