package etcdbackup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// What a save leaves that was killed between its object and its manifest is not listed, and
// goes with a later save.
func TestKilledSave(t *testing.T) {
	h, s := newStore(t)
	good := save(t, s, noon)
	data, err := h.ReadFile(filepath.Join(dir, good.Object.Name))
	if err != nil {
		t.Fatal(err)
	}
	orphan := func(now time.Time, host string) string {
		name := etcdbackup.Name{Time: now, Host: host, Revision: 7}.String()
		if err := h.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	later := noon.Add(6 * time.Hour)
	gone := orphan(noon.Add(time.Minute), "cp1")
	stay := []string{
		orphan(later.Add(-time.Minute), "cp1"), // may be being published
		orphan(noon.Add(time.Minute), "cp2"),
		orphan(noon.Add(time.Minute), "cp1-b"),
		orphan(later.Add(time.Hour), "cp1"), // the clock was set back
	}
	corrupt := orphan(noon.Add(2*time.Minute), "cp1")
	if err := h.WriteFile(filepath.Join(dir, corrupt+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stay = append(stay, corrupt, corrupt+".json", "notes.txt")
	wantBackups(t, s, noon)
	if got := list(t, s).Ignored; len(got) != 7 {
		t.Errorf("ignored %q", got)
	}
	save(t, s, later)
	wantBackups(t, s, later, noon)
	wantThere(t, h, false, gone)
	wantThere(t, h, true, stay...)
}

func wantThere(t *testing.T, h *host.Host, want bool, names ...string) {
	t.Helper()
	for _, name := range names {
		if there, err := h.Exists(filepath.Join(dir, name)); err != nil || there != want {
			t.Errorf("%s is there: %t, %v, want %t", name, there, err, want)
		}
	}
}

// A process that is really killed, within the stream and between object and manifest: nothing of
// its backup is listed, and a later save leaves nothing of it.
func TestSIGKILL(t *testing.T) {
	if at := os.Getenv("KILL_AT"); at != "" {
		killedSave(t, at)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(snapshot, genuine(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for at, left := range map[string]string{"stream": ".part", "manifest": ".db"} {
		t.Run(at, func(t *testing.T) {
			h, s := newStore(t)
			save(t, s, noon)
			_, err := host.Exec(t.Context(), host.Command{
				Path: self, Args: []string{"-test.run=^TestSIGKILL$"},
				Env: []string{"KILL_AT=" + at, "ROOT=" + h.Root, "SNAPSHOT=" + snapshot},
			})
			var failed *host.CommandError
			if !errors.As(err, &failed) || failed.Code != -1 {
				t.Fatalf("the child ended with %v, want a signal", err)
			}
			if got := files(t, h); !slices.ContainsFunc(got, func(name string) bool {
				return strings.HasSuffix(name, left) && !strings.Contains(name, "T120000Z")
			}) {
				t.Errorf("the child left %q, want a %s: it proves nothing", got, left)
			}
			wantBackups(t, s, noon)
			later := noon.Add(24 * time.Hour)
			save(t, s, later)
			wantBackups(t, s, later, noon)
			if got := files(t, h); len(got) != 4 {
				t.Errorf("the directory holds %q, want two objects and their manifests", got)
			}
		})
	}
}

// killedSave is the child: it kills itself where it is told to.
func killedSave(t *testing.T, at string) {
	data, err := os.ReadFile(os.Getenv("SNAPSHOT"))
	if err != nil {
		t.Fatal(err)
	}
	var s etcdbackup.Local = file.New(host.New(os.Getenv("ROOT")), dir, "cp1")
	source := sends(data)
	switch at {
	case "stream":
		source.stream = func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data[:len(data)/2]), suicide{})), nil
		}
	case "manifest":
		s = killer{s}
	}
	_, err = etcdbackup.Save(t.Context(), source, []etcdbackup.Local{s}, request(noon.Add(time.Hour)))
	t.Fatal("survived:", err)
}

type suicide struct{}

func (suicide) Read([]byte) (int, error) {
	return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// killer ends the process when the manifest is begun, which is the second object.
type killer struct{ etcdbackup.Local }

func (k killer) Put(ctx context.Context, name string, content *io.SectionReader) error {
	objects, err := k.List(ctx)
	if err == nil && len(objects)%2 == 1 {
		err = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if err != nil {
		return err
	}
	return k.Local.Put(ctx, name, content)
}
