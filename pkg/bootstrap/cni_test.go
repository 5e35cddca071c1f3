package bootstrap

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

func TestCNIPlugins(t *testing.T) {
	h := host.New(t.TempDir())
	put(t, h, "/usr/lib/cni/bridge", "debian's bridge", 0o755)
	put(t, h, "/usr/lib/cni/portmap", "debian's portmap", 0o755)
	put(t, h, "/usr/lib/cni/loopback", "debian's loopback", 0o755)
	put(t, h, "/usr/lib/cni/README", "no program", 0o644)
	put(t, h, "/opt/cni/bin/portmap", "an add-on's", 0o700)
	if err := h.Symlink("/nowhere", "/opt/cni/bin/loopback"); err != nil {
		t.Fatal(err)
	}
	s := CNIPlugins(h, false)
	changes, err := s.Check(t.Context())
	want := []step.Change{{Subject: "/opt/cni/bin/bridge", Have: "absent", Want: "a copy of /usr/lib/cni/bridge"}}
	if diff := cmp.Diff(want, changes); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	steptest.Converges(t, h, s)

	info, err := h.Lstat("/opt/cni/bin/bridge")
	if err != nil || info.Mode() != 0o755 {
		t.Errorf("copy is %v, %v", info.Mode(), err)
	}
	for name, want := range map[string]string{"bridge": "debian's bridge", "portmap": "an add-on's"} {
		if data, err := h.ReadFile("/opt/cni/bin/" + name); err != nil || string(data) != want {
			t.Errorf("%s is %q, %v", name, data, err)
		}
	}
	if target, err := h.Readlink("/opt/cni/bin/loopback"); err != nil || target != "/nowhere" {
		t.Errorf("somebody's link is %q, %v", target, err)
	}
	if there, err := h.Exists("/opt/cni/bin/README"); there || err != nil {
		t.Errorf("README copied: %v, %v", there, err)
	}
}

func TestCNIPluginsWithoutDebians(t *testing.T) {
	if changes, err := CNIPlugins(host.New(t.TempDir()), false).Check(t.Context()); err != nil || len(changes) > 0 {
		t.Error(changes, err)
	}
}

// cniHost is a machine with the plugins in a directory.
func cniHost(t *testing.T, dir string) *host.Host {
	t.Helper()
	h := host.New(t.TempDir())
	for _, name := range bridgePlugins {
		put(t, h, filepath.Join(dir, name), "x", 0o755)
	}
	return h
}

func TestBridgeConverges(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(h *host.Host)
		subnet  string
	}{
		"single":        {subnet: "10.244.0.0/16"},
		"dual":          {subnet: "10.244.0.0/16,fd00:10:244::/56"},
		"other content": {subnet: "10.244.0.0/16", prepare: func(h *host.Host) { put(t, h, bridgeConfig, "{}", 0o600) }},
		"other mode": {subnet: "10.244.0.0/16", prepare: func(h *host.Host) {
			data, err := renderBridge("10.244.0.0/16")
			if err != nil {
				t.Fatal(err)
			}
			put(t, h, bridgeConfig, string(data), 0o644)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := cniHost(t, cniBinDir)
			if tt.prepare != nil {
				tt.prepare(h)
			}
			put(t, h, cniConfDir+"/87-podman.conflist", "{}", 0o644) // read after ours: nothing to say
			steptest.Converges(t, h, Bridge(h, tt.subnet))
			data, err := h.ReadFile(bridgeConfig)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(name, "other") {
				golden(t, "testdata/bridge-"+name+".conflist", data)
			}
			if info, err := h.Stat(bridgeConfig); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestBridgeBehindAnotherNetwork(t *testing.T) {
	h := cniHost(t, cniBinDir)
	put(t, h, cniConfDir+"/05-cilium.conflist", "{}", 0o600)
	put(t, h, cniConfDir+"/05-notes.txt", "", 0o600)
	s := Bridge(h, "10.244.0.0/16")
	steptest.Converges(t, h, s) // a finding is not Apply's fault
	changes, err := s.Check(t.Context())
	if err != nil || len(changes) != 1 || !changes[0].Manual || changes[0].Subject != "/etc/cni/net.d/05-cilium.conflist" {
		t.Errorf("got %v, %v", changes, err)
	}
}

func TestBridgeNeedsPlugins(t *testing.T) {
	h := cniHost(t, "/nowhere")
	h.Offline = true // an image: a package may yet bring them
	_, err := Bridge(h, "10.244.0.0/16").Check(t.Context())
	if !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("nowhere in an image: %v", err)
	}
	h.Offline = false
	_, err = Bridge(h, "10.244.0.0/16").Check(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "install containernetworking-plugins") {
		t.Errorf("nowhere: %v", err)
	}
	_, err = Bridge(cniHost(t, debianCNIDir), "10.244.0.0/16").Check(t.Context())
	var blocked step.Blocked
	if !errors.As(err, &blocked) || blocked.On != CNIPluginsStep {
		t.Errorf("not copied yet: %v", err)
	}
	if _, err := Bridge(cniHost(t, cniBinDir), "10.244.0.0").Check(t.Context()); err == nil {
		t.Error("a bad subnet is accepted")
	}
}

func TestCNIPluginsStopsWithItsContext(t *testing.T) {
	h := cniHost(t, debianCNIDir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := CNIPlugins(h, false).Apply(ctx); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(h.Root, cniBinDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was copied: %v", err)
	}
}
