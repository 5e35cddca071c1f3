package crash_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/crash"
)

const backups = "/var/lib/nodeagent/backups"

// snapshot save of a real etcd, killed at every point, where one backup is there and one is to
// be kept: what is listed is verified, there is always one, and later saves leave nothing else.
func TestSnapshotSave(t *testing.T) {
	origin, client := etcdMachine(t)
	points := crash.Sweep(t, func(t *testing.T) crash.Trial {
		m := machine{t: t, root: filepath.Join(t.TempDir(), "root"), umask: "077"}
		if err := os.CopyFS(m.root, os.DirFS(origin.root)); err != nil {
			t.Fatal(err)
		}
		put(t, client)
		return crash.Trial{Command: m.nodeagent("snapshot", "save"), Check: func(t *testing.T, r crash.Result) {
			m.t = t
			if len(m.listed()) == 0 {
				t.Errorf("no backup is left; there are %q", m.backupFiles())
			}
			put(t, client)
			m.does(0, "snapshot", "save")
			newest := m.listed()
			if len(newest) != 1 {
				t.Errorf("listed are %q after another save, want one", newest)
			}
			// What may be another save's in progress is left alone for an hour.
			m.age(newest)
			put(t, client)
			m.does(0, "snapshot", "save")
			list := m.listed()
			if len(list) != 1 || slices.Equal(list, newest) {
				t.Errorf("listed are %q, and before %q", list, newest)
			}
			if have := m.backupFiles(); len(have) != 2 {
				t.Errorf("saves have left %q, want one backup and its manifest", have)
			}
		}}
	})
	t.Logf("killed at %d points", points)
}

// snapshot prune killed at every point: the newest backup is always there, what is listed is
// verified, and run again it ends where a run that nobody killed ends, but for an object that
// the first run left without its manifest, which the next one takes an hour later.
func TestSnapshotPrune(t *testing.T) {
	origin, client := etcdMachine(t)
	one := []byte("role: control-plane\nbackup: {retention: {keepLast: 1}}\n")
	origin.write("/etc/nodeagent/config.yaml", []byte("role: control-plane\n"), 0o600)
	for range 2 {
		put(t, client)
		origin.does(0, "snapshot", "save")
	}
	origin.write("/etc/nodeagent/config.yaml", one, 0o600)
	all := origin.listed()
	if len(all) != 3 {
		t.Fatalf("there are %q, want three backups", all)
	}
	proof := etcdbackup.ProofName(all[2], time.Now())
	origin.write(backups+"/"+etcdbackup.ProofName(all[0], time.Now()), nil, 0o600) // or all[2] would be the newest proven
	origin.write(backups+"/"+proof, nil, 0o600)
	points := crash.Sweep(t, func(t *testing.T) crash.Trial {
		m := machine{t: t, root: filepath.Join(t.TempDir(), "root"), umask: "077"}
		if err := os.CopyFS(m.root, os.DirFS(origin.root)); err != nil {
			t.Fatal(err)
		}
		return crash.Trial{Command: m.nodeagent("snapshot", "prune"), Check: func(t *testing.T, r crash.Result) {
			m.t = t
			if list := m.listed(); len(list) == 0 || list[0] != all[0] {
				t.Errorf("listed are %q, and the newest was %s", list, all[0])
			}
			m.does(0, "snapshot", "prune")
			m.age(all[:1])
			m.does(0, "snapshot", "prune")
			if list := m.listed(); !slices.Equal(list, all[:1]) {
				t.Errorf("listed are %q, want only %s", list, all[0])
			}
			if have := m.backupFiles(); len(have) != 3 {
				t.Errorf("prune has left %q, want one backup, its manifest and its proof", have)
			}
		}}
	})
	t.Logf("killed at %d points", points)
}

// etcdMachine is a machine with a member of etcd, which runs until the test ends, and a backup.
func etcdMachine(t *testing.T) (machine, *clientv3.Client) {
	t.Helper()
	m := newMachine(t, "bare", "077")
	m.write("/etc/nodeagent/config.yaml", []byte("role: control-plane\nbackup: {retention: {keepLast: 1}}\n"), 0o600)
	h := host.New(m.root)
	member, err := etcdtest.Start(h, filepath.Join(t.TempDir(), "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := member.Close(); err != nil {
			t.Error(err)
		}
	})
	local, err := etcd.FindLocal(h)
	if err != nil {
		t.Fatal(err)
	}
	client, err := local.Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	put(t, client)
	m.does(0, "snapshot", "save")
	return m, client
}

// put makes a new revision: two saves of one revision in one second have the same name.
func put(t *testing.T, client *clientv3.Client) {
	t.Helper()
	if _, err := client.Put(t.Context(), "/registry/key", time.Now().String()); err != nil {
		t.Fatal(err)
	}
}

// listed are the backups that the program lists, each of which is read back.
func (m machine) listed() []string {
	m.t.Helper()
	var list []etcdbackup.Manifest
	out := m.does(0, "snapshot", "list", "--output", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		m.t.Fatalf("list prints %q: %v", out, err)
	}
	store := file.New(host.New(m.root), backups, "localhost")
	var names []string
	for _, b := range list {
		if _, err := etcdbackup.Verify(m.t.Context(), store, b.Object.Name, etcdbackup.Identities{}); err != nil {
			m.t.Errorf("a backup is listed that is none: %v", err)
		}
		names = append(names, b.Object.Name)
	}
	return names
}

// backupFiles is all that lies in the store, hidden files among it.
func (m machine) backupFiles() []string { return names(m.t, m.path(backups)) }

// age makes the store's objects and proofs, but those of the backups named in but, two hours older.
func (m machine) age(but []string) {
	m.t.Helper()
	for _, f := range m.backupFiles() {
		object, rest, isProof := strings.Cut(f, ".proof-")
		name, err := etcdbackup.ParseName(object)
		if err != nil || slices.Contains(but, object) {
			continue
		}
		name.Time = name.Time.Add(-2 * time.Hour)
		older := name.String()
		if isProof {
			older += ".proof-" + rest
		}
		if err := os.Rename(m.path(backups+"/"+f), m.path(backups+"/"+older)); err != nil {
			m.t.Fatal(err)
		}
	}
}
