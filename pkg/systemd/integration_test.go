//go:build integration

// These tests talk to a real systemd: they are built with `go test -c -tags integration` and
// run as root inside a container or VM that systemd has booted.
package systemd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func connect(t *testing.T) (context.Context, *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c, err := Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return ctx, c
}

// unitFile installs a service for the length of the test.
func unitFile(t *testing.T, ctx context.Context, c *Conn, name, body string) {
	t.Helper()
	path := filepath.Join("/etc/systemd/system", name)
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		_ = c.Stop(ctx, name)
		_ = c.Disable(ctx, name)
		_ = os.Remove(path)
		_ = c.DaemonReload(ctx)
	})
	if err := c.DaemonReload(ctx); err != nil {
		t.Fatal(err)
	}
}

const sleeper = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n"

func TestUnitLifeCycle(t *testing.T) {
	ctx, c := connect(t)
	const unit = "nodeagent-test.service"
	unitFile(t, ctx, c, unit, sleeper)

	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func() State {
		t.Helper()
		s, err := c.State(ctx, unit)
		must(err)
		return s
	}
	if s := state(); s.LoadState != "loaded" || s.ActiveState != "inactive" || s.UnitFileState != "disabled" || !s.ActiveEnterTimestamp.IsZero() {
		t.Fatalf("before: %+v", s)
	}
	must(c.Enable(ctx, unit))
	must(c.Start(ctx, unit))
	first := state()
	if !first.Active() || !first.Enabled() || first.MainPID == 0 || first.ActiveEnterTimestamp.IsZero() || first.ExecMainStartTimestamp.IsZero() {
		t.Fatalf("started: %+v", first)
	}
	must(c.Restart(ctx, unit))
	if s := state(); s.MainPID == first.MainPID || !s.ExecMainStartTimestamp.After(first.ExecMainStartTimestamp) {
		t.Fatalf("restarted: %+v, before it %+v", s, first)
	}
	if err := os.WriteFile("/etc/systemd/system/"+unit, []byte(sleeper+"#\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s := state(); !s.NeedDaemonReload {
		t.Errorf("file changed: %+v", s)
	}
	must(c.Stop(ctx, unit))
	must(c.Disable(ctx, unit))
	if s := state(); s.Active() || s.Enabled() || s.MainPID != 0 || s.NeedDaemonReload {
		t.Fatalf("stopped and disabled: %+v", s)
	}
}

func TestMask(t *testing.T) {
	ctx, c := connect(t)
	const unit = "swap.target"
	if err := c.Mask(ctx, unit); err != nil {
		t.Fatal(err)
	}
	if s, err := c.State(ctx, unit); err != nil || s.UnitFileState != "masked" || s.LoadState != "masked" {
		t.Errorf("masked: %+v, %v", s, err)
	}
	if err := c.Unmask(ctx, unit); err != nil {
		t.Fatal(err)
	}
	if s, err := c.State(ctx, unit); err != nil || s.UnitFileState != "static" {
		t.Errorf("unmasked: %+v, %v", s, err)
	}
}

func TestFailedJobs(t *testing.T) {
	ctx, c := connect(t)
	const unit = "nodeagent-test-fails.service"
	unitFile(t, ctx, c, unit, "[Service]\nType=oneshot\nExecStart=/bin/false\n")
	for _, do := range []func(context.Context, string) error{c.Start, c.Restart} {
		err := do(ctx, unit)
		var job *JobError
		if !errors.As(err, &job) || job.Result != "failed" || job.State.Result != "exit-code" || !strings.Contains(err.Error(), "journalctl -u "+unit) {
			t.Errorf("got %v", err)
		}
	}
	if err := c.Start(ctx, "nodeagent-nobody.service"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a unit that is not there: %v", err)
	}
	if s, err := c.State(ctx, "nodeagent-nobody.service"); err != nil || s.LoadState != "not-found" {
		t.Errorf("state of a unit that is not there: %+v, %v", s, err)
	}
}

func TestStartDeadline(t *testing.T) {
	ctx, c := connect(t)
	const unit = "nodeagent-test-slow.service"
	unitFile(t, ctx, c, unit, "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n")
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := c.Start(short, unit); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func transient(t *testing.T, name string, script string) Transient {
	return Transient{
		Unit: "nodeagent-test-" + name + ".service", Description: t.Name(),
		Argv: []string{"/bin/sh", "-c", script}, LogFile: filepath.Join(t.TempDir(), "log"), Timeout: 30 * time.Second,
	}
}

func TestTransientResults(t *testing.T) {
	ctx, c := connect(t)
	for _, tt := range []struct {
		name, script string
		change       func(*Transient)
		want         Result
		log          string
	}{
		{name: "fine", script: "echo out; echo err >&2; echo \"$GREETING\"; echo %n", change: func(t *Transient) { t.Env = []string{"GREETING=a  $b"} }, want: Result{Result: "success"}, log: "out\nerr\na  $b\n%n\n"},
		{name: "exit", script: "exit 7", want: Result{Result: "exit-code", Code: 7}},
		{name: "killed", script: "kill -KILL $$", want: Result{Result: "signal", Signal: 9}},
		{name: "timeout", script: "exec sleep 1000", change: func(t *Transient) { t.Timeout = 500 * time.Millisecond }, want: Result{Result: "timeout", Signal: 15}},
		{name: "noexec", change: func(t *Transient) { t.Argv = []string{"/nonexistent"} }, want: Result{Result: "exit-code", Code: 203}},
		{
			name:   "limits",
			script: "systemctl show nodeagent-test-limits.service -p CPUWeight -p IOWeight -p IOReadBandwidthMax -p IOWriteBandwidthMax -p MemoryMax -p OOMScoreAdjust | sort",
			change: func(t *Transient) {
				t.MemoryMax, t.IOWeight, t.CPUWeight, t.OOMScore = 64<<20, 50, 1, 900
				t.IOBandwidth, t.IOPaths = 20_000_000, []string{"/var/lib"}
			},
			want: Result{Result: "success"},
			log:  "CPUWeight=1\nIOReadBandwidthMax=/var/lib 20000000\nIOWeight=50\nIOWriteBandwidthMax=/var/lib 20000000\nMemoryMax=67108864\nOOMScoreAdjust=900\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := transient(t, tt.name, tt.script)
			if tt.change != nil {
				tt.change(&spec)
			}
			for range 2 { // the second run proves that the first was cleared away
				got, err := c.RunTransient(ctx, spec)
				if got != tt.want {
					t.Fatalf("got %+v, %v, want %+v", got, err, tt.want)
				}
				var failed *UnitError
				if (err == nil) != (tt.want.Result == "success") || err != nil && !errors.As(err, &failed) {
					t.Fatalf("got error %v", err)
				}
			}
			log, err := os.ReadFile(spec.LogFile)
			if err != nil || string(log) != tt.log+tt.log {
				t.Errorf("log %q, %v", log, err)
			}
			if info, err := os.Stat(spec.LogFile); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("log file: %v, %v", info.Mode(), err)
			}
			if s, err := c.State(ctx, spec.Unit); err != nil || s.LoadState != "not-found" {
				t.Errorf("left behind: %+v, %v", s, err)
			}
		})
	}
}

