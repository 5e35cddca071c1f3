package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

func (l *aptLab) steps(c PackagesConfig) []step.Step {
	c.KubernetesVersion, c.Manage = "1.36", true
	first, rest := SplitPackages(l.Host, l, c, nil)
	return []step.Step{first, rest}
}

const (
	installRest = "install kubelet=1.36.3-1.1 kubeadm=1.36.3-1.1 kubectl=1.36.3-1.1 cri-tools=1.36.0-1.1 kubernetes-cni=1.8.0-1.1"
	holdAll     = "hold kubelet kubeadm kubectl containerd cri-tools kubernetes-cni"
)

// The two steps install what one does, and run nothing twice: the lists that the first has read,
// the second does not read.
func TestPackagesSplit(t *testing.T) {
	for name, test := range map[string]struct {
		unread bool
		config PackagesConfig
		want   []string
	}{
		"no lists":   {true, PackagesConfig{}, []string{"update", "install containerd", installRest, holdAll}},
		"lists":      {false, PackagesConfig{}, []string{"install containerd", "update", installRest, holdAll}},
		"of another": {true, PackagesConfig{Containerd: "containerd.io"}, []string{"update", "install containerd.io", installRest, strings.Replace(holdAll, "containerd", "containerd.io", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newAptLab(t)
			l.unread = test.unread
			if !l.unread {
				l.offer["containerd"] = []string{"2.0"}
			}
			steps := l.steps(test.config)
			for _, s := range steps {
				steptest.Converges(t, l.Host, s)
			}
			l.wantCommands(test.want...)
			if there, err := l.Exists(packagesNote); there || err != nil {
				t.Errorf("the note stays: %v", err)
			}
			if results, err := step.Apply(t.Context(), steps, nil); err != nil || results[0].Outcome != step.Clean || results[1].Outcome != step.Clean {
				t.Errorf("%+v, %v", results, err)
			}
			// What is missing later is installed from lists that are read anew.
			delete(l.state, "kubectl")
			l.save()
			l.commands = nil
			steptest.Converges(t, l.Host, steps[1])
			l.wantCommands("update", "install kubectl=1.36.3-1.1", "hold kubectl")
		})
	}
}

// A plan says each change once, in the step that makes it, and what is wrong with dpkg in one of them.
func TestPackagesSplitSaysItOnce(t *testing.T) {
	l := newAptLab(t)
	said := func() string {
		var lines []string
		for _, r := range step.Plan(t.Context(), l.steps(PackagesConfig{Containerd: "containerd.io"}), nil) {
			for _, c := range r.Changes {
				lines = append(lines, r.Step+" "+c.Subject)
			}
			if r.Err != nil {
				lines = append(lines, r.Step+" "+r.Err.Error())
			}
		}
		return strings.Join(lines, "\n")
	}
	if got, want := said(), "packages/containerd package containerd.io\npackages package kubelet\npackages package kubeadm\npackages package kubectl"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	// Another containerd is there, and something is left half-done by somebody else.
	for _, name := range append([]string{"containerd"}, kubernetesPackages...) {
		l.state[name] = "hold ok installed 1.36.2-1.1"
	}
	l.state["tzdata"] = "install ok half-configured 2026a"
	l.save()
	if got, want := said(), "packages package containerd.io\npackages dpkg"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// A containerd of no package is left alone, by both.
func TestPackagesSplitOwnContainerd(t *testing.T) {
	l := newAptLab(t)
	put(t, l.Host, "/usr/local/bin/containerd", "", 0o755)
	results, err := step.Apply(t.Context(), l.steps(PackagesConfig{}), nil)
	if err != nil || results[0].Outcome != step.Clean {
		t.Errorf("%+v, %v", results, err)
	}
	l.wantCommands("update", installRest, strings.Replace(holdAll, "containerd ", "", 1))
}

// Killed in the middle of either, the two go on and install nothing twice.
func TestPackagesSplitGoOnAfterAKill(t *testing.T) {
	l := newAptLab(t)
	l.unread, l.kill = true, "install"
	if _, err := step.Apply(t.Context(), l.steps(PackagesConfig{}), nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	l.commands, l.kill = nil, "install kubelet"
	if _, err := step.Apply(t.Context(), l.steps(PackagesConfig{}), nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	l.wantCommands("configure", "update", installRest)
	l.commands = nil
	// A new agent finds the run that goes on, and its first step has nothing to do with it.
	l.units[packagesUnit] = systemd.State{ActiveState: "active", SubState: "running"}
	steps := l.steps(PackagesConfig{})
	if changes, err := steps[0].Check(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("%v, %v", changes, err)
	}
	if _, err := step.Apply(t.Context(), steps, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(l.commands, []string{"true", holdAll}) {
		t.Errorf("ran %q", l.commands)
	}
	if there, err := l.Exists(packagesNote); there || err != nil {
		t.Errorf("the note stays: %v", err)
	}
}

// A first step that fails leaves nothing to the second, which says what is wrong with the repository.
func TestPackagesSplitErrors(t *testing.T) {
	l := newAptLab(t)
	l.unread, l.fail["update"] = true, "E: Failed to fetch "+communityURL+"InRelease  Connection refused"
	results, err := step.Apply(t.Context(), l.steps(PackagesConfig{}), nil)
	wantError(t, err, "packages: apply: install packages", "Connection refused")
	if results[0].Outcome != step.Applied {
		t.Errorf("%+v", results)
	}
	l.wantCommands("update", "install containerd", "update")
	delete(l.fail, "update")
	if _, err := step.Apply(t.Context(), l.steps(PackagesConfig{}), nil); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(l.commands[3:]); got != fmt.Sprint([]string{"update", installRest, holdAll}) {
		t.Errorf("ran %s", got)
	}
}
