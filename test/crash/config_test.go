package crash_test

import (
	"testing"

	"github.com/nodeagent/nodeagent/test/crash"
)

// config init makes a file that is not there: then it is whole, or not there yet.
func TestConfigInit(t *testing.T) {
	const archive, umask = "bare", "077"
	fresh := func(t *testing.T) machine {
		m := newMachine(t, archive, umask)
		m.remove("/etc/nodeagent/config.yaml")
		m.remove("/etc/nodeagent")
		return m
	}
	whole := fresh(t)
	before := whole.tree()
	whole.does(0, "config", "init")
	whole.does(0, "config", "check")
	after := whole.tree()

	points := crash.Sweep(t, func(t *testing.T) crash.Trial {
		m := fresh(t)
		return crash.Trial{Command: m.nodeagent("config", "init"), Check: func(t *testing.T, r crash.Result) {
			m.t = t
			oldOrNew(t, m.tree(), before, after)
			code := 0
			if _, there := m.tree()["/etc/nodeagent/config.yaml"]; there {
				code = 1 // one that is there is never replaced
			}
			m.does(code, "config", "init")
			for _, d := range m.tree().Differences(after) {
				t.Errorf("after another init %s", d)
			}
		}}
	})
	t.Logf("killed at %d points", points)
}