// What a unit prints goes to the file that was opened, and nowhere by another user's link: not by
// one in the file's place, nor by one above it that is put there while the unit runs.
func TestTransientLogIsNoLink(t *testing.T) {
	ctx, c := connect(t)
	elsewhere := t.TempDir()
	precious := filepath.Join(elsewhere, "log")
	spec := transient(t, "link", "echo planted")
	if err := errors.Join(os.WriteFile(precious, nil, 0o600), os.Symlink(precious, spec.LogFile)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.RunTransient(ctx, spec); !errors.Is(err, host.ErrSymlink) {
		t.Errorf("a link in place of the file: %+v, %v", r, err)
	}
	open := t.TempDir() // as /var/log is for Ubuntu's syslog
	dir := filepath.Join(open, "nodeagent")
	spec = transient(t, "foreign", "echo planted")
	spec.LogFile = filepath.Join(dir, "log")
	if err := errors.Join(os.Chmod(open, 0o777), os.Symlink(elsewhere, dir)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.RunTransient(ctx, spec); !errors.Is(err, host.ErrForeignLink) {
		t.Errorf("a link that leads to it: %+v, %v", r, err)
	}
	// The directory is replaced when the unit runs, which goes on printing.
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o750)); err != nil {
		t.Fatal(err)
	}
	spec.Argv = []string{"/bin/sh", "-c", "mv " + dir + " " + dir + ".moved && ln -s " + elsewhere + " " + dir + "; echo first; sh -c 'echo second >&2'"}
	if r, err := c.RunTransient(ctx, spec); err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if log, err := os.ReadFile(dir + ".moved/log"); err != nil || string(log) != "first\nsecond\n" {
		t.Errorf("log %q, %v", log, err)
	}
	if got, err := os.ReadFile(precious); err != nil || len(got) != 0 {
		t.Errorf("elsewhere %q, %v", got, err)
	}
}

