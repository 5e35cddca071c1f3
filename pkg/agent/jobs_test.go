package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// recorder keeps what a Runner tells; times are minutes since the bubble's start.
type recorder struct {
	mu     sync.Mutex
	began  time.Time
	events []JobEvent
}

func record() *recorder { return &recorder{began: time.Now()} }

func (r *recorder) observe(e JobEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// ended are the runs that ended, as "minute.second: error".
func (r *recorder) ended() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		if !e.Ended.IsZero() {
			out = append(out, fmt.Sprintf("%s: %v", e.Ended.Sub(r.began), e.Err))
		}
	}
	return out
}

// hourly is due at each full hour of the bubble's clock, which begins at one.
func hourly(last time.Time) time.Time { return last.Truncate(time.Hour).Add(time.Hour) }

// run lets jobs run for so long and waits for their end.
func run(t *testing.T, r *Runner, length time.Duration, jobs ...Job) *recorder {
	t.Helper()
	rec := record()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	r.Run(ctx, jobs, rec.observe)
	return rec
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func quick(context.Context) error { return nil }

func TestJobRunsOnSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := run(t, &Runner{}, 3*time.Hour+time.Minute, Job{Name: "j", Next: hourly, Last: time.Now(), Deadline: time.Minute, Run: quick})
		same(t, rec.ended(), "1h0m0s: <nil>", "2h0m0s: <nil>", "3h0m0s: <nil>")
		first := rec.events[0]
		if first.Started || !first.Ended.IsZero() || first.Next.Sub(rec.began) != time.Hour {
			t.Errorf("the first event does not tell when the job is due: %+v", first)
		}
		if last := rec.events[len(rec.events)-1]; last.Next.Sub(rec.began) != 4*time.Hour {
			t.Errorf("the last event does not tell when the job is due next: %+v", last)
		}
	})
}

// What was missed while the agent was not there is caught up with at once, and once.
func TestJobCatchesUp(t *testing.T) {
	for name, last := range map[string]time.Duration{"never ran": 0, "days ago": 72 * time.Hour, "just missed": time.Nanosecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := Job{Name: "j", Next: hourly, Deadline: time.Minute, Run: quick}
				if last != 0 {
					job.Last = time.Now().Add(-last)
				}
				rec := run(t, &Runner{}, 90*time.Minute, job)
				same(t, rec.ended(), "0s: <nil>", "1h0m0s: <nil>")
			})
		})
	}
}

func TestJobThatIsNeverDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := func(time.Time) time.Time { return time.Time{} }
		rec := run(t, &Runner{}, time.Hour, Job{Name: "j", Next: never, Deadline: time.Minute, Run: quick})
		if len(rec.events) != 0 {
			t.Errorf("told %+v", rec.events)
		}
	})
}

// A failure is tried again after 15 s, then after twice as long each time, but no later than
// the job is due anyway; a success ends that.
func TestJobRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom, runs := errors.New("boom"), 0
		rec := run(t, &Runner{}, 2*time.Hour+20*time.Second, Job{Name: "j", Next: hourly, Last: time.Now(), Deadline: time.Minute, Run: func(context.Context) error {
			if runs++; runs == 10 || runs == 12 {
				return nil
			}
			return boom
		}})
		same(t, rec.ended(),
			"1h0m0s: boom", "1h0m15s: boom", "1h0m45s: boom", "1h1m45s: boom", "1h3m45s: boom",
			"1h7m45s: boom", "1h15m45s: boom", "1h25m45s: boom", "1h35m45s: boom", "1h45m45s: <nil>",
			"2h0m0s: boom", "2h0m15s: <nil>")
	})
}

