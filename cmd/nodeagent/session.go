package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// session is the daemon running with one configuration. machine is nil on a host without one.
type session struct {
	*daemon
	machine *machine
	runner  agent.Runner
	metrics config.MetricsConfig
	listen  net.Listener
	done    atomic.Bool       // every step of the bootstrap has been applied
	cluster atomic.Bool       // kubeadm init has ended: there is a cluster worth a snapshot
	watch   stopwatch         // of the step in progress
	waits   string            // why a step waits, as it was logged last
	waitsAt time.Time         // that it was
	drift   map[string]string // what the last look for drift found and left, by what is not as wanted

	round       round     // of scheduled saves; the job's own
	drillFailed time.Time // when the last drill failed in this session
	drilled     time.Time // when the last one that did not fail began
	unsaved     []string  // the stores that had no backup for that one

	node nodeSeen

	writing   sync.Mutex // guards unwritten
	unwritten string     // why the state could not be written last; "" when it was
}

func (d *daemon) newSession(ctx context.Context, cfg *config.Config) (*session, error) {
	s := &session{daemon: d, metrics: config.Default().Metrics}
	defer func() { d.leaveTextfile(s.metrics.Textfile) }()
	if cfg != nil {
		s.metrics = cfg.Metrics
		m, err := newMachine(d.host, *cfg)
		if err != nil {
			return nil, err
		}
		s.machine = m
		m.remember = s.remember
	}
	if s.metrics.Listen == "" {
		return s, nil
	}
	if warning := s.metrics.Warning(); warning != "" {
		d.log.Warn("metrics." + warning)
	}
	l, err := agent.Listen(ctx, s.metrics.Listen)
	if err != nil {
		return nil, err
	}
	s.listen = l
	return s, nil
}

// run does all of a session's work at once: the server, the watchdog, the bootstrap if it is
// this host's turn, the jobs. It returns when ctx is done, or when the server fails.
func (s *session) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var serveErr error
	if s.listen != nil {
		wg.Go(func() {
			defer stop() // without its server the session is not what was asked for
			serveErr = s.server().Serve(ctx, s.listen, s.metrics.WebConfigFile)
		})
	}
	if s.metrics.Textfile != "" {
		wg.Go(func() { s.keepTextfile(ctx) })
	}
	wg.Go(func() { s.tell(agent.FeedWatchdog(ctx, s.notify, s.healthy)) })
	if s.machine == nil {
		s.log.Info("idle: there is no configuration", "config", s.app.configPath)
		s.tell(s.notify.Status("idle: no configuration at " + s.app.configPath))
	} else {
		wg.Go(func() { s.work(ctx) })
	}
	wg.Wait()
	return serveErr
}

func (s *session) server() agent.Server {
	return agent.Server{
		Registry: s.daemon.metrics.Registry, Status: s.status, Healthy: s.healthy, Ready: s.ready, Log: s.log,
	}
}

func (s *session) status(ctx context.Context) agent.Status {
	if s.machine != nil {
		return s.machine.status(ctx, time.Now())
	}
	hostname, err := hostnameOf(s.host)
	if err != nil {
		hostname = "this host"
	}
	return s.app.idleStatus(hostname, time.Now())
}

func (s *session) healthy() error {
	if job := s.runner.Overdue(time.Now()); job != "" {
		return fmt.Errorf("job %s is past its deadline", job)
	}
	return nil
}

func (s *session) ready() error {
	switch {
	case s.machine == nil:
		return errors.New("idle: there is no configuration")
	case !s.done.Load():
		return errors.New("the bootstrap is not complete")
	}
	return nil
}

// work bootstraps the host if that is the agent's to do, and runs the jobs.
func (s *session) work(ctx context.Context) {
	standing, err := agent.StandingOf(s.host, bootstrap.MemberFiles)
	if err != nil {
		s.log.Error("bootstrap not begun", "err", err)
		s.tell(s.notify.Status(err.Error()))
		standing = agent.Adopted // in doubt nothing is changed
	}
	s.log.Info("standing of this host", "standing", string(standing))
	var wg sync.WaitGroup
	if standing == agent.Fresh || standing == agent.Bootstrapping {
		s.daemon.metrics.Bootstrapped(false, time.Time{})
		wg.Go(func() { s.bootstrap(ctx) })
	} else {
		s.settled()
	}
	jobs := s.jobs(ctx)
	s.announce(jobs)
	if s.machine.cfg.Role != bootstrap.Worker {
		wg.Go(func() { s.watchStores(ctx) })
	}
	s.runner.Run(ctx, jobs, s.observeJob)
	wg.Wait()
}

// settled is a host that needs no bootstrap, or whose bootstrap has ended.
func (s *session) settled() {
	s.done.Store(true)
	at, err := agent.CompletedAt(s.host)
	if err != nil {
		s.log.Warn("when the bootstrap was completed is not known", "err", err)
	}
	s.daemon.metrics.Bootstrapped(true, at)
	s.tell(s.notify.Status("running"))
}

