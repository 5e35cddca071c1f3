package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/test/docblock"
)

// build makes the program under show, as `make build` does but for its version.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "nodeagent")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/nodeagent").CombinedOutput()
	if err != nil {
		t.Fatalf("build nodeagent: %v\n%s", err, out)
	}
	return binary
}

// output is what the demo has printed so far; onLine, if set, is called with what it prints.
type output struct {
	mu     sync.Mutex
	text   bytes.Buffer
	onLine func(string)
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.onLine != nil {
		o.onLine(string(data))
	}
	return o.text.Write(data)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// leavesNothing holds that the machine whose root was printed is gone.
func leavesNothing(t *testing.T, printed string) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\$ ROOT=(/.+)$`).FindStringSubmatch(printed)
	if m == nil {
		t.Fatalf("no root was printed:\n%s", printed)
	}
	if _, err := os.Lstat(m[1]); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", m[1], err)
	}
}

func TestDemo(t *testing.T) {
	binary := build(t)
	t.Run("to its end", func(t *testing.T) {
		t.Parallel()
		var out output
		if code := run(t.Context(), []string{"-nodeagent", binary}, "8", &out); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out.String())
		}
		for _, want := range []string{
			`(?m)^      /etc/fstab line 2$`,
			`15 changes; .nodeagent apply. makes them`,
			`28 steps, 7 changed; wait for boot: preflight/host, preflight/time, kubelet, kubeadm/config … kubeadm/addon, node/ready`,
			`28 steps checked, nothing to change`,
			`(?m)^    \d{8}T\d{6}Z-cp1-4\.db\.zst .* 3 +file /var/lib/nodeagent/backups$`,
			`cp1-4\.db\.zst: revision 4, 3 keys, \d+ bytes, KV hash \d+, sha256 as in its manifest`,
			`msg="drift mended" step=kernel/sysctl subject=/etc/sysctl\.d/90-nodeagent\.conf have=`,
			`cp1 is not well: 1 problem\n`,
			`Problem +/etc/kubernetes/pki/apiserver\.crt expires in 9 days, \S+\n +type: kubeadm certs renew all`,
			`nodeagent_etcd_snapshots\{store="file /var/lib/nodeagent/backups"\} [23]`,
			`nodeagent_etcd_snapshot_keys\{store="file /var/lib/nodeagent/backups"\} 3`,
			`nodeagent_certificate_not_after_timestamp_seconds\{kind="pki",path="/etc/kubernetes/pki/apiserver\.crt",user=""\}`,
			`nodeagent_step_clean\{step="kernel/swap"\} 1`,
			`http://127\.0\.0\.1:\d+/\n`,
			`daemon: .* msg=stopped`,
			`The end\.`,
		} {
			if !regexp.MustCompile(want).MatchString(out.String()) {
				t.Errorf("the demo does not show %s", want)
			}
		}
		if t.Failed() {
			t.Logf("it printed:\n%s", out.String())
		}
		leavesNothing(t, out.String())
		recordingIsTrue(t, out.String())
	})
	t.Run("interrupted while it stays", func(t *testing.T) {
		t.Parallel()
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		out := output{onLine: func(line string) {
			if strings.Contains(line, "Ctrl-C ends it") {
				interrupt()
			}
		}}
		if code := run(ctx, []string{"-nodeagent", binary}, "600", &out); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out.String())
		}
		leavesNothing(t, out.String())
	})
}

// recordingIsTrue holds the recording in the README against a run. Numbers, and with them times,
// and hashes are each run's own.
func recordingIsTrue(t *testing.T, transcript string) {
	t.Helper()
	have := "```console\n" + docblock.Text(t, "README.md", "What you see", "console") + "```\n"
	want, err := recording(transcript)
	if err != nil {
		t.Fatal(err)
	}
	mask := func(text string) string {
		for _, m := range [][2]string{{`nodeagent (\(devel\)|v?\d\S*)`, "nodeagent VERSION"}, {`\b(in \d+s|now)\b`, "SOON"}, {`sha256 [0-9a-f]{12}…`, "sha256 HASH"}, {`\d+`, "N"}, {` +`, " "}} {
			text = regexp.MustCompile(m[0]).ReplaceAllString(text, m[1])
		}
		return text
	}
	if diff := cmp.Diff(mask(have), mask(want)); diff != "" {
		t.Errorf("the recording in the README is another: `make demo RECORD=README.md` (- as it is, + as it should be):\n%s", diff)
	}
}

func TestWhatGoesWrongIsAnError(t *testing.T) {
	never, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		binary, seconds, says string
		code                  int
	}{
		"no program":         {filepath.Join(t.TempDir(), "nodeagent"), "1", "`make build` makes it", 1},
		"another exit code":  {never, "1", "nodeagent plan: exit code 1, expected 2", 1},
		"seconds unreadable": {never, "soon", `DEMO_SECONDS is "soon"`, 64},
		"no seconds":         {never, "0", `DEMO_SECONDS is "0"`, 64},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out output
			code := run(t.Context(), []string{"-nodeagent", test.binary}, test.seconds, &out)
			if code != test.code || !strings.Contains(out.String(), test.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, test.code, test.says, out.String())
			}
			if strings.Contains(out.String(), "$ ROOT=") {
				leavesNothing(t, out.String())
			}
		})
	}
}
