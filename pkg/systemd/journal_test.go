package systemd

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

type entry struct {
	Message  string
	Priority journal.Priority
	Fields   map[string]string
}

func TestJournalHandler(t *testing.T) {
	var got []entry
	send := func(m string, p journal.Priority, f map[string]string) error {
		got = append(got, entry{m, p, f})
		return nil
	}
	var w bytes.Buffer
	log := slog.New(newJournalHandler(&w, slog.LevelInfo, send))
	log.Debug("unseen")
	log.Info("plain")
	with := log.With("step", "kernel/sysctl").WithGroup("etcd").With("rev", 7)
	with.Warn("took long", "took-ms", 1500, slog.Group("member", "id", "a b"), "priority", "x")
	log.Error("failed", "err", errors.New("line\nline"), "", "nameless", "größe", 1)

	want := []entry{
		{"plain", journal.PriInfo, map[string]string{}},
		{`took long step=kernel/sysctl etcd.rev=7 etcd.took-ms=1500 etcd.member.id="a b" etcd.priority=x`, journal.PriWarning, map[string]string{
			"STEP": "kernel/sysctl", "ETCD_REV": "7", "ETCD_TOOK_MS": "1500", "ETCD_MEMBER_ID": "a b", "ETCD_PRIORITY": "x"}},
		{`failed err="line\nline" ""=nameless größe=1`, journal.PriErr, map[string]string{"ERR": "line\nline", "GR__E": "1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if w.Len() > 0 {
		t.Errorf("wrote %q beside", w.String())
	}
}

func TestJournalHandlerFallsBack(t *testing.T) {
	var w bytes.Buffer
	send := func(string, journal.Priority, map[string]string) error { return errors.New("no journal") }
	log := slog.New(newJournalHandler(&w, slog.LevelDebug, send))
	log.Debug("one")
	log.With("a", 1).Error("two", "b", "x y")
	if got, want := w.String(), "<7>one\n<3>two a=1 b=\"x y\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogHandler(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	for format, want := range map[string]string{
		"text": `^time=\S+ level=WARN msg=hello a=1\n$`,
		"auto": `^time=\S+ level=WARN msg=hello a=1\n$`,
		"":     `^time=\S+ level=WARN msg=hello a=1\n$`,
		"json": `^\{"time":"[^"]+","level":"WARN","msg":"hello","a":1\}\n$`,
	} {
		var w bytes.Buffer
		h, err := LogHandler(&w, format, slog.LevelWarn)
		if err != nil {
			t.Fatal(err)
		}
		slog.New(h).Info("unseen")
		slog.New(h).Warn("hello", "a", 1)
		if !regexp.MustCompile(want).MatchString(w.String()) {
			t.Errorf("%q: %q", format, w.String())
		}
	}
	if _, err := LogHandler(nil, "xml", slog.LevelInfo); err == nil {
		t.Error("format xml accepted")
	}
}

func FuzzFieldName(f *testing.F) {
	for _, s := range []string{"", "_", "a", "9lives", "__x", "MESSAGE", "größe", "a.b-c"} {
		f.Add(s)
	}
	valid := regexp.MustCompile(`^([A-Z][A-Z0-9_]{0,63})?$`)
	f.Fuzz(func(t *testing.T, key string) {
		if got := fieldName(key); !valid.MatchString(got) || got == "MESSAGE" || got == "PRIORITY" {
			t.Errorf("%q becomes %q", key, got)
		}
	})
}
