//go:build integration

package deb_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

// shownPackage is the package in the guides.
const shownPackage = "nodeagent_0.1.0_amd64.deb"

// beside has the package and the configuration in the directory where a reader types.
func (n node) beside(t *testing.T) {
	t.Helper()
	n.Write(t, "/srv/here/config.yaml", []byte(config), 0o644)
	n.Script(t, "ln /srv/new.deb /srv/here/"+shownPackage)
}

// typed runs a line of a guide there, with nobody to answer.
func (n node) typed(t *testing.T, line string) (out string, code int) {
	t.Helper()
	out, err := n.TryScript("cd /srv/here; { " + line + "; } </dev/null 2>&1")
	t.Logf("$ %s\n%s", line, out)
	return out, nspawn.ExitCode(err)
}

// mustType is typed for a line that has to succeed.
func (n node) mustType(t *testing.T, line string) string {
	t.Helper()
	out, code := n.typed(t, line)
	if code != 0 {
		t.Fatalf("%s: exit code %d", line, code)
	}
	return out
}

// What docs/install.md has an operator type, word by word: to install, and to remove and purge.
func byTheGuide(t *testing.T, n node) {
	n.beside(t)
	lines := docblock.Lines(t, "docs/install.md", "By apt", "journalctl -fu", "timeout 5 journalctl -fu")
	if len(lines) != 3 {
		t.Fatalf("the guide has %q", lines)
	}
	n.mustType(t, lines[0])
	n.mustType(t, lines[1])
	n.working(t)
	n.expectConfig(t)
	// It follows the journal until it is interrupted.
	if out, code := n.typed(t, lines[2]); code != 124 || !strings.Contains(out, "nodeagent") {
		t.Errorf("%s: exit code %d:\n%s", lines[2], code, out)
	}
	// A person answers apt's question; for a script it is -y.
	lines = docblock.Lines(t, "docs/install.md", "Upgrade, downgrade, remove", "apt-get ", "apt-get -y ")
	if len(lines) != 2 {
		t.Fatalf("the guide has %q", lines)
	}
	n.mustType(t, lines[0])
	n.expect(t, "LoadState=not-found")
	n.Script(t, "ls /var/lib/nodeagent")
	if out := n.mustType(t, lines[1]); !strings.Contains(out, " /etc/nodeagent") {
		t.Errorf("the purge does not say what it leaves:\n%s", out)
	}
	n.expectConfig(t)
}

// What the README has him type. This node cannot become well; TestFreshNode's does.
func byTheReadme(t *testing.T, n node) {
	n.beside(t)
	lines := docblock.Lines(t, "README.md", "Install", "--wait", "--wait --timeout 1s")
	if len(lines) != 3 {
		t.Fatalf("the README has %q", lines)
	}
	n.mustType(t, lines[0])
	n.mustType(t, lines[1])
	n.working(t)
	if out, code := n.typed(t, lines[2]); code != 2 || !strings.Contains(out, "is not well") && !strings.Contains(out, "bootstrapping") {
		t.Errorf("%s: exit code %d:\n%s", lines[2], code, out)
	}
}