// A run that finds nothing to do yet is tried again soon, and ever as soon.
func TestJobWithNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		rec := run(t, &Runner{}, 2*time.Minute, Job{Name: "j", Next: hourly, Deadline: time.Minute, Run: func(context.Context) error {
			if runs++; runs < 5 {
				return NothingToDo("not yet")
			}
			return nil
		}})
		why := ": nothing to do: not yet"
		same(t, rec.ended(), "0s"+why, "15s"+why, "30s"+why, "45s"+why, "1m0s: <nil>")
		if !errors.Is(NothingToDo("x"), ErrNothingToDo) {
			t.Error("NothingToDo is no ErrNothingToDo")
		}
	})
}

func TestJobDeadlineAndPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := run(t, &Runner{}, 62*time.Second,
			Job{Name: "slow", Next: hourly, Deadline: time.Minute, Run: func(ctx context.Context) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}})
		same(t, rec.ended(), "1m0s: context deadline exceeded")

		rec = run(t, &Runner{}, time.Second, Job{Name: "wild", Next: hourly, Deadline: time.Minute, Run: func(context.Context) error { panic("wolf") }})
		got := rec.ended()
		if len(got) != 1 || !strings.Contains(got[0], "run job wild: panic: wolf") || !strings.Contains(got[0], "jobs_test.go") {
			t.Errorf("a panic is told as %v", got)
		}
	})
}

// A run that is stopped in the middle is neither a success nor a failure, and is waited for.
func TestJobStoppedInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cleaned := false
		rec := run(t, &Runner{}, 10*time.Second, Job{Name: "j", Next: hourly, Deadline: time.Minute, Run: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(3 * time.Second)
			cleaned = true
			return ctx.Err()
		}})
		same(t, rec.ended())
		if !cleaned || time.Since(rec.began) != 13*time.Second {
			t.Errorf("Run returned after %s, before the job had ended", time.Since(rec.began))
		}
	})
}

// One job that hangs or fails holds up no other.
func TestJobsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		rec := record()
		ctx, cancel := context.WithCancel(t.Context())
		go (&Runner{}).Run(ctx, []Job{
			{Name: "stuck", Next: hourly, Deadline: time.Minute, Run: func(context.Context) error { <-block; return nil }},
			{Name: "fine", Next: hourly, Deadline: time.Minute, Run: quick},
		}, rec.observe)
		time.Sleep(2*time.Hour + time.Minute)
		same(t, rec.ended(), "0s: <nil>", "1h0m0s: <nil>", "2h0m0s: <nil>")
		close(block)
		cancel()
		synctest.Wait()
	})
}

// Overdue names a run that ignores its deadline, after a minute of grace, until it ends.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, block := &Runner{}, make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if got := r.Overdue(time.Now()); got != "" {
			t.Errorf("before anything runs, %q is overdue", got)
		}
		go r.Run(ctx, []Job{{Name: "stuck", Next: hourly, Deadline: 10 * time.Minute, Run: func(context.Context) error { <-block; return nil }}}, record().observe)
		for _, moment := range []struct {
			after time.Duration
			want  string
		}{{0, ""}, {10 * time.Minute, ""}, {11 * time.Minute, ""}, {11*time.Minute + 1, "stuck"}, {50 * time.Minute, "stuck"}} {
			synctest.Wait()
			if got := r.Overdue(time.Now().Add(moment.after)); got != moment.want {
				t.Errorf("after %s %q is overdue, want %q", moment.after, got, moment.want)
			}
		}
		close(block)
		synctest.Wait()
		if got := r.Overdue(time.Now().Add(50 * time.Minute)); got != "" {
			t.Errorf("after its end %q is overdue", got)
		}
		cancel()
		synctest.Wait()
	})
}

