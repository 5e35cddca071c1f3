//go:build integration

package runbooks_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

// programs are those whose commands between backticks are to be typed as well.
var programs = []string{
	"nodeagent", "systemctl", "journalctl", "kubeadm", "kubectl", "crictl", "promtool", "df", "findmnt", "findmnt!", "mount", "umount",
	"timedatectl!", "curl", "openssl", "grep", "ls", "rm", "apt-get", "dpkg", "etcdutl", "etcdctl", "ctr", "containerd",
}

// outcome is what a command is to print, and to exit with.
type outcome struct {
	says []string
	code int
}

func prints(words ...string) outcome          { return outcome{says: words} }
func exits(code int, words ...string) outcome { return outcome{code: code, says: words} }

// runbook is the state that one is for. What its commands, in their order, do not say in outcomes is
// that they succeed.
type runbook struct {
	alert      string
	begin, end string             // scripts
	outcomes   map[string]outcome // by the command's text
	typed      map[string]string  // what is typed where the text has a placeholder
	well       string             // a script that succeeds once the commands and end have mended it
}

// TestRunbooks puts a machine into the state of each runbook, and types the runbook's commands.
func TestRunbooks(t *testing.T) {
	n := up(t)
	documents := map[string]docblock.Document{}
	for _, d := range docblock.ReadAll(t, "docs/runbooks") {
		documents[strings.TrimSuffix(d.Path[len("docs/runbooks/"):], ".md")] = d
	}
	for _, r := range runbooks {
		d, ok := documents[r.alert]
		if !ok {
			t.Fatalf("there is no runbook %s", r.alert)
		}
		delete(documents, r.alert)
		if !t.Run(r.alert, func(t *testing.T) { n.follow(t, r, d) }) {
			return // the machine is not as the next one wants it
		}
	}
	if len(documents) > 0 {
		t.Errorf("nobody follows %v", slices.Sorted(maps.Keys(documents)))
	}
}

func (n node) follow(t *testing.T, r runbook, d docblock.Document) {
	n.Script(t, admin+r.begin)
	done := map[string]bool{}
	for _, c := range d.Commands(programs...) {
		if done[c.Command] || d.Excused(c) != "" || strings.HasPrefix(c.Command, "nodeagent apply") {
			continue // nodeagent's own are run by TestCommandsInDocs too, this one on a machine that it may change
		}
		done[c.Command] = true
		n.typeIn(t, r, c.Command)
	}
	for command := range r.outcomes {
		if !done[command] {
			t.Errorf("%s does not show %q", d.Path, command)
		}
	}
	n.Script(t, admin+r.end)
	if r.well != "" {
		n.Wait(t, patience, r.well)
	}
}

// typeIn runs a command until it does what is expected of it: what it shows may have to come about.
func (n node) typeIn(t *testing.T, r runbook, command string) {
	t.Helper()
	text, want := command, r.outcomes[command]
	if typed := r.typed[command]; typed != "" {
		text = typed
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		out, err := n.TryScript(admin + "set +e\n" + text + " 2>&1")
		missing := slices.DeleteFunc(slices.Clone(want.says), func(word string) bool { return strings.Contains(out, word) })
		if nspawn.ExitCode(err) == want.code && len(missing) == 0 {
			t.Logf("$ %s\n%s", text, out)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("$ %s\nexit code %d, want %d; it does not say %q:\n%s", text, nspawn.ExitCode(err), want.code, missing, out)
			return
		}
	}
}

// series is a script that succeeds when /metrics has the line.
func series(line string) string {
	return fmt.Sprintf("curl -sS --max-time 10 http://127.0.0.1:10980/metrics | grep -qFx '%s'", line)
}
