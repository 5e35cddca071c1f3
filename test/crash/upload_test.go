package crash_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/crash"
)

// share is a store that is not on the machine, and spool is where what goes there waits.
const (
	share       = "/mnt/share"
	shareConfig = "role: control-plane\nbackup: {retention: {keepLast: 2}, stores: [{file: {dir: " + share + ", shared: true, allowPlaintext: true}}]}\n"
)

func spool() string { return etcdbackup.SpoolDir + "/" + etcdbackup.SpoolID("file "+share) }

// snapshot save to a shared store in which there are two backups and for which one waits, killed at
// every point of the save, the two uploads and the pruning: nothing is listed that is not whole, no
// backup is lost that retention keeps, and later saves leave two backups in the store and nothing else.
func TestSnapshotUpload(t *testing.T) {
	origin, client := etcdMachine(t)
	if err := os.RemoveAll(origin.path(backups)); err != nil {
		t.Fatal(err)
	}
	origin.write("/etc/nodeagent/config.yaml", []byte(shareConfig), 0o600)
	for range 2 {
		put(t, client)
		origin.does(0, "snapshot", "save")
	}
	// While it is away one more is saved.
	if err := os.Rename(origin.path(share), origin.path(share+".away")); err != nil {
		t.Fatal(err)
	}
	origin.write(share, nil, 0o600)
	put(t, client)
	origin.does(1, "snapshot", "save")
	if err := os.Remove(origin.path(share)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(origin.path(share+".away"), origin.path(share)); err != nil {
		t.Fatal(err)
	}
	if there, waits := origin.stored(); len(there) != 2 || len(waits) != 1 {
		t.Fatalf("in the store are %q, and %q wait", there, waits)
	}
	_, waiting := origin.stored()
	points := crash.Sweep(t, func(t *testing.T) crash.Trial {
		m := machine{t: t, root: filepath.Join(t.TempDir(), "root"), umask: "077"}
		if err := os.CopyFS(m.root, os.DirFS(origin.root)); err != nil {
			t.Fatal(err)
		}
		put(t, client)
		return crash.Trial{Command: m.nodeagent("snapshot", "save"), Check: func(t *testing.T, r crash.Result) {
			m.t = t
			there, waits := m.stored()
			if all := append(there, waits...); !slices.Contains(all, waiting[0]) || len(all) < 3 && len(there) < 2 {
				t.Errorf("in the store are %q, and %q wait", there, waits)
			}
			put(t, client)
			m.does(0, "snapshot", "save")
			there, waits = m.stored()
			if len(there) != 2 || len(waits) != 0 {
				t.Errorf("after another save %q are in the store, and %q wait", there, waits)
			}
			// What may be another's in progress is left alone for a day, on the host for an hour.
			m.orphansAreOld(share)
			m.orphansAreOld(spool())
			put(t, client)
			m.does(0, "snapshot", "save")
			if have := names(t, m.path(share)); len(have) != 4 {
				t.Errorf("saves have left %q in the store, want two backups and their manifests", have)
			}
			if have := names(t, m.path(spool())); len(have) != 0 {
				t.Errorf("saves have left %q in the spool", have)
			}
		}}
	})
	t.Logf("killed at %d points", points)
	if points < 30 {
		t.Error("which are too few to be those of a save, two uploads and a pruning")
	}
}

// stored are the backups in the shared store and those that wait for it, as the program lists them. Each is
// read back.
func (m machine) stored() (there, waits []string) {
	m.t.Helper()
	var list []struct {
		etcdbackup.Manifest
		Waiting bool `json:"waiting"`
	}
	out := m.does(0, "snapshot", "list", "--output", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		m.t.Fatalf("list prints %q: %v", out, err)
	}
	for _, b := range list {
		dir, of := share, &there
		if b.Waiting {
			dir, of = spool(), &waits
		}
		if _, err := etcdbackup.Verify(m.t.Context(), file.New(host.New(m.root), dir, "localhost"), b.Object.Name, etcdbackup.Identities{}); err != nil {
			m.t.Errorf("a backup is listed that is none: %v", err)
		}
		*of = append(*of, b.Object.Name)
	}
	return there, waits
}

// orphansAreOld makes the objects without a manifest two days older, by name and by file.
func (m machine) orphansAreOld(dir string) {
	m.t.Helper()
	const layout = "20060102T150405Z"
	all := names(m.t, m.path(dir))
	for _, name := range all {
		stamp, rest, _ := strings.Cut(name, "-")
		taken, err := time.Parse(layout, stamp)
		if err != nil || strings.HasSuffix(name, ".json") || slices.Contains(all, name+".json") {
			continue
		}
		then := taken.Add(-48 * time.Hour)
		older := m.path(dir + "/" + then.Format(layout) + "-" + rest)
		if err := os.Rename(m.path(dir+"/"+name), older); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Chtimes(older, then, then); err != nil {
			m.t.Fatal(err)
		}
	}
}