// A day and an hour of three jobs, one of which fails every third time: nothing drifts, nothing
// is lost, nothing runs twice at once.
func TestADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		every := func(d time.Duration) func(time.Time) time.Time {
			return func(last time.Time) time.Time { return last.Add(d) }
		}
		flaky, inside := 0, 0
		job := func(name string, next func(time.Time) time.Time, took time.Duration, fails func() error) Job {
			return Job{Name: name, Next: next, Last: time.Now(), Deadline: time.Hour, Run: func(context.Context) error {
				if name == "slow" {
					if inside++; inside > 1 {
						t.Error("slow runs beside itself")
					}
					defer func() { inside-- }()
				}
				time.Sleep(took)
				return fails()
			}}
		}
		fine := func() error { return nil }
		rec := run(t, &Runner{}, 25*time.Hour+time.Second,
			job("hourly", hourly, time.Minute, fine),
			job("slow", every(10*time.Minute), 15*time.Minute, fine),
			job("flaky", hourly, 0, func() error {
				if flaky++; flaky%3 == 0 {
					return errors.New("flaky")
				}
				return nil
			}))
		runs := map[string]int{}
		for _, e := range rec.events {
			if e.Started {
				runs[e.Job]++
			}
		}
		// slow is due again before it has ended, so that it runs without a pause: 25 h / 15 min,
		// less the first ten minutes. flaky has one retry for each third run, but the last, whose
		// retry is yet to come.
		if fmt.Sprint(runs) != "map[flaky:36 hourly:25 slow:100]" {
			t.Errorf("runs: %v", runs)
		}
		for _, e := range rec.events {
			if e.Job == "hourly" && !e.Ended.IsZero() && e.Ended.Sub(rec.began)%time.Hour != time.Minute {
				t.Errorf("hourly ended at %s", e.Ended.Sub(rec.began))
			}
		}
	})
}

// A clock that was a year ahead, or a run that was remembered by one, does not put off a job by a
// year once it is right again. Nor does one that was set back by seconds.
func TestJobsAndAClockThatIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		r := &Runner{now: func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }}
		began := time.Now()
		var ran, failed []string
		jobs := []Job{
			{Name: "hourly", Next: hourly, Deadline: time.Minute, Last: began.AddDate(1, 0, 0), Run: func(context.Context) error {
				ran = append(ran, time.Since(began).String())
				return nil
			}},
			{Name: "fails", Next: hourly, Deadline: time.Minute, Run: func(context.Context) error {
				if len(failed) >= 8 {
					return nil
				}
				failed = append(failed, time.Since(began).String())
				return errors.New("etcd's certificate has expired")
			}},
		}
		const year = 365 * 24 * time.Hour
		time.AfterFunc(90*time.Minute+30*time.Second, func() { ahead.Store(int64(year)) })
		time.AfterFunc(100*time.Minute+30*time.Second, func() { ahead.Store(0) })
		time.AfterFunc(200*time.Minute, func() { ahead.Store(-int64(5 * time.Second)) })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
		defer cancel()
		r.Run(ctx, jobs, func(JobEvent) {})
		// Once when the clock jumps ahead, since it is due by then; else at the full hours.
		same(t, ran, "1h0m0s", "1h31m0s", "2h0m0s", "3h0m0s", "4h0m5s")
		if len(failed) != 8 {
			t.Errorf("a job that failed by a wrong clock was tried again at %s", failed)
		}
	})
}

// What wakes a job makes it due at once, also while it waits to be tried again.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{}, 1)
		began, runs := time.Now(), []time.Duration(nil)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		failing := errors.New("not yet")
		var r Runner
		go r.Run(ctx, []Job{{
			Name: "x", Deadline: time.Minute, Wake: wake,
			Next: func(last time.Time) time.Time { return last.Add(time.Hour) },
			Run: func(context.Context) error {
				runs = append(runs, time.Since(began))
				if len(runs) == 2 {
					return failing
				}
				return nil
			},
		}}, func(JobEvent) {})
		for _, at := range []time.Duration{90 * time.Second, 5 * time.Second} {
			time.Sleep(at)
			wake <- struct{}{}
			synctest.Wait()
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if want := []time.Duration{0, 90 * time.Second, 95 * time.Second}; !slices.Equal(runs, want) {
			t.Errorf("it ran after %v, want %v", runs, want)
		}
	})
}
