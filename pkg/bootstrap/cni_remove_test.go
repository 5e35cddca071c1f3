package bootstrap

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// bridged is a host with the file that Bridge writes for a subnet.
func bridged(t *testing.T, subnet string) *host.Host {
	t.Helper()
	h := cniHost(t, cniBinDir)
	h.Offline = false
	if err := Bridge(h, subnet).Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// The file goes once another network is there, whatever its name sorts to.
func TestBridgeRemoved(t *testing.T) {
	for _, other := range []string{"05-cilium.conflist", "10-flannel.conflist", "99-labnet.conf"} {
		for _, subnet := range []string{"10.244.0.0/16", "10.9.0.0/16,fd00:10:244::/56"} {
			h := bridged(t, subnet)
			put(t, h, cniConfDir+"/"+other, "{}", 0o600)
			s := BridgeRemoved(h, false)
			changes, err := s.Check(t.Context())
			want := []step.Change{{Subject: bridgeConfig, Have: "there", Want: "absent: new pods get the network of /etc/cni/net.d/" + other}}
			if diff := cmp.Diff(want, changes); diff != "" || err != nil {
				t.Error(diff, err)
			}
			steptest.Converges(t, h, s)
			if there, err := h.Exists(bridgeConfig); there || err != nil {
				t.Errorf("still there: %v, %v", there, err)
			}
			if there, err := h.Exists(cniConfDir + "/" + other); !there || err != nil {
				t.Errorf("the other is there: %v, %v", there, err)
			}
		}
	}
}

func TestBridgeRemovedHasNothingToDo(t *testing.T) {
	h := host.New(t.TempDir())
	for _, offline := range []bool{false, true} {
		h.Offline = offline
		if changes, err := BridgeRemoved(h, true).Check(t.Context()); err != nil || len(changes) > 0 {
			t.Error(changes, err)
		}
	}
	h = bridged(t, "10.244.0.0/16")
	h.Offline = true
	if _, err := BridgeRemoved(h, true).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("in an image: %v", err)
	}
}

// The only network of a node is not taken from it, nor is what somebody has made of the file.
func TestBridgeRemovedLeavesAlone(t *testing.T) {
	for name, prepare := range map[string]func(h *host.Host){
		"the only network": func(h *host.Host) { put(t, h, cniConfDir+"/README", "", 0o644) },
		"edited": func(h *host.Host) {
			put(t, h, bridgeConfig, `{"name": "nodeagent-bridge", "plugins": [{"type": "bridge", "mtu": 1400}]}`, 0o600)
			put(t, h, cniConfDir+"/10-flannel.conflist", "{}", 0o600)
		},
		"one word edited": func(h *host.Host) {
			data, err := h.ReadFile(bridgeConfig)
			if err != nil {
				t.Fatal(err)
			}
			put(t, h, bridgeConfig, strings.Replace(string(data), `"ipMasq": true`, `"ipMasq": false`, 1), 0o600)
			put(t, h, cniConfDir+"/10-flannel.conflist", "{}", 0o600)
		},
		"edited to no network": func(h *host.Host) { put(t, h, bridgeConfig, "[", 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			h := bridged(t, "10.244.0.0/16")
			prepare(h)
			put(t, h, bridgeLink+"/mtu", "1500", 0o644)
			s := BridgeRemoved(h, false)
			before, err := h.ReadFile(bridgeConfig)
			if err != nil {
				t.Fatal(err)
			}
			changes, err := s.Check(t.Context())
			if err != nil || len(changes) != 2 || changes[0].Subject != bridgeConfig || !changes[0].Manual || changes[1].Subject != "link nodeagent0" || !changes[1].Manual {
				t.Errorf("%v, %v", changes, err)
			}
			if err := s.Apply(t.Context()); err != nil {
				t.Error(err)
			}
			if after, err := h.ReadFile(bridgeConfig); err != nil || string(after) != string(before) {
				t.Errorf("%s, %v", after, err)
			}
		})
	}
}

// Where add-ons were applied, theirs is waited for, and said to be; without one the bridge stays.
func TestBridgeRemovedWaits(t *testing.T) {
	h := bridged(t, "10.244.0.0/16")
	wantError(t, BridgeRemoved(h, true).Apply(t.Context()), "remove "+bridgeConfig, "no add-on has written a network into /etc/cni/net.d")
	if there, err := h.Exists(bridgeConfig); !there || err != nil {
		t.Fatalf("removed: %v, %v", there, err)
	}
	why := ""
	_, err := step.Apply(t.Context(), []step.Step{AddonsNetwork(h, time.Minute), BridgeRemoved(h, true)}, func(e step.Event) {
		if e.Stage == step.Awaiting {
			why = e.Result.Why()
			put(t, h, cniConfDir+"/10-flannel.conflist", "{}", 0o600)
		}
	})
	if !strings.Contains(why, "network in /etc/cni/net.d: none but the bridge") {
		t.Errorf("waited because %q", why)
	}
	if there, gone := h.Exists(bridgeConfig); there || gone != nil || err != nil {
		t.Errorf("there %v, %v, %v", there, gone, err)
	}
}

// Nobody waits for a network where the bridge's file is not there, or is an operator's own.
func TestAddonsNetworkHasNothingToDo(t *testing.T) {
	edited := bridged(t, "10.244.0.0/16")
	put(t, edited, bridgeConfig, "[", 0o600)
	for name, h := range map[string]*host.Host{"absent": host.New(t.TempDir()), "edited": edited} {
		if changes, err := AddonsNetwork(h, time.Minute).Check(t.Context()); err != nil || len(changes) > 0 {
			t.Errorf("%s: %v, %v", name, changes, err)
		}
	}
	image := bridged(t, "10.244.0.0/16")
	image.Offline = true
	if _, err := AddonsNetwork(image, time.Minute).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("in an image: %v", err)
	}
}
