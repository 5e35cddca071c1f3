package main

import (
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
)

// clockProblems names the clock where the rest of the page only makes sense by a wrong one: what
// is valid from tomorrow, or was taken tomorrow, was made by a clock that was ahead, or this one
// is behind; and what has expired has done so only by a clock that is right. Whoever reads of
// certificates alone would renew them by the wrong clock.
func clockProblems(s agent.Status, synced func() (bool, error)) []agent.Problem {
	list := []agent.Problem{} // and never null in JSON
	f := &findings{&list}
	says := "the clock says " + s.Now.UTC().Format(time.DateTime) + " UTC"
	early, ended := "", ""
	for _, c := range s.Certificates {
		switch c.State(s.Now) {
		case "early":
			early = c.Path + " is valid only from " + c.NotBefore.UTC().Format(time.DateTime)
		case "expired":
			ended = c.Path
		}
	}
	if early != "" {
		f.wrong("timedatectl", "%s, and %s: is the clock behind?", says, early)
	}
	if ended != "" {
		if ok, err := synced(); err != nil {
			f.warn("timedatectl", "%s, by which %s has expired, and whether it is right is not known: %v", says, ended, err)
		} else if !ok {
			f.wrong("timedatectl", "%s, and nothing keeps it right: %s has expired only if that is true", says, ended)
		}
	}
	future := 0
	for _, b := range s.Snapshots {
		if b.Taken.After(s.Now) {
			future++
		}
	}
	if future > 0 {
		f.warn("nodeagent snapshot list", "%s: %d of the snapshots were taken later; they are kept, and none is counted as the newest", says, future)
	}
	return list
}
