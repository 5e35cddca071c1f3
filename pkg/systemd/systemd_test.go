package systemd

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStateOf(t *testing.T) {
	got := stateOf(map[string]any{
		"LoadState": "loaded", "ActiveState": "failed", "SubState": "failed", "UnitFileState": "enabled", "Result": "signal",
		"ExecMainCode": int32(2), "ExecMainStatus": int32(9), "MainPID": uint32(0),
		"ActiveEnterTimestamp": uint64(1_700_000_000_000_001), "StateChangeTimestamp": uint64(0),
		"NeedDaemonReload": true, "Job": []any{uint32(7), "/org/freedesktop/systemd1/job/7"},
	})
	want := State{
		LoadState: "loaded", ActiveState: "failed", SubState: "failed", UnitFileState: "enabled", Result: "signal",
		ExecMainCode: 2, ExecMainStatus: 9, ActiveEnterTimestamp: time.UnixMicro(1_700_000_000_000_001), NeedDaemonReload: true, Job: 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(State{LoadState: "not-found"}, stateOf(map[string]any{"LoadState": "not-found", "MainPID": "a wrong type"})); diff != "" {
		t.Error(diff)
	}
}

func TestRunning(t *testing.T) {
	for _, tt := range []struct {
		active, sub string
		want        bool
	}{
		{"inactive", "dead", false}, {"failed", "failed", false}, {"active", "exited", false},
		{"active", "running", true}, {"activating", "start", true}, {"deactivating", "stop-sigterm", true},
	} {
		if got := running(State{ActiveState: tt.active, SubState: tt.sub}); got != tt.want {
			t.Errorf("%s (%s): %v", tt.active, tt.sub, got)
		}
	}
}

func TestResultOf(t *testing.T) {
	for _, tt := range []struct {
		state State
		want  Result
		text  string
	}{
		{State{Result: "success", ExecMainCode: cldExited}, Result{Result: "success"}, ""},
		{State{Result: "exit-code", ExecMainCode: cldExited, ExecMainStatus: 3}, Result{Result: "exit-code", Code: 3}, "run a.service: ended with exit-code 3; see: journalctl -u a.service"},
		{State{Result: "oom-kill", ExecMainCode: cldKilled, ExecMainStatus: 9}, Result{Result: "oom-kill", Signal: 9}, "run a.service: ended with oom-kill (signal 9); see: journalctl -u a.service"},
		{State{Result: "core-dump", ExecMainCode: cldDumped, ExecMainStatus: 11}, Result{Result: "core-dump", Signal: 11}, "run a.service: ended with core-dump (signal 11); see: journalctl -u a.service"},
	} {
		got := resultOf(tt.state)
		if got != tt.want {
			t.Errorf("%+v: got %+v", tt.state, got)
		}
		if e := (&UnitError{Unit: "a.service", Result: got}); tt.text != "" && e.Error() != tt.text {
			t.Errorf("text %q", e.Error())
		}
	}
	e := &UnitError{Unit: "a.service", LogFile: "/var/log/a", Result: Result{Result: "timeout"}}
	if got := e.Error(); got != "run a.service: ended with timeout; see: /var/log/a" {
		t.Errorf("text %q", got)
	}
}

func TestJobErrorSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		state State
		want  string
	}{
		{State{LoadState: "loaded", Result: "exit-code"}, "restart a.service: job failed, unit ended with exit-code; see: journalctl -u a.service"},
		{State{LoadState: "masked", Result: "success"}, "restart a.service: job failed, unit is masked; see: journalctl -u a.service"},
		{State{LoadState: "loaded", Result: "success"}, "restart a.service: job failed; see: journalctl -u a.service"},
	} {
		if got := (&JobError{Unit: "a.service", Job: "restart", Result: "failed", State: tt.state}).Error(); got != tt.want {
			t.Errorf("got %q", got)
		}
	}
}

func TestTransientValidate(t *testing.T) {
	good := Transient{Unit: "a.service", Argv: []string{"/bin/true"}, Timeout: time.Second}
	if err := good.validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Transient){
		"unit":    func(t *Transient) { t.Unit = "a" },
		"argv":    func(t *Transient) { t.Argv = nil },
		"path":    func(t *Transient) { t.Argv = []string{"true"} },
		"timeout": func(t *Transient) { t.Timeout = 0 },
		"log":     func(t *Transient) { t.LogFile = "log" },
	} {
		bad := good
		spoil(&bad)
		if _, err := (&Conn{}).RunTransient(t.Context(), bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTransientProperties(t *testing.T) {
	spec := Transient{
		Unit: "a.service", Description: "d", Argv: []string{"/bin/sh", "-c", "echo $HOME"}, Env: []string{"A=b"},
		LogFile: "/var/log/a", MemoryMax: 1 << 20, IOWeight: 10, Timeout: time.Minute,
	}
	got := map[string]string{}
	for _, p := range spec.properties() {
		if p.Name == "ExecStart" { // variants cannot print structures
			want := []execCommand{{Path: "/bin/sh", Argv: []string{"/bin/sh", "-c", "echo $$HOME"}}}
			if diff := cmp.Diff(want, p.Value.Value()); diff != "" || p.Value.Signature().String() != "a(sasb)" {
				t.Errorf("ExecStart %s: %s", p.Value.Signature(), diff)
			}
			continue
		}
		got[p.Name] = p.Value.Signature().String() + " " + p.Value.String()
	}
	want := map[string]string{
		"Description": `s "d"`, "Type": `s "exec"`, "RemainAfterExit": "b true",
		"RuntimeMaxUSec": "t @t 60000000", "UMask": "u @u 63", "Environment": `as ["A=b"]`,
		"MemoryMax": "t @t 1048576", "IOWeight": "t @t 10",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := sleep(ctx, time.Hour); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
