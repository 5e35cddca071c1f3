//go:build e2e && soak

package e2e

import (
	"testing"
	"time"
)

// TestInterrupted is every way in which a phase can be interrupted, each from the saved state of
// one machine in the middle of that phase: the agent killed, kubeadm killed, both, the power cut.
// TestFreshNode has one of each phase.
func TestInterrupted(t *testing.T) {
	ctx, cancel := untilDeadline(t)
	defer cancel()
	v := boot(ctx, t)
	chapters := []chapter{
		{"a fresh machine", time.Minute, isFresh, true},
		{"apt installs the package", 3 * time.Minute, install, true},
		{"the daemon runs the phases of kubeadm init", 25 * time.Minute, initializes, true},
	}
	for _, part := range []struct{ phase, done string }{
		{"certs", wholePKI}, {"kubelet-start", kubeletRuns}, {"addon", wholeNode},
	} {
		for who, units := range map[string][]string{
			"the agent killed": {"nodeagent"}, "kubeadm killed": {"PHASE"}, "both killed": {"nodeagent", "PHASE"},
		} {
			chapters = append(chapters, chapter{part.phase + ", " + who, 10 * time.Minute, killedDuring(part.phase, part.done, units...), false})
		}
		chapters = append(chapters, chapter{part.phase + ", power cut", 10 * time.Minute, powerCutDuring(part.phase, part.done), false})
	}
	chapters = append(chapters,
		chapter{"wait-control-plane, power cut", 10 * time.Minute, powerCutDuring("wait-control-plane", wholeAPI), false},
	)
	story(ctx, t, v, chapters)
}
