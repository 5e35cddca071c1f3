package bootstrap

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// diagnosis says why a node does not come up: what an operator would look at first, in a line
// each. It is asked with every check of a step that waits, and looks anew only now and then,
// since looking costs the node what it needs to come up.
type diagnosis struct {
	host *host.Host
	node string   // its name
	pods []string // static pods whose containers are looked at

	mu    sync.Mutex
	asked int
	found []step.Change
}

const (
	lookEvery     = 5 // checks
	podLogs       = "/var/log/pods"
	maxTail       = 64 << 10 // bytes of a container's log that are looked through
	maxSaying     = 300      // bytes that are quoted of one
	journalLines  = "200"    // of the kubelet that are looked through
	journalctlBin = "/usr/bin/journalctl"
)

// changes are what stands in the way; none when nothing is to be seen. What cannot be looked at
// is left out: it is no reason to stop waiting.
func (d *diagnosis) changes(ctx context.Context) []step.Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked%lookEvery == 0 {
		d.found = d.look(ctx)
	}
	d.asked++
	return d.found
}

// forget is for the end of a wait: the next one looks anew.
func (d *diagnosis) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked, d.found = 0, nil
}

func (d *diagnosis) look(ctx context.Context) []step.Change {
	var found []step.Change
	if said := d.kubelet(ctx); said != "" {
		found = append(found, step.Change{Subject: kubeletUnit, Have: "says: " + said, Want: "no errors"})
	}
	for _, pod := range d.pods {
		if have := d.container(pod); have != "" {
			found = append(found, step.Change{Subject: "container " + pod, Have: have, Want: "running"})
		}
	}
	return found
}

// kubeletError is a line of klog's that tells of an error: its text follows the header.
var kubeletError = regexp.MustCompile(`^[EF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.-]+:\d+\] (.+)$`)

// kubelet is its last error in the journal of this boot; "" when there is none.
func (d *diagnosis) kubelet(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := d.host.Run(ctx, journalctlBin, "--unit", kubeletUnit, "--boot", "--lines", journalLines, "--output", "cat", "--no-pager", "--quiet")
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(out)) {
		if m := kubeletError.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			last = m[1]
		}
	}
	return quote(last)
}

// container says what is wrong with the container of a static pod: that there is none, or that
// it was started again, and what the one before said last. The kubelet keeps their logs in
// POD-DIRECTORY/NAME/COUNT.log; "" is one that runs for the first time.
func (d *diagnosis) container(pod string) string {
	dirs, err := d.host.ReadDir(podLogs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	prefix := "kube-system_" + pod + "-" + d.node + "_"
	starts, before := -1, ""
	for _, dir := range dirs {
		if !strings.HasPrefix(dir.Name(), prefix) {
			continue
		}
		path := filepath.Join(podLogs, dir.Name(), pod)
		if n := newestLog(d.host, path); n > starts {
			starts, before = n, filepath.Join(path, strconv.Itoa(n-1)+".log")
		}
	}
	switch {
	case starts < 0:
		return "not started yet"
	case starts == 0:
		return ""
	}
	text := fmt.Sprintf("was started %d times", starts+1)
	if said := lastSaid(d.host, before); said != "" {
		text += ", the one before said: " + said
	}
	return text
}

// newestLog is the highest COUNT of the logs in dir, -1 when there are none.
func newestLog(h *host.Host, dir string) int {
	entries, err := h.ReadDir(dir)
	if err != nil {
		return -1
	}
	newest := -1
	for _, e := range entries {
		name, isLog := strings.CutSuffix(e.Name(), ".log")
		if n, err := strconv.Atoi(name); err == nil && isLog {
			newest = max(newest, n)
		}
	}
	return newest
}

// alarming is a line that tells why a program ended: klog's errors, etcd's, a panic.
var alarming = regexp.MustCompile(`^[EF]\d{4} |"level":"(error|fatal|panic)"|^panic: |^[Ee]rror: `)

// lastSaid is the last line of a container's log that tells of an error, or else its last line.
func lastSaid(h *host.Host, path string) string {
	f, err := h.Open(path)
	if err != nil {
		return "" // rotated away, or it never wrote
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > maxTail {
		if _, err := f.Seek(-maxTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	last, alarm := "", ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxTail)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 4) // time, stream, F or P, what was written
		if len(fields) < 4 || strings.TrimSpace(fields[3]) == "" {
			continue
		}
		last = fields[3]
		if alarming.MatchString(last) {
			alarm = last
		}
	}
	return quote(cmp.Or(alarm, last))
}

// quote is a line as an error quotes it: without secrets, cut where it is long.
func quote(line string) string {
	line = redact(strings.TrimSpace(line))
	if len(line) > maxSaying {
		line = strings.ToValidUTF8(line[:maxSaying], "") + "…"
	}
	return line
}

// conditions are those of a node that are not as they should be, Ready aside.
func conditions(list []kube.Condition) []step.Change {
	var found []step.Change
	for _, c := range list {
		if c.Type != "Ready" && c.Status == "True" {
			found = append(found, step.Change{Subject: "condition " + c.Type, Have: quote(c.Reason + ": " + c.Message), Want: "false"})
		}
	}
	slices.SortFunc(found, func(a, b step.Change) int { return cmp.Compare(a.Subject, b.Subject) })
	return found
}
