package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// progress prints what apply does, a line a stage. On a terminal the last line is that of the
// step in progress and counts its seconds; elsewhere a line stays as it was written.
type progress struct {
	w    io.Writer
	live bool
	stop chan struct{} // ends the counting; nil when nothing is counted

	mu    sync.Mutex
	began time.Time // of the step in progress
	doing string    // what it does
	why   string    // it waits
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, live: isTerminal(w)}
	if p.live {
		p.stop = make(chan struct{})
		go p.count(p.stop)
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// count rewrites the last line every second.
func (p *progress) count(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			p.mu.Lock()
			p.show()
			p.mu.Unlock()
		}
	}
}

// end leaves nothing of the last line. It may be called more than once.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
		p.doing = ""
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *progress) show() {
	if p.stop != nil && p.doing != "" {
		fmt.Fprintf(p.w, "\r\x1b[K%s %s", p.doing, time.Since(p.began).Round(time.Second))
	}
}

func (p *progress) observe(e step.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	head := fmt.Sprintf("[%d/%d] %s", e.Index, e.Total, e.Step)
	if e.Stage == step.Done {
		p.doing = ""
		p.done(head, e.Result)
		return
	}
	if e.Stage == step.Checking {
		p.began = time.Now()
	}
	p.doing = head + ": " + string(e.Stage) + besides(e)
	if e.Stage == step.Awaiting {
		p.awaiting(head, e.Result.Why())
		return
	}
	if e.Stage == step.Applying && !p.live {
		p.line("%s", p.doing)
	}
	p.show()
}

// awaiting tells why, once each time that another reason is found.
func (p *progress) awaiting(head, why string) {
	if why != p.why {
		p.why = why
		p.line("%s: waiting: %s", head, why)
	}
	p.show()
}

func (p *progress) done(head string, r step.Result) {
	took := time.Since(p.began).Round(100 * time.Millisecond)
	switch r.Outcome {
	case step.Applied:
		for _, c := range r.Pending() {
			p.line("%s: %s", head, c)
		}
		p.line("%s: done in %s", head, took)
	case step.Failed, step.Stopped:
		p.line("%s: %s after %s", head, r.Outcome, took)
	case step.Waiting:
		p.line("%s: waits: %v", head, r.Err)
	case step.Clean, step.Differs:
		p.line("%s: nothing to do", head)
	}
	for _, c := range r.Findings() {
		p.line("%s: finding, only you can mend it: %s", head, c)
	}
}

// line writes to stderr; a reader who has gone is no reason to stop changing the host halfway.
func (p *progress) line(format string, args ...any) {
	if p.live {
		format = "\r\x1b[K" + format
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}