func TestTransientIsAdopted(t *testing.T) {
	ctx, c := connect(t)
	spec := transient(t, "adopted", "echo began; sleep 2; exit 3")
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := c.RunTransient(short, spec); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("first: %v", err)
	}
	other, err := Connect(ctx) // another process, as it were
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	got, err := other.RunTransient(ctx, spec)
	if want := (Result{Result: "exit-code", Code: 3, Adopted: true}); got != want {
		t.Fatalf("second: %+v, %v", got, err)
	}
	if log, err := os.ReadFile(spec.LogFile); err != nil || string(log) != "began\n" {
		t.Errorf("log %q, %v: it ran more than once", log, err)
	}
}

func TestTransientUnreadResultIsNotTakenForOurs(t *testing.T) {
	ctx, c := connect(t)
	for _, tt := range []struct{ name, script, state string }{
		{"unread-ok", "true", "active"}, {"unread-failed", "exit 3", "failed"},
	} {
		spec := transient(t, tt.name, tt.script)
		if err := c.startTransient(ctx, spec); err != nil { // and nobody waits
			t.Fatal(err)
		}
		for {
			s, err := c.State(ctx, spec.Unit)
			if err != nil {
				t.Fatal(err)
			}
			if !running(s) && s.Job == 0 {
				if s.ActiveState != tt.state {
					t.Fatalf("%s: %+v", tt.name, s)
				}
				break
			}
		}
		spec.Argv = []string{"/bin/sh", "-c", "echo fresh; exit 4"}
		got, err := c.RunTransient(ctx, spec)
		if want := (Result{Result: "exit-code", Code: 4}); got != want {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

func TestTransientRace(t *testing.T) {
	ctx, c := connect(t)
	spec := transient(t, "race", "echo ran; sleep 1")
	type answer struct {
		Result
		error
	}
	answers := make(chan answer)
	for range 4 {
		go func() {
			r, err := c.RunTransient(ctx, spec)
			answers <- answer{r, err}
		}()
	}
	started := 0
	for range 4 {
		a := <-answers
		if a.error == nil && !a.Adopted {
			started++
		}
	}
	log, err := os.ReadFile(spec.LogFile)
	if err != nil || started != 1 || string(log) != "ran\n" {
		t.Errorf("started %d times, log %q, %v", started, log, err)
	}
}

func TestTransientStopped(t *testing.T) {
	ctx, c := connect(t)
	spec := transient(t, "stopped", "exec sleep 1000")
	go func() {
		for ctx.Err() == nil {
			if s, err := c.State(ctx, spec.Unit); err == nil && s.SubState == "running" {
				_ = c.Stop(ctx, spec.Unit)
				return
			}
		}
	}()
	if _, err := c.RunTransient(ctx, spec); !errors.Is(err, ErrStopped) {
		t.Errorf("got %v", err)
	}
}

// systemd drops its connections when it re-executes itself.
func TestConnectionLost(t *testing.T) {
	ctx, c := connect(t)
	spec := transient(t, "reexec", "sleep 3; exit 5")
	const unit = "nodeagent-test-slow-start.service"
	unitFile(t, ctx, c, unit, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 3\n")
	started := make(chan error, 1)
	go func() { started <- c.Start(ctx, unit) }()
	done := make(chan error, 1)
	go func() {
		_, err := c.RunTransient(ctx, spec)
		done <- err
	}()
	time.Sleep(500 * time.Millisecond)
	if out, err := exec.Command("/bin/systemctl", "daemon-reexec").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var failed *UnitError
	if err := <-done; !errors.As(err, &failed) || failed.Result.Code != 5 {
		t.Errorf("transient: %v", err)
	}
	if err := <-started; err != nil {
		t.Errorf("start: %v", err)
	}
}
