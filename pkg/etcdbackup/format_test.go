package etcdbackup_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

var update = flag.Bool("update", false, "write the golden files")

func withTrailer(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(slices.Clip(b), sum[:]...)
}

func manifest() etcdbackup.Manifest {
	sum := strings.Repeat("0123456789abcdef", 4)
	return etcdbackup.Manifest{
		Version:  1,
		Host:     "cp1",
		Time:     noon,
		Agent:    "1.2.3",
		Cluster:  etcdbackup.Cluster{Kind: etcdbackup.KubeSystem, ID: "0a1b2c3d-0000-4000-8000-000000000001"},
		Object:   etcdbackup.StoredObject{Name: "20261121T120000Z-cp1-42.db.zst.age", Size: 2000, SHA256: sum},
		Snapshot: etcdbackup.Snapshot{Size: 4128, SHA256: sum, Revision: 42, Keys: 7},
		Etcd: etcdbackup.Member{ClusterID: "cdf818194e3a8c32", MemberID: "8e9e05c52164694d", Version: "3.6.8", StorageVersion: "3.6.0", Members: []etcdbackup.Peer{
			{ID: "8e9e05c52164694d", Name: "cp1", PeerURLs: []string{"https://10.0.0.1:2380"}},
			{ID: "91bc3c398fb3c146", Name: "cp2", PeerURLs: []string{"https://10.0.0.2:2380"}, Learner: true},
		}},
		Recipients: []string{"sha256:" + sum},
		Files: &etcdbackup.Files{
			StoredObject: etcdbackup.StoredObject{Name: "20261121T120000Z-cp1-42.files.tar.zst.age", Size: 900, SHA256: sum},
			Paths:        []string{"/etc/kubernetes/pki/ca.key"},
		},
	}
}

