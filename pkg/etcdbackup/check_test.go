package etcdbackup_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func checkBytes(t *testing.T, data []byte) (etcdbackup.Verdict, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return (etcdbackup.Verifier{}).CheckFile(t.Context(), path)
}

// Each version's snapshot is one, and the same without its last 32 bytes is told from a file
// that never had them.
func TestCheckEveryVersion(t *testing.T) {
	for _, path := range recorded(t) {
		data := unpack(t, path)
		v, err := checkBytes(t, data)
		if err != nil || v.Kind != etcdbackup.KindSnapshot || v.Size != int64(len(data)) || len(v.SHA256) != 64 || v.KVHash == 0 {
			t.Errorf("%s: %+v, %v", path, v, err)
		}
		if v, err := checkBytes(t, data[:len(data)-32]); !errors.Is(err, etcdbackup.ErrTrailer) || !strings.Contains(err.Error(), "that was cut off") {
			t.Errorf("%s without its hash: %+v, %v", path, v, err)
		}
	}
}

// gardener/etcd-backup-restore#778, #749, #45 and etcd#18340: snapshots that were damaged, or
// lacked their hash, passed for good until somebody restored them. rancher#25887 wants a check
// that finds what is empty or corrupt.
func TestBadFilesAreNamed(t *testing.T) {
	data := genuine(t)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data    []byte
		trailer bool
		want    string
	}{
		"the hash cut off":       {data[:len(data)-32], true, "that was cut off, the file ends with its database"},
		"half of the hash":       {data[:len(data)-16], true, "that was cut off"},
		"one byte changed":       {changed(data, len(data)/2), true, "does not match the sha256 at its end"},
		"one bit of the hash":    {changed(data, len(data)-1), true, "does not match the sha256 at its end"},
		"truncated":              {data[:len(data)/2+7], true, "it was cut off, its database alone has"},
		"truncated, whole pages": {data[:len(data)/8192*4096], true, "it was cut off, its database alone has"},
		"empty":                  {nil, true, "it is empty"},
		"too short for anything": {data[:20], true, "no database"},
		"two snapshots":          {append(bytes.Clone(data), data...), true, "does not match"},
		"a page of text":         {[]byte("<html>502 Bad Gateway</html>"), true, "it is no database of bbolt"},
		"a broken database":      {withTrailer(append(bytes.Clone(data[:8192]), make([]byte, len(data)-8192-32)...)), false, "page"},
		"compressed":             {zipped.Bytes(), false, "it is compressed by gzip: unpack it first"},
		"compressed by zstd":     {[]byte("\x28\xb5\x2f\xfd and so on"), false, "it is compressed by zstd"},
		"encrypted":              {[]byte("age-encryption.org/v1\n-> X25519 "), false, "it is encrypted by age"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := checkBytes(t, tt.data)
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, etcdbackup.ErrTrailer) != tt.trailer {
				t.Errorf("%+v, %v, want %q", v, err, tt.want)
			}
		})
	}
}

func changed(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 0x10
	return out
}

