// Package agent is the daemon: the loop that runs periodic jobs, the marks that decide
// whether it bootstraps this host, the state it remembers, and what it serves over HTTP.
package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Job is periodic work.
type Job struct {
	Name string
	// Next is when the job is due after it last ran, or was last known to have succeeded.
	// The zero time is never. A time that is past already is caught up with at once.
	Next func(last time.Time) time.Time
	// Last is when the job last ran before this process did, from what lies on the host;
	// zero if it never did.
	Last time.Time
	// Deadline is how long a run may take. A run that ignores it stops the watchdog.
	Deadline time.Duration
	Run      func(context.Context) error
	// Wake, unless it is nil, makes the job due at once when something comes out of it, also where it
	// waits to be tried again.
	Wake <-chan struct{}
}

// JobEvent is one thing that happened to a job: it became due at Next, or a run ended.
type JobEvent struct {
	Job     string
	Next    time.Time     // when it is due
	Ended   time.Time     // when a run ended; zero when none did
	Took    time.Duration // by the run
	Err     error         // of the run
	Started bool          // a run begins
}

// A job that failed is tried again before it is due: soon, then ever less often.
const (
	firstRetry = 15 * time.Second
	lastRetry  = 10 * time.Minute
	// longestSleep bounds a wait, so that a wall clock that was set is noticed.
	longestSleep = time.Minute
	// clockSlack is what whatever disciplines a clock may set it back by without anybody caring.
	clockSlack = time.Minute
)

// Runner runs jobs and knows which of them are past their deadline.
type Runner struct {
	now func() time.Time // the wall clock; time.Now unless a test has its own

	mu      sync.Mutex
	running map[string]time.Time // job → its deadline
}

// Run runs each job whenever it is due until ctx is done and all runs in progress have ended.
// observe is called from several goroutines.
func (r *Runner) Run(ctx context.Context, jobs []Job, observe func(JobEvent)) {
	var wg sync.WaitGroup
	for _, job := range jobs {
		wg.Go(func() { r.loop(ctx, job, observe) })
	}
	wg.Wait()
}

// Overdue is a job that is past its deadline by more than a grace of a minute, "" if none is.
func (r *Runner) Overdue(now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, deadline := range r.running {
		if now.After(deadline.Add(time.Minute)) {
			return name
		}
	}
	return ""
}

func (r *Runner) loop(ctx context.Context, job Job, observe func(JobEvent)) {
	retry := firstRetry
	since := r.clock()
	due := job.Next(earlier(job.Last, since)) // what ran in the future ran by a clock that was ahead
	if !due.IsZero() && due.Before(since) {
		due = since
	}
	for !due.IsZero() {
		observe(JobEvent{Job: job.Name, Next: due})
		if err := r.sleepUntil(ctx, since, due, job.Wake); errors.Is(err, errSetBack) {
			// The time until due is no shorter than it was, and may be a year.
			now := r.clock()
			since, due = now, earlier(job.Next(now), now.Add(due.Sub(since)))
			continue
		} else if err != nil {
			return
		}
		observe(JobEvent{Job: job.Name, Started: true})
		started := r.clock()
		err := r.once(ctx, job, started)
		ended := r.clock()
		if ctx.Err() != nil {
			return // stopped in the middle: neither a success nor a failure of the job's
		}
		next := job.Next(started)
		if err == nil {
			retry = firstRetry
		} else {
			if again := ended.Add(retry); next.IsZero() || again.Before(next) {
				next = again
			}
			if !errors.Is(err, ErrNothingToDo) {
				retry = min(2*retry, lastRetry)
			}
		}
		since, due = ended, next
		observe(JobEvent{Job: job.Name, Next: due, Ended: ended, Took: ended.Sub(started), Err: err})
	}
}

// once runs a job under its deadline. A panic is the job's failure, not the agent's end.
func (r *Runner) once(ctx context.Context, job Job, started time.Time) (err error) {
	r.mu.Lock()
	if r.running == nil {
		r.running = map[string]time.Time{}
	}
	r.running[job.Name] = started.Add(job.Deadline)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.running, job.Name)
		r.mu.Unlock()
		if p := recover(); p != nil {
			err = fmt.Errorf("run job %s: panic: %v\n%s", job.Name, p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, job.Deadline)
	defer cancel()
	return job.Run(ctx)
}

func (r *Runner) clock() time.Time {
	if r.now != nil {
		return r.now()
	}
	return time.Now()
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// errSetBack is a wall clock that was set to before the wait began.
var errSetBack = errors.New("the clock was set back")

// sleepUntil waits for the wall clock to reach at. It is errSetBack when the clock comes to be
// before since, which is when the wait began. What comes out of wake ends it.
func (r *Runner) sleepUntil(ctx context.Context, since, at time.Time, wake <-chan struct{}) error {
	since, at = since.Round(0), at.Round(0) // drops the monotonic reading: the wall clock counts
	for {
		now := r.clock().Round(0)
		if now.Before(since.Add(-clockSlack)) {
			return errSetBack
		}
		left := at.Sub(now)
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(min(left, longestSleep))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-wake:
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// ErrNothingToDo is the result of a run that found nothing to do yet: neither a success nor a
// failure. It is tried again soon.
var ErrNothingToDo = errors.New("nothing to do")

// NothingToDo is an ErrNothingToDo that says why.
func NothingToDo(why string) error { return fmt.Errorf("%w: %s", ErrNothingToDo, why) }
