package main

import (
	"fmt"
	"io"
	"time"
)

// transfer shows on a terminal how far the reading or writing of something large is, how fast it
// goes and how long it takes yet, in one line that is gone afterwards. Elsewhere it shows nothing.
type transfer struct {
	w     io.Writer // nil: it is no terminal
	name  string
	began time.Time
	shown time.Time
}

func newTransfer(w io.Writer, name string) *transfer {
	t := &transfer{name: name, began: time.Now()}
	if isTerminal(w) {
		t.w = w
	}
	return t
}

// betweenLines is how often the line is written.
const betweenLines = 200 * time.Millisecond

// observe takes that so many bytes of a total are done.
func (t *transfer) observe(done, total int64) {
	now := time.Now()
	if t.w == nil || done < total && now.Sub(t.shown) < betweenLines {
		return
	}
	t.shown = now
	fmt.Fprint(t.w, "\r\x1b[K"+transferLine(t.name, done, total, now.Sub(t.began)))
}

// stage takes what is being done, and how far it is where that is known.
func (t *transfer) stage(doing string, done, total int64) {
	if total > 0 {
		t.observe(done, total)
	} else if t.w != nil {
		fmt.Fprintf(t.w, "\r\x1b[K%s: %s", t.name, doing)
	}
}

// end leaves nothing of the line.
func (t *transfer) end() {
	if t.w != nil {
		fmt.Fprint(t.w, "\r\x1b[K")
	}
}

// transferLine is short of 80 columns for a backup's name of common length.
func transferLine(name string, done, total int64, took time.Duration) string {
	if done >= total || took <= 0 || done <= 0 {
		return fmt.Sprintf("%s: %s read, looking through it", name, byteCount(done))
	}
	rate := float64(done) / took.Seconds()
	left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%s: %d %% of %s, %s/s, %s left", name, done*100/total, byteCount(total), byteCount(int64(rate)), left)
}

// byteCount is a number of bytes as people read it.
func byteCount(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}
