package bootstrap

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// slowLab is one whose kubeadm takes a while for each phase, and prints what the real one does
// when it begins one. It goes on when nobody waits for it.
type slowLab struct {
	*lab
	fail string // the phase it ends in
	ends chan error
}

// prints are the first lines of phases; the add-ons' come when one has been made.
var prints = map[string]string{
	"upload-config":      "[upload-config] Storing the configuration used in ConfigMap\n[kubelet] Creating a ConfigMap\n",
	"mark-control-plane": "[mark-control-plane] Marking the node\n",
	"bootstrap-token":    "[bootstrap-token] Using token: abcdef.0123456789abcdef\n",
	"kubelet-finalize":   "[kubelet-finalize] Updating\n",
}

func (l *slowLab) RunTransient(ctx context.Context, t systemd.Transient) (systemd.Result, error) {
	if t.Argv[1] != "init" || !strings.HasPrefix(t.Argv[2], "--skip-phases=") {
		return l.lab.RunTransient(ctx, t)
	}
	if l.ends == nil {
		l.ran = append(l.ran, t)
		l.ends = make(chan error, 1)
		l.set(t.Unit, systemd.State{LoadState: "loaded", ActiveState: "active", SubState: "running"})
		go func() {
			err := l.phases(t)
			l.set(t.Unit, systemd.State{})
			l.ends <- err
		}()
	}
	select {
	case <-ctx.Done():
		return systemd.Result{}, context.Cause(ctx)
	case err := <-l.ends:
		l.ends = nil
		return systemd.Result{}, err
	}
}

func (l *slowLab) phases(t systemd.Transient) error {
	skipped := "," + strings.TrimPrefix(t.Argv[2], "--skip-phases=") + ","
	printed := "[init] Using Kubernetes version\n"
	for _, name := range clusterPhases() {
		if strings.Contains(skipped, ","+name+",") {
			continue
		}
		printed += prints[name]
		if err := l.WriteFile(t.LogFile, []byte(printed), 0o600); err != nil {
			return err
		}
		time.Sleep(10 * time.Second)
		if l.fail == name {
			l.fail = ""
			return &systemd.UnitError{Unit: t.Unit, Result: systemd.Result{Result: "exit-code", Code: 1}}
		}
		if err := l.phase(name, []string{"all"}); err != nil {
			return err
		}
	}
	return nil
}

// One process runs the last phases, and each is a step that takes as long as it does.
func TestClusterPhases(t *testing.T) {
	l := &slowLab{lab: newLab(t)}
	i := l.init(KubeadmConfig{})
	i.Units = l
	steps := allPhases(i)
	if _, err := step.Apply(t.Context(), steps[:8], nil); err != nil {
		t.Fatal(err)
	}
	l.ran = nil
	synctest.Test(t, func(t *testing.T) {
		for _, s := range steps[8:] {
			began := time.Now()
			results, err := step.Apply(t.Context(), []step.Step{s}, nil)
			if took := time.Since(began); err != nil || results[0].Outcome != step.Applied || took < 9*time.Second || took > 11*time.Second {
				t.Errorf("%s took %s: %v, %v", s.Name, took, results, err)
			}
		}
	})
	if len(l.ran) != 1 || l.ran[0].Unit != "nodeagent-kubeadm-cluster.service" || !beginsWith(l.ran[0].Argv, "upload-config all") {
		t.Errorf("ran %v", l.ran)
	}
	if log := string(read(t, l.lab, kubeadmLog)); !strings.Contains(log, "[upload-config] Storing") || !strings.Contains(log, "abcdef[redacted]") {
		t.Errorf("the log:\n%s", log)
	}
	if there, err := l.Exists(kubeadmDir + "/cluster.out"); err != nil || there {
		t.Errorf("what it printed is still there: %v", err)
	}
}

// slowAPI takes its time to answer.
type slowAPI struct{ API }

func (a slowAPI) Exists(ctx context.Context, path string) (bool, error) {
	time.Sleep(30 * time.Second)
	return a.API.Exists(ctx, path)
}