// A copy of a member's own database has no hash: it is looked through and named as what it is.
func TestDatabaseFile(t *testing.T) {
	data := t.TempDir()
	member, err := etcdtest.Start(host.New(t.TempDir()), data)
	if err == nil {
		err = member.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	database, err := os.ReadFile(filepath.Join(data, "member/snap/db"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := checkBytes(t, database)
	if err != nil || v.Kind != etcdbackup.KindDatabase || v.Revision != 1 || v.Size != int64(len(database)) {
		t.Fatalf("%+v, %v", v, err)
	}
	broken := bytes.Clone(database)
	for at := 2 * 4096; at < len(broken); at += 4096 {
		broken[at] ^= 0xff // every page says it is another
	}
	if v, err := checkBytes(t, broken); err == nil || errors.Is(err, etcdbackup.ErrTrailer) {
		t.Errorf("broken: %+v, %v", v, err)
	}
	if v, err := checkBytes(t, database[:8192]); !errors.Is(err, etcdbackup.ErrTrailer) {
		t.Errorf("cut off: %+v, %v", v, err)
	}
}

// A server that stops may leave a database that looks just like a snapshot without its hash. In
// doubt it is not passed, unless it lies where a data directory has it.
func TestDatabaseOfStoppedServer(t *testing.T) {
	doubts := 0
	for i := range 2 { // of two transactions that change nothing, one leaves it so
		path := filepath.Join(t.TempDir(), "db")
		data := writeDatabase(t, path, 4, false)
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		for range i + 1 {
			err = errors.Join(err, db.Update(func(*bbolt.Tx) error { return nil }))
		}
		if err := errors.Join(err, db.Close(), os.Truncate(path, int64(len(data)))); err != nil {
			t.Fatal(err)
		}
		inside := filepath.Join(t.TempDir(), "snap", "db")
		if err := errors.Join(os.Mkdir(filepath.Dir(inside), 0o700), os.Link(path, inside)); err != nil {
			t.Fatal(err)
		}
		v, err := (etcdbackup.Verifier{}).CheckFile(t.Context(), inside)
		if err != nil || v.Kind != etcdbackup.KindDatabase {
			t.Errorf("in its place: %+v, %v", v, err)
		}
		v, err = etcdbackup.Verifier{}.CheckFile(t.Context(), path)
		switch {
		case err != nil && strings.Contains(err.Error(), "name it snap/db"):
			doubts++
		case err != nil || v.Kind != etcdbackup.KindDatabase:
			t.Errorf("elsewhere: %+v, %v", v, err)
		}
	}
	if doubts != 1 {
		t.Errorf("%d of the two were in doubt, want one", doubts)
	}
}

func TestCheckProgress(t *testing.T) {
	data := genuine(t)
	f := unlinked(t, data)
	var last, total int64
	v, err := etcdbackup.Check(t.Context(), f, func(read, of int64) {
		if read < last {
			t.Errorf("%d bytes after %d", read, last)
		}
		last, total = read, of
	})
	if err != nil || last != int64(len(data)) || total != last || v.Size != last {
		t.Errorf("%d of %d bytes: %+v, %v", last, total, v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := etcdbackup.Check(ctx, f, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	growing := func(int64, int64) {
		if _, err := f.WriteAt([]byte("more"), int64(len(data))); err != nil {
			t.Error(err)
		}
	}
	if _, err := etcdbackup.Check(t.Context(), f, growing); err == nil || !strings.Contains(err.Error(), "was written to") {
		t.Errorf("error %v, want one that says it was written to", err)
	}
}

func TestCheckNoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{pipe: "no regular file", t.TempDir(): "no regular file", "/nonexistent/db": "no such file"} {
		if _, err := (etcdbackup.Verifier{}).CheckFile(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// Whatever way it is stored, a backup that is read back is looked through as a file is; an object
// that was exchanged for another good snapshot is not the one that its manifest promises.
func TestVerifyLooksInside(t *testing.T) {
	for name, compress := range map[string]bool{"plain": false, "compressed": true} {
		t.Run(name, func(t *testing.T) {
			h, s := newStore(t)
			req := request(noon)
			req.Compress = compress
			report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req)
			if err != nil {
				t.Fatal(err)
			}
			m, read := report.Manifest, int64(0)
			v := etcdbackup.Verifier{Scratch: s.Scratch, Progress: func(done, _ int64) { read = done }}
			got, err := v.Verify(t.Context(), s, m.Object.Name)
			if err != nil || !got.Opened || got.Verdict.Keys != m.Snapshot.Keys || got.Verdict.KVHash == 0 || read != m.Snapshot.Size {
				t.Errorf("%+v, %v, %d bytes read", got, err, read)
			}
			other := withTrailer(writeDatabase(t, filepath.Join(t.TempDir(), "db"), 1, false))
			if err := h.WriteFile(filepath.Join(dir, m.Object.Name), other, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), s, m.Object.Name); err == nil || !strings.Contains(err.Error(), "of its manifest") {
				t.Errorf("error %v, want one that says it is not what the manifest says", err)
			}
		})
	}
}

// A backup that was copied elsewhere is held against the manifest that came along.
func TestFileWithManifest(t *testing.T) {
	h, s := newStore(t)
	m := save(t, s, noon)
	path := filepath.Join(h.Root, dir, m.Object.Name)
	if v, err := (etcdbackup.Verifier{}).CheckFile(t.Context(), path); err != nil || !v.Manifest {
		t.Errorf("%+v, %v", v, err)
	}
	for manifest, want := range map[string]string{
		`{"version": 1}`:  "its manifest: ",
		`{"version": 99}`: "later version",
		strings.ReplaceAll(encoded(t, m), m.Object.SHA256, strings.Repeat("0", 64)): "of its manifest",
	} {
		if err := os.WriteFile(path+".json", []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (etcdbackup.Verifier{}).CheckFile(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := os.Remove(path + ".json"); err != nil {
		t.Fatal(err)
	}
	if v, err := (etcdbackup.Verifier{}).CheckFile(t.Context(), path); err != nil || v.Manifest {
		t.Errorf("%+v, %v", v, err)
	}
}

func encoded(t *testing.T, m etcdbackup.Manifest) string {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