// Waits between two tries of a bootstrap that failed.
const (
	firstRetry = 15 * time.Second
	lastRetry  = 5 * time.Minute
)

// bootstrap applies every step until that succeeds: what stands in its way (a mirror that is
// down, a port that is taken) may go away by itself or by an operator's hand.
func (s *session) bootstrap(ctx context.Context) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		_, err := s.machine.apply(ctx, s.machine.steps, true, s.observeStep)
		if err == nil {
			s.log.Info("bootstrap complete")
			s.settled()
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.log.Error("bootstrap failed; it is tried again", "err", err, "in", retry.String())
		s.tell(s.notify.Status("bootstrap failed, next try in " + retry.String() + ": " + err.Error()))
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// observeStep reports what happens to a step: to systemd, the log, the metrics, the state.
func (s *session) observeStep(e step.Event) {
	s.watch.observe(e, time.Now())
	if e.Stage == step.Awaiting {
		s.observeWait(e)
		return
	}
	if e.Stage != step.Done {
		s.tell(s.notify.Status(fmt.Sprintf("step %d/%d %s: %s", e.Index, e.Total, e.Step, e.Stage) + besides(e)))
		return
	}
	s.recordStep(e.Result, s.watch)
	r := e.Result
	if r.Step == bootstrap.LastPhaseStep && (r.Outcome == step.Clean || r.Outcome == step.Applied) {
		s.cluster.Store(true)
	}
	switch r.Outcome {
	case step.Applied:
		for _, c := range r.Pending() {
			s.log.Info("changed", "step", r.Step, "subject", c.Subject, "have", c.Have, "want", c.Want)
		}
	case step.Failed, step.Stopped:
		// The caller logs the error of the whole.
	case step.Clean, step.Waiting, step.Differs:
		s.log.Debug("step", "step", r.Step, "outcome", string(r.Outcome))
	}
	for _, c := range r.Findings() {
		s.log.Warn("finding: only a person can mend it", "step", r.Step, "subject", c.Subject, "have", c.Have, "want", c.Want)
	}
}

// besides is what goes on beside a step, as the end of a line that tells of the step.
func besides(e step.Event) string {
	if len(e.Beside) == 0 {
		return ""
	}
	return "; beside it: " + strings.Join(e.Beside, ", ")
}

// logWait is the least time between two lines of the log that tell why a step waits.
const logWait = 30 * time.Second

// observeWait reports why a step waits: to systemd each time, to the log when it is something
// else than before, and not too often.
func (s *session) observeWait(e step.Event) {
	why := e.Result.Why()
	s.tell(s.notify.Status(fmt.Sprintf("step %d/%d %s: waiting: %s", e.Index, e.Total, e.Step, why) + besides(e)))
	if now := time.Now(); why != s.waits && now.Sub(s.waitsAt) >= logWait {
		s.waits, s.waitsAt = why, now
		s.log.Info("waiting", "step", e.Step, "for", why)
	}
}

// recordStep puts a step's result into the metrics and the state.
func (s *session) recordStep(r step.Result, w stopwatch) {
	now := time.Now()
	clean := r.Outcome == step.Clean || r.Outcome == step.Applied
	pending := len(r.Pending())
	if clean {
		pending = 0
	}
	s.daemon.metrics.Step(r.Step, clean, pending, len(r.Findings()), w.took, now)
	if w.applied() {
		s.daemon.metrics.StepApplied(r.Step, clean, w.apply)
	}
	s.remember(func(state *agent.State) {
		next := agent.StepState{Outcome: r.Outcome, Changes: r.Changes, Error: errorText(r.Err), At: now, Took: w.took, ApplyTook: w.apply}
		if !w.applied() {
			next.ApplyTook = state.Steps[r.Step].ApplyTook
		}
		state.Steps[r.Step] = next
	})
}

// stopwatch times a step by its events: the whole, and in it the apply, or the wait of a step that
// only waits.
type stopwatch struct {
	began, applying time.Time
	took, apply     time.Duration
}

func (w *stopwatch) observe(e step.Event, now time.Time) {
	switch e.Stage {
	case step.Checking:
		*w = stopwatch{began: now}
	case step.Applying, step.Awaiting:
		if w.applying.IsZero() {
			w.applying = now
		}
	case step.Verifying, step.Done:
		w.took = now.Sub(w.began)
		if w.applied() && w.apply == 0 {
			w.apply = now.Sub(w.applying)
		}
	}
}

func (w *stopwatch) applied() bool { return !w.applying.IsZero() }

// remember updates the state. It feeds status only, so that a failure is told, once, and no more.
func (s *session) remember(change func(*agent.State)) {
	now := errorText(agent.UpdateState(context.Background(), s.host, change))
	s.daemon.metrics.StateWritten(now == "")
	s.writing.Lock()
	defer s.writing.Unlock()
	switch {
	case now != "" && s.unwritten == "":
		s.log.Error("state not written; what status tells is old until it is", "err", now)
	case now == "" && s.unwritten != "":
		s.log.Info("state is written again")
	}
	s.unwritten = now
}
