package bootstrap

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

func TestKubelet(t *testing.T) {
	loaded := func(file, active string) systemd.State {
		return systemd.State{LoadState: "loaded", UnitFileState: file, ActiveState: active}
	}
	tests := map[string]struct {
		state      systemd.State
		configured bool
		changes    string
		err        string
		asked      string
	}{
		"not installed":            {systemd.State{LoadState: "not-found"}, false, "", "find kubelet.service: it is not-found; install the package kubelet", ""},
		"masked":                   {systemd.State{LoadState: "masked"}, true, "", "it is masked", ""},
		"just installed":           {loaded("disabled", "inactive"), false, `[kubelet.service: "disabled" → "enabled"]`, "", "[enable kubelet.service]"},
		"enabled, no kubeadm yet":  {loaded("enabled", "activating"), false, "[]", "", "[]"},
		"enabled, dead, no config": {loaded("enabled", "inactive"), false, "[]", "", "[]"},
		"stopped":                  {loaded("enabled", "inactive"), true, `[kubelet.service: "inactive" → "active"]`, "", "[enable kubelet.service start kubelet.service]"},
		"failed and disabled":      {loaded("disabled", "failed"), true, `[kubelet.service: "disabled" → "enabled" kubelet.service: "failed" → "active"]`, "", "[enable kubelet.service start kubelet.service]"},
		"being restarted":          {loaded("enabled", "activating"), true, "[]", "", "[]"},
		"fine":                     {loaded("enabled", "active"), true, "[]", "", "[]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.units[kubeletUnit] = test.state
			if test.configured {
				put(t, l.Host, kubeletConfig, "kind: KubeletConfiguration", 0o644)
			}
			results, err := step.Apply(t.Context(), []step.Step{Kubelet(l.Host, l, false)}, nil)
			if test.err != "" {
				wantError(t, err, test.err)
				return
			}
			if err != nil || fmt.Sprint(results[0].Changes) != test.changes || fmt.Sprint(l.asked) != test.asked {
				t.Errorf("%v, %v, asked %v; want %s and %s", results[0].Changes, err, l.asked, test.changes, test.asked)
			}
		})
	}
	l := newLab(t)
	l.Offline = true
	if _, err := Kubelet(l.Host, l, false).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("offline: %v", err)
	}
}
