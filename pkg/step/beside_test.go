package step_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// working is a step that is as wanted, with work beside that takes so long; ended says how it ended.
func working(name string, calls *[]string, takes time.Duration, ended *error) step.Step {
	s := scripted(name, calls, nil, differs())
	s.Beside = func(ctx context.Context) {
		select {
		case <-ctx.Done():
			time.Sleep(time.Second) // a program that is told to end takes a moment
			*ended = context.Cause(ctx)
		case <-time.After(takes):
			*ended = errBoom
		}
	}
	return s
}

// What goes on beside the steps is named in their events while it does, and has ended with the run.
func TestBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, events []string
		var short, long error
		slow := scripted("slow", &calls, nil, differs(pending), differs())
		apply := slow.Apply
		slow.Apply = func(ctx context.Context) error { time.Sleep(time.Minute); return apply(ctx) }
		steps := []step.Step{working("short", &calls, time.Second, &short), working("long", &calls, time.Hour, &long), slow}
		results, err := step.Apply(t.Context(), steps, func(e step.Event) {
			synctest.Wait()
			for _, name := range e.Beside {
				events = append(events, string(e.Stage)+" "+e.Step+", beside "+name)
			}
		})
		if err != nil || len(results) != 3 || results[0].Outcome != step.Clean {
			t.Errorf("%+v, %v", results, err)
		}
		if !errors.Is(short, errBoom) || !errors.Is(long, context.Canceled) {
			t.Errorf("ended with %v and %v", short, long)
		}
		want(t, "events", []string{
			"checking long, beside short", "done long, beside short",
			"checking slow, beside short", "checking slow, beside long", "applying slow, beside short", "applying slow, beside long",
			"verifying slow, beside long", "done slow, beside long",
		}, events)
	})
}

// A run that fails ends it too; a step that is not as wanted, one that waits for a boot and a plan begin nothing.
func TestBesideBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		var ended error
		works := working("works", &calls, time.Hour, &ended)
		if step.Plan(t.Context(), []step.Step{works}, nil); ended != nil {
			t.Error("a plan begins it")
		}
		if _, err := step.Apply(t.Context(), []step.Step{works, scripted("bad", &calls, errBoom, differs(pending))}, nil); !errors.Is(err, errBoom) {
			t.Error(err)
		}
		if !errors.Is(ended, context.Canceled) {
			t.Errorf("the run is over, and it ended with %v", ended)
		}
		for name, answer := range map[string]found{"fails": {err: errBoom}, "waits": blocked(step.Boot)} {
			s := scripted(name, &calls, nil, answer)
			s.Beside = func(context.Context) { t.Errorf("%s: it is begun", name) }
			if results, _ := step.Apply(t.Context(), []step.Step{s}, nil); len(results) != 1 {
				t.Errorf("%+v", results)
			}
		}
	})
}
