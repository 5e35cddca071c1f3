package steptest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// motd is an honest step: a file with a line in it.
func motd(h *host.Host) step.Step {
	const path, want = "/etc/motd", "welcome\n"
	return step.Step{
		Name: "test/motd",
		Check: func(context.Context) ([]step.Change, error) {
			have, err := h.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			note := step.Change{Subject: "weather", Have: "rain", Want: "sun", Manual: true}
			if string(have) == want {
				return []step.Change{note}, nil
			}
			return []step.Change{{Subject: path, Have: string(have), Want: want}, note}, nil
		},
		Apply: func(context.Context) error { return h.WriteFile(path, []byte(want), 0o644) },
	}
}

func TestConverges(t *testing.T) {
	h := host.New(t.TempDir())
	Converges(t, h, motd(h))
}

func TestConvergesFindsEveryBreach(t *testing.T) {
	touch := func(t *testing.T, h *host.Host, name string) {
		if err := os.WriteFile(filepath.Join(h.Root, name), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	tests := map[string]struct {
		breach func(t *testing.T, h *host.Host, s *step.Step)
		want   string
	}{
		"nothing to do": {func(t *testing.T, h *host.Host, s *step.Step) {
			if err := s.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, "give it a host that differs"},
		"no apply": {func(_ *testing.T, _ *host.Host, s *step.Step) { s.Apply = nil }, "no Apply"},
		"check writes": {func(t *testing.T, h *host.Host, s *step.Step) {
			honest := s.Check
			s.Check = func(ctx context.Context) ([]step.Change, error) {
				touch(t, h, "seen")
				return honest(ctx)
			}
		}, "first check: the tree was modified:\n  . was"},
		"check fails": {func(_ *testing.T, _ *host.Host, s *step.Step) {
			s.Check = func(context.Context) ([]step.Change, error) { return nil, step.Blocked{On: "test/other"} }
		}, "first check: not known before test/other"},
		"check says nothing": {func(_ *testing.T, _ *host.Host, s *step.Step) {
			s.Check = func(context.Context) ([]step.Change, error) {
				return []step.Change{{Subject: "x", Have: "1", Want: "1"}}, nil
			}
		}, "tells an operator nothing"},
		"apply does nothing": {func(_ *testing.T, _ *host.Host, s *step.Step) {
			s.Apply = func(context.Context) error { return nil }
		}, "after apply: check still finds"},
		"apply fails": {func(_ *testing.T, _ *host.Host, s *step.Step) {
			s.Apply = func(context.Context) error { return errors.New("boom") }
		}, "apply: boom"},
		"second apply replaces the file by its equal": {func(t *testing.T, h *host.Host, s *step.Step) {
			honest := s.Apply
			s.Apply = func(ctx context.Context) error { return errors.Join(h.Remove("/etc/motd"), honest(ctx)) }
		}, "second apply: the tree was modified"},
		"second apply fails": {func(_ *testing.T, _ *host.Host, s *step.Step) {
			honest, runs := s.Apply, 0
			s.Apply = func(ctx context.Context) error {
				if runs++; runs > 1 {
					return errors.New("already there")
				}
				return honest(ctx)
			}
		}, "second apply: already there"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := host.New(t.TempDir())
			s := motd(h)
			test.breach(t, h, &s)
			err := converges(t.Context(), h.Root, s)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that says %q", err, test.want)
			}
		})
	}
}

func TestUnchangedSeesWhatAFileIs(t *testing.T) {
	tests := map[string]func(dir string) error{
		"content":    func(dir string) error { return os.WriteFile(dir+"/file", []byte("two"), 0o644) },
		"mode":       func(dir string) error { return os.Chmod(dir+"/file", 0o600) },
		"link":       func(dir string) error { return errors.Join(os.Remove(dir+"/link"), os.Symlink("b", dir+"/link")) },
		"gone":       func(dir string) error { return os.Remove(dir + "/file") },
		"new":        func(dir string) error { return os.Mkdir(dir+"/new", 0o755) },
		"same again": func(dir string) error { return os.WriteFile(dir+"/file", []byte("one"), 0o644) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := errors.Join(os.WriteFile(dir+"/file", []byte("one"), 0o644), os.Symlink("a", dir+"/link")); err != nil {
				t.Fatal(err)
			}
			was, err := snapshot(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := was.unchanged(dir); err != nil {
				t.Fatalf("before any change: %v", err)
			}
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			if err := was.unchanged(dir); err == nil {
				t.Error("the change was not seen")
			}
		})
	}
}
