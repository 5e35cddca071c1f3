package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// round is a scheduled save, with the tries that follow where it failed. A store gets one backup of a
// round: with one in each try a store that is broken would turn over the history of those that are not.
type round struct {
	since time.Time        // when it began; the next is due after this
	saved map[string]error // the stores that have their backup, and what went wrong with it nevertheless
}

// goesOn says that a run of the job is a further try.
func (r round) goesOn(now time.Time, next func(time.Time) time.Time) bool {
	return len(r.saved) > 0 && !now.Before(r.since) && now.Before(next(r.since))
}

// add takes what a try has saved.
func (r *round) add(began time.Time, stores []etcdbackup.StoreReport) {
	for _, s := range stores {
		if !s.Saved {
			continue
		}
		if r.saved == nil {
			*r = round{began, map[string]error{}}
		}
		r.saved[s.Store] = s.Err
	}
}

// err is what went wrong with the backups that there are: it is not mended by a further one.
func (r round) err() error {
	var errs []error
	for _, err := range r.saved {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// left are those stores that have no backup of the round yet.
func (r round) left(stores []etcdbackup.Local) []etcdbackup.Local {
	return slices.DeleteFunc(stores, func(store etcdbackup.Local) bool {
		_, has := r.saved[store.String()]
		return has
	})
}

// nextSave is when the next round is due. It counts from the first try of this one: no store that was
// saved to then is to wait for longer.
func (s *session) nextSave(last time.Time) time.Time {
	if began := s.round.since; !began.IsZero() && began.Before(last) {
		last = began
	}
	return s.machine.nextBackup()(last)
}

// resume begins where the agent before this one ended, and says when every store had got a backup from
// this host: what some stores have and others lack is made up for in those.
func (s *session) resume(ctx context.Context) time.Time {
	var last, since earliest
	now, next := time.Now(), s.machine.nextBackup()
	saved := map[string]error{}
	add := func(store etcdbackup.Local, newest time.Time) {
		last.add(newest)
		if !newest.After(now) && next(newest).After(now) {
			since.add(newest)
			saved[store.String()] = nil
		}
	}
	for _, store := range s.machine.locals() {
		add(store, s.machine.savedIn(ctx, store, now))
	}
	for _, r := range s.machine.remotes {
		add(r.spool, s.savedFor(ctx, r))
	}
	s.round = round{since.time, saved}
	return last.time
}

// savedIn is when this host has saved last to one of its stores, as of now; zero where none is known.
func (m *machine) savedIn(ctx context.Context, store etcdbackup.Local, now time.Time) time.Time {
	catalog, err := etcdbackup.List(ctx, store)
	if err != nil {
		return time.Time{} // what is exported of the store says why
	}
	for _, b := range catalog.Backups {
		if b.Host == m.nodeName() && !b.Time.After(now) {
			return b.Time
		}
	}
	return time.Time{}
}

// earliest is the first of the times that were added.
type earliest struct {
	time time.Time
	any  bool
}

func (e *earliest) add(t time.Time) {
	if !e.any || t.Before(e.time) {
		e.time, e.any = t, true
	}
}
