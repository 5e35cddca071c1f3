package agent

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageStyle string

// page is the landing page: a Status as HTML that needs no script and fetches nothing.
type page struct {
	template *template.Template
	policy   string
}

func newPage() (*page, error) {
	t, err := template.New("page.html").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("parse page: %w", err)
	}
	// The one style sheet is allowed by its hash; everything else, scripts and fetches among it, is not.
	sum := sha256.Sum256([]byte(pageStyle))
	return &page{t, "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}, nil
}

func (p *page) write(w http.ResponseWriter, s Status) {
	var out bytes.Buffer
	if err := p.template.Execute(&out, pageView{s}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(out.Bytes()) // the reader has gone: nobody is left to tell
}

// pageView is a Status with what the template asks of it.
type pageView struct{ Status }

// Style is the style sheet. It is this program's own text.
func (pageView) Style() template.CSS { return template.CSS(pageStyle) } //nolint:gosec // see above

// Ago is how long before the page was made t was.
func (v pageView) Ago(t time.Time) string { return Ago(t, v.Now) }

// In is how long after the page was made t is.
func (v pageView) In(t time.Time) string { return In(t, v.Now) }

// Span is how long it has been since t, nothing where that is not known.
func (v pageView) Span(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return Span(v.Now.Sub(t))
}

// shownSnapshots is how many are on the page before one opens the rest.
const shownSnapshots = 5

// Newest is the snapshot that was taken last, nil when there is none.
func (v pageView) Newest() *SnapshotStatus {
	var newest *SnapshotStatus
	for i := range v.Snapshots {
		if newest == nil || v.Snapshots[i].Taken.After(newest.Taken) {
			newest = &v.Snapshots[i]
		}
	}
	for _, r := range v.RemoteStores {
		if r.Newest != nil && (newest == nil || r.Newest.Taken.After(newest.Taken)) {
			newest = r.Newest
		}
	}
	return newest
}

// FirstSnapshots are those that are seen at once.
func (v pageView) FirstSnapshots() []SnapshotStatus {
	return v.Snapshots[:min(shownSnapshots, len(v.Snapshots))]
}

// MoreSnapshots are the rest.
func (v pageView) MoreSnapshots() []SnapshotStatus {
	return v.Snapshots[min(shownSnapshots, len(v.Snapshots)):]
}

// Bytes is the size for people.
func (s SnapshotStatus) Bytes() string { return Bytes(s.Size) }

// OpenSteps are those that are not clean.
func (v pageView) OpenSteps() []StepStatus { return v.which(false) }

// CleanSteps are the others.
func (v pageView) CleanSteps() []StepStatus { return v.which(true) }

func (v pageView) which(good bool) (out []StepStatus) {
	for _, s := range v.Steps {
		if s.Good() == good {
			out = append(out, s)
		}
	}
	return out
}

// StepClass is the color of a step that is not clean.
func (pageView) StepClass(s StepStatus) string {
	switch s.Outcome {
	case "failed", "stopped":
		return "bad"
	case "differs":
		return "warn"
	}
	return "dim"
}
