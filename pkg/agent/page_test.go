package agent

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

func pageOf(t *testing.T, status Status) string {
	t.Helper()
	s := testServer(t)
	s.Status = func(context.Context) Status { return status }
	handler, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	h := w.Header()
	if w.Code != http.StatusOK || h.Get("Content-Type") != "text/html; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", w.Code, h)
	}
	policy := h.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("the policy is %q", policy)
	}
	return w.Body.String()
}

// What comes from files, the cluster and the network is text on the page, never markup.
func TestPage(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	const evil = `"><script>alert("x")</script>`
	status := Status{
		Host: evil, Role: evil, Standing: Adopted, Version: evil, Now: now, StepsTotal: 3,
		Steps: []StepStatus{
			{Name: evil, Outcome: step.Failed, Changes: []step.Change{{Subject: evil, Have: evil, Want: "a"}}, Error: evil, At: now},
			{Name: "kernel/swap", Outcome: step.Clean, At: now},
		},
		Jobs: []JobStatus{{Name: evil, JobState: JobState{Error: evil, LastSuccess: now.Add(-time.Hour)}}, {Name: SnapshotJob, JobState: JobState{Next: now.Add(5 * time.Hour)}}},
		Certificates: []CertificateStatus{
			{Path: "/etc/" + evil, User: evil, Kind: evil, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Second)},
			{Path: "/b", NotAfter: now.Add(72 * time.Hour)}, {Path: "/c", NotAfter: now.Add(9000 * 24 * time.Hour)},
		},
		Node:       &NodeStatus{Known: true, KubeletVersion: evil, Unschedulable: true, Conditions: []ConditionStatus{{Type: evil, Status: evil, Reason: evil, Message: evil}}},
		Units:      []UnitStatus{{Unit: evil, LoadState: "loaded", ActiveState: evil, SubState: evil, UnitFileState: evil}, {Unit: "up.service", LoadState: "loaded", ActiveState: "active", SubState: "running", UnitFileState: "enabled"}, {Unit: "x", Error: evil}, {Unit: "y", LoadState: "not-found"}},
		StaticPods: []StaticPodStatus{{Name: evil, State: evil, Restarts: 7777}, {Name: "etcd", State: "running", Manifest: "/etc/" + evil}},
		Snapshots:  slices.Repeat([]SnapshotStatus{{Name: evil, Store: evil, Taken: now.Add(-time.Minute), Size: 4096, Revision: 7, Proven: "restored", ProvenAt: now.Add(-2 * time.Minute), ProvenBy: evil, RestoreSeconds: 1.25}}, 7),
		Problems:   []Problem{{Warning, evil, ""}, {Error, evil, evil}},
	}
	status.Judge()
	page := pageOf(t, status)
	for _, want := range []string{
		"2026-11-21 12:00:00 UTC", "expired 1s ago", "in 3 days", "never", "4.0 KiB", `<header class="verdict wrong">`, `1 problem, 1 warning</p>`, "What is wrong, and what to type", "&lt;script&gt;",
		">not Ready<", ">unschedulable<", `<th scope="row">up.service</th><td class="good">active (running), enabled</td>`, `<td class="bad">not-found</td>`, ">7777<", `<td class="good">running</td>`,
		"Verified <strong>1m ago</strong>, the next is due <strong>in 5h 0m</strong>", "<summary>2 more</summary>", "<summary>1 of 3 steps are clean</summary>", `aria-label="valid from 2026-11-21 to 2026-11-21"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page:\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script") {
		t.Errorf("markup got through:\n%s", page)
	}
	wellFormed(t, page)
}

// wellFormed holds that every element is closed where it has to be, that headings, captions and
// landmarks are there, and that no link of the page leads to nothing.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(strings.Replace(page, "<!doctype html>", "", 1)))
	d.Strict, d.Entity = false, xml.HTMLEntity
	d.AutoClose = []string{"meta", "link", "br"}
	seen, ids, links := map[string]int{}, map[string]bool{}, []string{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
		element, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		seen[element.Name.Local]++
		for _, a := range element.Attr {
			switch a.Name.Local {
			case "id":
				if ids[a.Value] {
					t.Errorf("two elements are #%s", a.Value)
				}
				ids[a.Value] = true
			case "href", "aria-labelledby":
				links = append(links, a.Value)
			case "style", "onclick", "src":
				t.Errorf("<%s> has an attribute %s", element.Name.Local, a.Name.Local)
			}
		}
	}
	if seen["h1"] != 1 || seen["main"] != 1 || seen["table"] != seen["caption"] || seen["script"] > 0 {
		t.Errorf("%v", seen)
	}
	for _, link := range links {
		id := strings.TrimPrefix(link, "#")
		if link != "metrics" && !strings.HasPrefix(link, "data:") && !ids[id] {
			t.Errorf("%s leads to nothing", link)
		}
	}
}

// Beside each snapshot stands how far its proof goes, and of each store which was last proven, and how.
func TestPageOfProofs(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	page := pageOf(t, Status{Now: now, Snapshots: []SnapshotStatus{
		{Name: "b", Store: "file /a", Taken: now}, {Name: "a", Store: "file /a", Taken: now, Proven: "restored", ProvenAt: now.Add(-time.Hour), ProvenBy: "cp2", RestoreSeconds: 2.34},
		{Name: "d", Store: "file /b", Taken: now, Proven: "object", ProvenAt: now.Add(-72 * time.Hour), ProvenBy: "cp1"},
		{Name: "e", Store: "file /c", Taken: now},
	}})
	for _, want := range []string{
		"<p class=\"dim\">file /a: a proven 1h 0m ago by cp2, restored in 2.3 s.</p>",
		"<p class=\"dim\">file /b: d found unchanged 3 days ago by cp1, and not opened: there is no identity.</p>",
		"<p class=\"dim\">file /c: none of them proven by a restore yet.</p>",
		`<span class="good">restored</span> <time class="number dim" datetime="2026-11-21T11:00:00Z">2026-11-21 11:00</time></th>`,
		`<span class="dim">unchanged</span> <time class="number dim" datetime="2026-11-18T12:00:00Z">`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page:\n%s", want, page)
		}
	}
	if n := strings.Count(page, `<span class="dim">not proven yet</span></th>`); n != 2 {
		t.Errorf("%d snapshots are not proven yet:\n%s", n, page)
	}
	wellFormed(t, page)
}

func TestPageWhileTheAPIIsDown(t *testing.T) {
	page := pageOf(t, Status{Node: &NodeStatus{Error: "<b>"}})
	if !strings.Contains(page, "The API does not answer: &lt;b&gt;") || strings.Contains(page, ">Units</h2>") {
		t.Errorf("the page while the API does not answer:\n%s", page)
	}
}

func TestPageOfNothing(t *testing.T) {
	s := Status{Host: "node-1", Standing: Fresh}
	s.Judge()
	page := pageOf(t, s)
	for _, want := range []string{"node-1 is not ready", "it is not made yet", "None has run yet.", "None is planned.", "None is on this host.", "There is no snapshot of etcd.", "</html>\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page:\n%s", want, page)
		}
	}
	wellFormed(t, page)
}

func TestTimeline(t *testing.T) {
	now := time.Date(2028, 2, 29, 12, 0, 0, 0, time.UTC) // a leap day
	day := 24 * time.Hour
	v := pageView{Status{Now: now, Certificates: []CertificateStatus{
		{Path: "new", NotBefore: now, NotAfter: now.AddDate(1, 0, 0)},
		{Path: "half", NotBefore: now.Add(-365 * day / 2), NotAfter: now.Add(27 * day)},
		{Path: "ca", NotBefore: now.AddDate(-5, 0, 0), NotAfter: now.AddDate(5, 0, 0)},
		{Path: "past", NotBefore: now.AddDate(-9, 0, 0), NotAfter: now.AddDate(-8, 0, 0)},
		{Path: "future", NotBefore: now.AddDate(3, 0, 0), NotAfter: now.AddDate(4, 0, 0)},
		{Path: "near", NotBefore: now.Add(-day), NotAfter: now.Add(13 * day)},
	}}}
	want := map[string][3]string{
		"new": {"50.00", "50.00", "good"}, "half": {"25.00", "28.69", "warning"}, "ca": {"0.00", "100.00", "good"},
		"past": {"0.00", "0.60", "expired"}, "future": {"99.40", "0.60", "early"}, "near": {"49.86", "1.91", "error"},
	}
	line := v.Timeline()
	for _, b := range line.Bars {
		if got := [3]string{b.X, b.Width, b.State}; got != want[b.Path] {
			t.Errorf("%s: %v, want %v", b.Path, got, want[b.Path])
		}
	}
	if len(line.Ticks) != 8 || line.Ticks[0].Label != "" || line.Ticks[1].Label != "Jul 2027" {
		t.Errorf("%v", line.Ticks)
	}
	if (pageView{}).Timeline() != nil {
		t.Error("a time line of nothing")
	}
}
