package bootstrap

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// What containerd 2 does not tell of itself, its sandbox image, is known from a note of the
// start, or from the files' times.
func TestContainerdUntold(t *testing.T) {
	prepare := func(t *testing.T) (ContainerdDeps, *fakeUnits) {
		h := containerdHost(t, fakeContainerd{defaults: defaults24}, "version = 3\n")
		units := running(t, h)
		d := testContainerd(h, units)
		if err := Containerd(d).Apply(t.Context()); err != nil || units.restarts != 1 {
			t.Fatal(units.restarts, err)
		}
		return d, units
	}
	for name, tt := range map[string]struct {
		change   func(t *testing.T, d *ContainerdDeps, u *fakeUnits)
		restarts int
	}{
		"nothing":                {func(*testing.T, *ContainerdDeps, *fakeUnits) {}, 0},
		"another start, younger": {func(_ *testing.T, _ *ContainerdDeps, u *fakeUnits) { u.state.MainPID++ }, 0},
		"another start, older": {func(_ *testing.T, _ *ContainerdDeps, u *fakeUnits) {
			u.state.ExecMainStartTimestamp = time.Unix(1000, 0)
		}, 1},
		"no note, and the files backdated": {func(t *testing.T, d *ContainerdDeps, u *fakeUnits) {
			u.state.ExecMainStartTimestamp = time.Unix(2_000_000_000, 0).Add(-40 * 365 * 24 * time.Hour)
			path, err := d.Host.Path(containerdDropIn)
			if err == nil {
				err = errors.Join(os.Chtimes(path, time.Time{}, time.Unix(1000, 0)), d.Host.Remove(loadedRecord))
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 1},
		"killed before the restart": {func(t *testing.T, d *ContainerdDeps, u *fakeUnits) {
			d.Pause = "registry.k8s.io/pause:3.11"
			c := containerd{*d}
			err := c.noteLoaded(t.Context(), u.state)
			if err == nil {
				_, err = c.configure(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, units := prepare(t)
			tt.change(t, &d, units)
			units.restarts = 0
			s := Containerd(d)
			changes, err := s.Check(t.Context())
			if err != nil || len(changes) != tt.restarts {
				t.Errorf("%v, %v", changes, err)
			}
			for range 2 {
				if err := s.Apply(t.Context()); err != nil || units.restarts != tt.restarts {
					t.Errorf("restarted %d times, %v", units.restarts, err)
				}
			}
		})
	}
}

// A daemon that a restart does not bring to what its file says is an error that says so.
func TestContainerdDeaf(t *testing.T) {
	h := containerdHost(t, fakeContainerd{defaults: defaults16}, "version = 2\n")
	units := running(t, h)
	units.deaf = true
	err := Containerd(testContainerd(h, units)).Apply(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does containerd.service start it with another file?") || units.restarts != 1 {
		t.Errorf("restarted %d times, %v", units.restarts, err)
	}
}

// A configuration that containerd reads otherwise once it is in place is taken back.
func TestContainerdRollsBack(t *testing.T) {
	const config = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n"
	h := containerdHost(t, fakeContainerd{defaults: defaults24}, config)
	c := containerd{testContainerd(h, running(t, h))}
	s, err := c.setup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = c.putProven(t.Context(), s, s.root, s.wantDropIn, s.effective) // tried without it
	if err == nil || !strings.Contains(err.Error(), "the earlier configuration is back") {
		t.Errorf("got %v", err)
	}
	if there, err := h.Exists(containerdDropIn); there || err != nil {
		t.Errorf("the drop-in is there: %v, %v", there, err)
	}
}

func TestContainerdProxy(t *testing.T) {
	h := containerdHost(t, fakeContainerd{defaults: defaults16}, containerdGood(t))
	units := running(t, h)
	d := testContainerd(h, units)
	d.Config.Proxy = ProxyConfig{HTTP: "http://p:3128", HTTPS: "http://p:3128/%41", NoProxy: []string{".example", "localhost"}}
	steptest.Converges(t, h, Containerd(d))
	data, err := h.ReadFile(proxyDropIn)
	const want = proxyHead + `[Service]
Environment="HTTP_PROXY=http://p:3128"
Environment="HTTPS_PROXY=http://p:3128/%%41"
Environment="NO_PROXY=.example,localhost,127.0.0.0/8,::1,.svc,10.96.0.0/12,192.0.2.1"
`
	if err != nil || string(data) != want || units.restarts != 1 || units.reloads != 1 {
		t.Errorf("restarted %d times, %v, %s", units.restarts, err, data)
	}
	// The daemon has another one, with a password in it.
	put(t, h, "/proc/101/environ", "HTTP_PROXY=http://me:hunter2@p\x00HTTPS_PROXY=http://p:3128/%41\x00NO_PROXY=x\x00", 0o400)
	changes, err := Containerd(d).Check(t.Context())
	if err != nil || len(changes) != 2 || strings.Contains(changes[0].String(), "hunter2") || !changes[0].Disruptive {
		t.Errorf("%v, %v", changes, err)
	}
	d.Config.Proxy = ProxyConfig{}
	steptest.Converges(t, h, Containerd(d))
	if there, err := h.Exists(proxyDropIn); there || err != nil {
		t.Errorf("%v, %v", there, err)
	}
}

func TestNoProxy(t *testing.T) {
	c := Config{Network: NetworkConfig{PodSubnet: "10.244.0.0/16,fd00::/48", ServiceSubnet: "10.96.0.0/12"}, Node: NodeConfig{Address: "192.0.2.7"}}
	got, err := c.noProxy(t.Context(), false)
	if err != nil || strings.Join(got, " ") != "10.244.0.0/16 fd00::/48 10.96.0.0/12 .cluster.local 192.0.2.7" {
		t.Errorf("%v, %v", got, err)
	}
}

// A file that was edited for containerd 1 says all that containerd 2 needs: no drop-in.
func TestContainerdUpgraded(t *testing.T) {
	h := containerdHost(t, fakeContainerd{defaults: defaults24}, containerdGood(t))
	units := running(t, h)
	if changes, err := Containerd(testContainerd(h, units)).Check(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("%v, %v", changes, err)
	}
	// And a drop-in that nothing needs goes, without a restart.
	put(t, h, containerdDropIn, "version = 2\n", 0o644)
	steptest.Converges(t, h, Containerd(testContainerd(h, units)))
	if there, err := h.Exists(containerdDropIn); there || err != nil || units.restarts > 0 {
		t.Errorf("drop-in %v, %v; restarted %d times", there, err, units.restarts)
	}
}
