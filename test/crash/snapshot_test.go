package crash_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/crash"
)

const backups = "/var/lib/nodeagent/backups"

// snapshot save of a real etcd, compressed, encrypted and with the cluster's keys, killed at every
// point, where one backup is there and one is to be kept: what is listed is verified, there is
// always one, nothing that was to be encrypted lies there as it is, and later saves leave nothing else.
func TestSnapshotSave(t *testing.T) {
	origin, client := etcdMachine(t)
	origin.encrypts()
	if _, err := client.Put(t.Context(), "/registry/secrets/canary", canary+string(noise(ballast))); err != nil {
		t.Fatal(err)
	}
	origin.does(0, "snapshot", "save")
	if exposed(origin.whole(), origin.whole()) != nil || len(origin.backupFiles()) != 3 {
		t.Fatalf("the machine to be swept has %q", origin.backupFiles())
	}
	before := origin.whole()
	points := crash.Sweep(t, func(t *testing.T) crash.Trial {
		m := machine{t: t, root: filepath.Join(t.TempDir(), "root"), umask: "077", identities: origin.identities}
		if err := os.CopyFS(m.root, os.DirFS(origin.root)); err != nil {
			t.Fatal(err)
		}
		put(t, client)
		return crash.Trial{Command: m.nodeagent("snapshot", "save"), Check: func(t *testing.T, r crash.Result) {
			m.t = t
			if found := exposed(m.whole(), before); found != nil {
				t.Errorf("unencrypted: %q", found)
			}
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
			if have := m.backupFiles(); len(have) != 3 {
				t.Errorf("saves have left %q, want one backup, its files and its manifest", have)
			}
			if found := exposed(m.whole(), before); found != nil {
				t.Errorf("unencrypted: %q", found)
			}
		}}
	})
	t.Logf("killed at %d points", points)
	if points < 20 {
		t.Error("which are too few to be those of an archive, an object of several writes and a manifest")
	}
}

const (
	// canary is in the database, within what cannot be compressed, and so is in every form of it
	// that is not encrypted.
	canary = "7f0b6c1e-canary-93d2a4"
	// ballast makes the object some writes long.
	ballast = 64 << 10
	// keyFile is a key of the cluster.
	keyFile = "/etc/kubernetes/pki/ca.key"
)

// noise is what no compression makes smaller, the same each time.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // it never fails
	return data
}

// encrypts has the machine encrypt its backups, and gives it what goes with them then. It removes
// what was saved before.
func (m *machine) encrypts() {
	m.t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		m.t.Fatal(err)
	}
	config := fmt.Sprintf("role: control-plane\nbackup: {retention: {keepLast: 1}, recipients: [%s]}\n", key.Recipient())
	m.write("/etc/nodeagent/config.yaml", []byte(config), 0o600)
	m.write(keyFile, []byte("-----BEGIN PRIVATE KEY-----\n"+base64.StdEncoding.EncodeToString(noise(1200))+"\n-----END PRIVATE KEY-----\n"), 0o600)
	if m.identities, err = etcdbackup.ParseIdentities([]byte(key.String())); err != nil {
		m.t.Fatal(err)
	}
	if err := os.RemoveAll(m.path(backups)); err != nil {
		m.t.Fatal(err)
	}
}

// exposed are the files which are not as they were before and in which the database, or a key, can
// be read by whoever reads the file.
func exposed(have, before crash.Tree) []string {
	var found []string
	for path, e := range have {
		if before[path].Content == e.Content {
			continue
		}
		for what, is := range map[string]bool{
			"a private key":          strings.Contains(e.Content, "PRIVATE KEY"),
			"the database":           strings.Contains(e.Content, canary),
			"a database":             len(e.Content) > 20 && e.Content[16:20] == "\xed\xda\x0c\xed",
			"compressed only":        strings.HasPrefix(e.Content, "\x28\xb5\x2f\xfd"),
			"neither age's nor ours": strings.HasPrefix(path, backups+"/") && !strings.HasSuffix(path, ".json") && !encrypted(e.Content),
		} {
			if is {
				found = append(found, fmt.Sprintf("%s: %s", path, what))
			}
		}
	}
	return found
}

// encrypted says whether it is age's, or the beginning of it, or of a manifest that gets its name.
func encrypted(content string) bool {
	const header = "age-encryption.org/v1\n"
	return strings.HasPrefix(content, header) || strings.HasPrefix(header, content) || strings.HasPrefix(content, "{")
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
		if _, err := etcdbackup.Verify(m.t.Context(), store, b.Object.Name, m.identities); err != nil {
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
	const layout = "20060102T150405Z"
	for _, f := range m.backupFiles() {
		stamp, rest, _ := strings.Cut(f, "-")
		taken, err := time.Parse(layout, stamp)
		manifest := strings.HasSuffix(f, ".json") && !strings.Contains(f, ".proof-")
		if err != nil || manifest || slices.ContainsFunc(but, func(name string) bool {
			stem, _, _ := strings.Cut(name, ".")
			return strings.HasPrefix(f, stem+".")
		}) {
			continue
		}
		older := taken.Add(-2*time.Hour).Format(layout) + "-" + rest
		if err := os.Rename(m.path(backups+"/"+f), m.path(backups+"/"+older)); err != nil {
			m.t.Fatal(err)
		}
	}
}