// The golden file is the format: later versions of the program have to read it.
func TestManifestFormat(t *testing.T) {
	const golden = "testdata/manifest-v1.json"
	if *update {
		data, err := json.MarshalIndent(manifest(), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(data, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := etcdbackup.DecodeManifest(data)
	if err != nil || !reflect.DeepEqual(got, manifest()) {
		t.Errorf("decoded %+v, %v", got, err)
	}
	encoded, err := json.MarshalIndent(got, "", "  ")
	if err != nil || string(encoded)+"\n" != string(data) {
		t.Errorf("encoded %s, %v", encoded, err)
	}
}

func TestManifestRefused(t *testing.T) {
	for name, change := range map[string]func(*etcdbackup.Manifest){
		"no version":        func(m *etcdbackup.Manifest) { m.Version = 0 },
		"another time":      func(m *etcdbackup.Manifest) { m.Time = m.Time.Add(time.Second) },
		"another host":      func(m *etcdbackup.Manifest) { m.Host = "cp2" },
		"another revision":  func(m *etcdbackup.Manifest) { m.Snapshot.Revision++ },
		"a path for a name": func(m *etcdbackup.Manifest) { m.Object.Name = "../" + m.Object.Name },
		"no size":           func(m *etcdbackup.Manifest) { m.Object.Size = 0 },
		"a short sha256":    func(m *etcdbackup.Manifest) { m.Object.SHA256 = "00" },
		"no sha256":         func(m *etcdbackup.Manifest) { m.Snapshot.SHA256 = "" },
		"for nobody":        func(m *etcdbackup.Manifest) { m.Recipients = nil },
		"another's files":   func(m *etcdbackup.Manifest) { m.Files.Name = "../" + m.Files.Name },
		"files of no size":  func(m *etcdbackup.Manifest) { m.Files.Size = 0 },
		"plain, and smaller": func(m *etcdbackup.Manifest) {
			m.Object.Name, m.Recipients = strings.TrimSuffix(m.Object.Name, ".zst.age"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := manifest()
			change(&m)
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := etcdbackup.DecodeManifest(data); err == nil {
				t.Errorf("decoded %+v", got)
			}
		})
	}
	later := []byte(`{"version": 2, "object": ["another shape"]}`)
	if _, err := etcdbackup.DecodeManifest(later); !errors.Is(err, etcdbackup.ErrLaterVersion) {
		t.Errorf("a later version: %v, want ErrLaterVersion", err)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	data, err := json.Marshal(manifest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version": 1, "object": {"name": "20261121T120000Z-cp1-42.db"}, "time": "2026-11-21T13:00:00+01:00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := etcdbackup.DecodeManifest(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := etcdbackup.DecodeManifest(again)
		if err != nil || !got.Time.Equal(m.Time) {
			t.Errorf("what was decoded does not decode again: %v\n%s", err, again)
		}
		if _, err := etcdbackup.ParseName(m.Object.Name); err != nil {
			t.Error(err)
		}
	})
}

func TestName(t *testing.T) {
	for s, want := range map[string]etcdbackup.Name{
		"20261121T120000Z-cp1-42.db":                {Time: noon, Host: "cp1", Revision: 42},
		"20261121T120000Z-a-b.example.org-1.db":     {Time: noon, Host: "a-b.example.org", Revision: 1},
		"20261121T120000Z-7-0.db":                   {Time: noon, Host: "7", Revision: 0},
		"20261121T120000Z---9.db":                   {Time: noon, Host: "-", Revision: 9},
		"20261121T120000Z-x-9223372036854775807.db": {Time: noon, Host: "x", Revision: 1<<63 - 1},
		"20261121T120000Z-x-1.db.zst":               {Time: noon, Host: "x", Revision: 1, Compressed: true},
		"20261121T120000Z-x-1.db.age":               {Time: noon, Host: "x", Revision: 1, Encrypted: true},
		"20261121T120000Z-x-1.db.zst.age":           {Time: noon, Host: "x", Revision: 1, Compressed: true, Encrypted: true},
	} {
		if got, err := etcdbackup.ParseName(s); err != nil || got != want || got.String() != s {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", ".db", "x.db", "20261121T120000Z.db", "20261121T120000Z-42.db", "20261121T120000Z--42.db",
		"20261121T120000Z-cp1-042.db", "20261121T120000Z-cp1-+42.db", "20261121T120000Z-cp1--42", "20261121T120000Z-cp1-.db",
		"20261121T120000Z-cp1-9223372036854775808.db", "20261321T120000Z-cp1-42.db", "20261121T120000-cp1-42.db",
		"20261121T120000Z-x-1.db.age.zst", "20261121T120000Z-x-1.db.zst.zst", "20261121T120000Z-x-1.zst", "20261121T120000Z-x-1.files.tar.zst.age",
		"20261121T120000Z-a/b-42.db", "20261121T120000Z-é-42.db", "20261121T120000Z-cp1-42.db.part", "20261121T120000Z-cp1-42.db.json",
		"20261121T120000Z-" + strings.Repeat("x", 129) + "-1.db",
	} {
		if got, err := etcdbackup.ParseName(s); err == nil {
			t.Errorf("%q was parsed: %+v", s, got)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("20261121T120000Z-cp1-42.db", "cp1", int64(42), int64(0))
	f.Add("20261121T120000Z-a-b-0.db", "a-b/../c\x00é", int64(0), int64(1<<40))
	f.Fuzz(func(t *testing.T, s, host string, revision, unix int64) {
		if n, err := etcdbackup.ParseName(s); err == nil && n.String() != s {
			t.Errorf("%q was parsed, and is written %q", s, n)
		}
		in := etcdbackup.Name{Time: time.Unix(unix, 0).UTC(), Host: etcdbackup.HostInName(host), Revision: revision}
		if in.Host == "" || revision < 0 || in.Time.Year() < 0 || in.Time.Year() > 9999 {
			return
		}
		out, err := etcdbackup.ParseName(in.String())
		if err != nil || out != in {
			t.Errorf("%q came back as %+v, %v", in, out, err)
		}
		if len(etcdbackup.ManifestName(in.String())) > 255 || strings.ContainsAny(in.String(), "/\x00") {
			t.Errorf("%q is no file name", in)
		}
	})
}
