package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// clusterPhases are those that put into the cluster what it needs of itself, in kubeadm's order.
// One process of kubeadm runs them, from the first one that is missing to the last: a process
// each would ask an API server that has just come up for its version and all that it serves,
// five times over. Each is a step all the same, that waits until kubeadm is past it.
//
// A phase that comes after the first missing one and is there already is run once more, which
// does no harm (see the steps).
func clusterPhases() []string {
	return []string{"upload-config", "mark-control-plane", "bootstrap-token", "kubelet-finalize", "addon"}
}

// earlierPhases and otherPhases are the rest of `kubeadm init`: what comes before, and what the
// agent leaves out.
func earlierPhases() []string {
	return []string{"preflight", "certs", "kubeconfig", "etcd", "control-plane", "kubelet-start", "wait-control-plane"}
}

func otherPhases() []string { return []string{"upload-certs", "show-join-command"} }

// clusterStep is the step of one of clusterPhases.
func (i Init) clusterStep(p phase) step.Step {
	p.together = true
	p.apply = func(ctx context.Context) error { return i.runCluster(ctx, p) }
	return i.step(p)
}

// cluster is the process that runs p and the phases after it. What the operator has kubeadm skip
// is named too, since kubeadm takes no notice of its configuration's list beside a flag.
//
// No phase after p is ever left out: kubeadm takes an add-on that is skipped for one that is not
// wanted, and upload-config would tell the cluster so.
func (i Init) cluster(p phase) kubeadmRun {
	phases := clusterPhases()
	skipped := slices.Concat(earlierPhases(), phases[:slices.Index(phases, p.name)], otherPhases(), i.Cluster.Kubeadm.InitConfiguration.list("skipPhases"))
	return kubeadmRun{"cluster", []string{"init", "--skip-phases=" + strings.Join(skipped, ",")}}
}

// runs are those whose output is the phase's to put into the log: of several phases' it is the last
// one's, since kubeadm may end at any time while those before it are looked at.
func (i Init) runs(p phase) []kubeadmRun {
	if !p.together || !i.isLast(p) {
		return []kubeadmRun{p.alone()}
	}
	return []kubeadmRun{p.alone(), i.cluster(p)}
}

// isLast says whether no other of clusterPhases comes after p.
func (i Init) isLast(p phase) bool {
	phases := slices.DeleteFunc(clusterPhases(), i.skips)
	return p.name == phases[len(phases)-1]
}

// errPast ends the wait of a step whose phase is over while kubeadm goes on.
var errPast = errors.New("kubeadm is at a later phase")

// runCluster has kubeadm run p and what comes after it, or finds it at that, and returns when it
// is past p. Where the operator has left steps out, p alone is run.
func (i Init) runCluster(ctx context.Context, p phase) error {
	all := i.cluster(p)
	unit, err := i.Units.State(ctx, all.unit())
	if err != nil {
		return err
	}
	if !isRunning(unit) {
		alone, err := i.Units.State(ctx, p.alone().unit())
		if err != nil {
			return err
		}
		if isRunning(alone) || !i.Whole() {
			return i.run(ctx, p.alone(), kubeadmFile)
		}
		// What an earlier one printed does not say how far this one is.
		if _, err := i.log(all); err != nil {
			return err
		}
	}
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { stop(i.follow(waiting, p)) }()
	err = i.run(waiting, all, kubeadmFile)
	switch why := context.Cause(waiting); {
	case errors.Is(why, errPast):
		return nil // should kubeadm have ended badly just then, the check finds what is missing
	case why != nil && ctx.Err() == nil:
		return why
	}
	return err
}

// followInterval is how often what kubeadm has printed is looked at.
const followInterval = 200 * time.Millisecond

// follow returns errPast once kubeadm is past p, or why that cannot be told.
func (i Init) follow(ctx context.Context, p phase) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		past, err := i.past(ctx, p)
		if err != nil {
			return err
		}
		if past {
			return errPast
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// past says whether the running kubeadm has begun a later phase than p. Each begins its lines with
// its name, and all but the add-ons' print one before they do anything; so kubelet-finalize, which
// comes before those, is also over when what it makes is there. Should a kubeadm print other
// words, a step waits for kubeadm's end.
//
// Past the last phase is only a kubeadm that has ended.
func (i Init) past(ctx context.Context, p phase) (bool, error) {
	if i.isLast(p) {
		return false, nil
	}
	printed, err := i.Host.ReadFile(i.cluster(p).output())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read what kubeadm printed: %w", err)
	}
	phases := clusterPhases()
	for _, later := range phases[slices.Index(phases, p.name)+1:] {
		if later == "addon" {
			later = "addons"
		}
		if strings.Contains("\n"+string(printed), "\n["+later+"]") {
			return true, nil
		}
	}
	if !p.local {
		return false, nil
	}
	missing, err := p.missing(ctx)
	return err == nil && len(missing) == 0, err
}

// clusterRunning is the process that runs the phase together with others, and is not past it.
func (i Init) clusterRunning(ctx context.Context, p phase) ([]step.Change, error) {
	all := i.cluster(p)
	unit, err := i.Units.State(ctx, all.unit())
	if err != nil || !isRunning(unit) {
		return nil, err
	}
	past, err := i.past(ctx, p)
	if err != nil || past {
		return nil, err
	}
	return []step.Change{{Subject: p.name, Have: "kubeadm init is running (" + all.unit() + ")", Want: "complete"}}, nil
}