// A kubeadm that comes to its end while a step before the last is being looked at is no failure of
// that step, and what it printed is in the log afterwards.
func TestClusterPhasesEndMeanwhile(t *testing.T) {
	l := &slowLab{lab: newLab(t)}
	i := l.init(KubeadmConfig{})
	i.Units = l
	if _, err := step.Apply(t.Context(), allPhases(i)[:8], nil); err != nil {
		t.Fatal(err)
	}
	i.Connect = func() (API, error) { return slowAPI{api{l.lab}}, nil }
	synctest.Test(t, func(t *testing.T) {
		if _, err := step.Apply(t.Context(), allPhases(i)[8:], nil); err != nil {
			t.Error(err)
		}
	})
	if left, err := l.ReadDir(kubeadmDir); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if log := string(read(t, l.lab, kubeadmLog)); !strings.Contains(log, "[kubelet-finalize] Updating") {
		t.Errorf("the log:\n%s", log)
	}
}

// An agent that comes back in the middle, and a kubeadm that ends there: what is there is not
// waited for, what is missing is made by a second kubeadm, and nothing is left over.
func TestClusterPhasesInterrupted(t *testing.T) {
	for name, test := range map[string]struct {
		fail  string
		first int // steps, before the agent ends
		runs  []string
	}{
		"the agent is killed in the first":  {"", 0, []string{"upload-config all"}},
		"the agent is killed in the third":  {"", 2, []string{"upload-config all"}},
		"kubeadm fails in the second":       {"mark-control-plane", 1, []string{"upload-config all", "mark-control-plane"}},
		"kubeadm fails while nobody waits":  {"bootstrap-token", 1, []string{"upload-config all", "bootstrap-token"}},
		"kubeadm fails in the add-ons":      {"addon", 4, []string{"upload-config all", "addon all"}},
		"kubeadm fails in kubelet-finalize": {"kubelet-finalize", 3, []string{"upload-config all", "kubelet-finalize all"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &slowLab{lab: newLab(t), fail: test.fail}
			i := l.init(KubeadmConfig{})
			i.Units = l
			if _, err := step.Apply(t.Context(), allPhases(i)[:8], nil); err != nil {
				t.Fatal(err)
			}
			l.ran = nil
			synctest.Test(t, func(t *testing.T) {
				if _, err := step.Apply(t.Context(), allPhases(i)[8:8+test.first], nil); err != nil {
					t.Fatal(err)
				}
				killed, kill := context.WithTimeout(t.Context(), 3*time.Second)
				defer kill()
				if _, err := step.Apply(killed, allPhases(i)[8+test.first:], nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the first agent: %v", err)
				}
				time.Sleep(4 * time.Second)
				_, err := step.Apply(t.Context(), allPhases(i), nil)
				if err == nil && test.fail != "" || err != nil && test.fail == "" {
					t.Errorf("the second agent: %v", err)
				}
				if _, err = step.Apply(t.Context(), allPhases(i), nil); err != nil {
					t.Errorf("the second try: %v", err)
				}
			})
			if len(l.ran) != len(test.runs) {
				t.Fatalf("ran %v", l.ran)
			}
			for n, phase := range test.runs {
				if !beginsWith(l.ran[n].Argv, phase) {
					t.Errorf("ran %v, not from %s on", l.ran[n].Argv, phase)
				}
			}
			if left, err := l.ReadDir(kubeadmDir); err != nil || len(left) != 1 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

// All phases that kubeadm has, as test/integration/controlplane has the real one tell them.
func TestClusterPhasesAreAll(t *testing.T) {
	const all = "preflight certs kubeconfig etcd control-plane kubelet-start wait-control-plane upload-config mark-control-plane bootstrap-token kubelet-finalize addon upload-certs show-join-command"
	if got := strings.Join(slices.Concat(earlierPhases(), clusterPhases(), otherPhases()), " "); got != all {
		t.Error(got)
	}
}
