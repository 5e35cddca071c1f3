package etcdbackup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

const shareDir = "/mnt/share"

// newSpool is a spool with so many backups, an hour apart and the newest at noon, and an empty store.
func newSpool(t *testing.T, n int) (*host.Host, *file.Store, *file.Store, []time.Time) {
	t.Helper()
	h, spool := newStore(t)
	return h, spool, file.New(h, shareDir, "cp1"), hourly(t, spool, n)
}

func uploadRequest(last int) etcdbackup.UploadRequest {
	return etcdbackup.UploadRequest{Host: "cp1", Now: noon.Add(time.Hour), Retention: etcdbackup.Retention{KeepLast: last}}
}

func upload(t *testing.T, from etcdbackup.Local, to etcdbackup.Store, last int) (etcdbackup.UploadReport, error) {
	t.Helper()
	return etcdbackup.Upload(t.Context(), from, to, uploadRequest(last))
}

// recording writes down what is put and deleted.
type recording struct {
	etcdbackup.Store
	did *[]string
}

func (r recording) Put(ctx context.Context, name string, content *io.SectionReader) error {
	*r.did = append(*r.did, "put "+name)
	return r.Store.Put(ctx, name, content)
}

func (r recording) Delete(ctx context.Context, name string) error {
	*r.did = append(*r.did, "delete "+name)
	return r.Store.Delete(ctx, name)
}

// What waits goes to the store, the newest first and each manifest after its object, and the spool is
// empty; what retention does not keep then goes, and every backup that is there is whole.
func TestUpload(t *testing.T) {
	h, spool, store, times := newSpool(t, 3)
	var did []string
	seen := map[string]int64{}
	req := uploadRequest(2)
	req.Progress = func(object string, done, total int64) {
		if done < seen[object] || done > total {
			t.Errorf("%d of %d after %d", done, total, seen[object])
		}
		seen[object] = done
	}
	spooled := list(t, spool).Backups
	report, err := etcdbackup.Upload(t.Context(), spool, recording{store, &did}, req)
	if err != nil || len(report.Uploaded) != 3 || len(report.Removed) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	var want []string
	for _, m := range spooled {
		want = append(want, "put "+m.Object.Name, "put "+etcdbackup.ManifestName(m.Object.Name))
		if seen[m.Object.Name] != m.Object.Size {
			t.Errorf("of %s progress told %d bytes", m.Object.Name, seen[m.Object.Name])
		}
	}
	want = append(want, "delete "+etcdbackup.ManifestName(spooled[2].Object.Name), "delete "+spooled[2].Object.Name)
	if !slices.Equal(did, want) {
		t.Errorf("it did\n%s\nwant\n%s", strings.Join(did, "\n"), strings.Join(want, "\n"))
	}
	wantBackups(t, store, times[0], times[1])
	if left := files(t, h); len(left) != 0 {
		t.Errorf("the spool holds %q", left)
	}
	for _, m := range list(t, store).Backups {
		if _, err := etcdbackup.Verify(t.Context(), store, m.Object.Name, etcdbackup.Identities{}); err != nil {
			t.Error(err)
		}
	}
	did = nil
	if report, err := etcdbackup.Upload(t.Context(), spool, recording{store, &did}, req); err != nil || len(report.Uploaded) != 0 || len(did) != 0 {
		t.Errorf("with nothing to upload: %+v, %v, %q", report, err, did)
	}
}

// errKilled is what everything is from the one call on at which a process was killed.
var errKilled = errors.New("killed")

// mortal counts the calls that change something, of a spool and its store together.
type mortal struct {
	left int
	dead bool
}

func (m *mortal) lives() bool {
	if m.left--; m.left < 0 {
		m.dead = true
	}
	return !m.dead
}

type mortalStore struct {
	etcdbackup.Store
	of *mortal
}

func (s mortalStore) Put(ctx context.Context, name string, content *io.SectionReader) error {
	if !s.of.lives() {
		return errKilled
	}
	return s.Store.Put(ctx, name, content)
}

func (s mortalStore) Delete(ctx context.Context, name string) error {
	if !s.of.lives() {
		return errKilled
	}
	return s.Store.Delete(ctx, name)
}

func (s mortalStore) List(ctx context.Context) ([]etcdbackup.Object, error) {
	if s.of.dead {
		return nil, errKilled
	}
	return s.Store.List(ctx)
}

type mortalLocal struct {
	mortalStore
	local etcdbackup.Local
}

func (l mortalLocal) Room(ctx context.Context) (etcdbackup.Room, error) { return l.local.Room(ctx) }

func (l mortalLocal) Create(ctx context.Context, size int64) (etcdbackup.Draft, error) {
	return l.local.Create(ctx, size)
}

// An upload that ends after any of its changes has lost nothing: every backup is whole in the spool or
// in the store, nothing is listed that is not whole, and the next upload ends where one ends that
// nobody killed, down to the names of what is left.
func TestUploadKilledAnywhere(t *testing.T) {
	for n := 0; ; n++ {
		h, spool, store, times := newSpool(t, 3)
		all := list(t, spool).Backups
		life := &mortal{left: n}
		_, err := etcdbackup.Upload(t.Context(), mortalLocal{mortalStore{spool, life}, spool}, mortalStore{store, life}, uploadRequest(2))
		if (err == nil) == life.dead {
			t.Fatalf("killed at %d: %t, and %v", n, life.dead, err)
		}
		for i, m := range all {
			there := 0
			for _, s := range []etcdbackup.Local{spool, store} {
				if !slices.ContainsFunc(list(t, s).Backups, func(b etcdbackup.Manifest) bool { return b.Object.Name == m.Object.Name }) {
					continue
				}
				there++
				if _, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, etcdbackup.Identities{}); err != nil {
					t.Errorf("killed at %d: %v", n, err)
				}
			}
			if there == 0 && i < 2 {
				t.Errorf("killed at %d: %s is nowhere", n, m.Object.Name)
			}
		}
		if _, err := upload(t, spool, store, 2); err != nil {
			t.Fatalf("killed at %d, and again: %v", n, err)
		}
		wantBackups(t, store, times[0], times[1])
		if left := files(t, h); len(left) > 0 && !orphansOnly(left) {
			t.Errorf("killed at %d, and again: the spool holds %q", n, left)
		}
		if t.Failed() {
			return
		}
		if !life.dead {
			if n < 12 {
				t.Errorf("it was never killed after %d changes", n)
			}
			return
		}
	}
}

// orphansOnly says that no manifest is left: what has none goes with the next save, an hour later.
func orphansOnly(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".json") })
}

// What an upload that was killed has left of an object is replaced, whatever it is.
func TestUploadReplacesWhatIsHalf(t *testing.T) {
	_, spool, store, times := newSpool(t, 1)
	m := list(t, spool).Backups[0]
	if err := store.Put(t.Context(), m.Object.Name, section(bytes.Repeat([]byte{7}, int(m.Object.Size)))); err != nil {
		t.Fatal(err)
	}
	if _, err := upload(t, spool, store, 3); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, store, times...)
	if _, err := etcdbackup.Verify(t.Context(), store, m.Object.Name, etcdbackup.Identities{}); err != nil {
		t.Error(err)
	}
}

func section(data []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))
}

// An object that the disk of the host has damaged is never published, and not even put: it stays, it
// is told, and what else waits is uploaded.
func TestUploadOfDamaged(t *testing.T) {
	for name, damage := range map[string]func(data []byte) []byte{
		"flipped bit": func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
	} {
		t.Run(name, func(t *testing.T) {
			h, spool, store, times := newSpool(t, 2)
			m := list(t, spool).Backups[0]
			path := filepath.Join(dir, m.Object.Name)
			data, err := h.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.WriteFile(path, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			var did []string
			report, err := etcdbackup.Upload(t.Context(), spool, recording{store, &did}, uploadRequest(3))
			if !errors.Is(err, etcdbackup.ErrDamaged) || etcdbackup.UploadReason(err) != etcdbackup.UploadDamaged || !strings.Contains(err.Error(), m.Object.Name) {
				t.Errorf("%v", err)
			}
			if len(report.Uploaded) != 1 || slices.Contains(did, "put "+m.Object.Name) {
				t.Errorf("%+v, and it did %q", report, did)
			}
			wantBackups(t, store, times[1])
			wantBackups(t, spool, times[0])
		})
	}
}

// Retention counts the backups of the cluster, whichever host has made them. Another cluster's in the
// same store, and what nobody knows the cluster of, are neither counted nor removed.
func TestUploadPrunesTheCluster(t *testing.T) {
	h, spool := newStore(t)
	store := file.New(h, shareDir, "cp1")
	saved := func(at time.Time, hostname, cluster string) string {
		t.Helper()
		source := sends(genuine(t))
		source.cluster = cluster
		req := request(at)
		req.Host = hostname
		report, err := etcdbackup.Save(t.Context(), source, []etcdbackup.Local{spool}, req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := upload(t, spool, store, 2); err != nil {
			t.Fatal(err)
		}
		return report.Manifest.Object.Name
	}
	stay := []string{
		saved(noon.Add(-9*time.Hour), "cp1", "other"),
		saved(noon.Add(-8*time.Hour), "cp1", "other"),
		saved(noon.Add(-7*time.Hour), "cp9", ""),
	}
	gone := []string{saved(noon.Add(-6*time.Hour), "cp1", "ours"), saved(noon.Add(-5*time.Hour), "cp2", "ours")}
	stay = append(stay, saved(noon.Add(-4*time.Hour), "cp3", "ours"), saved(noon.Add(-3*time.Hour), "cp1", "ours"))
	have := map[string]bool{}
	for _, m := range list(t, store).Backups {
		have[m.Object.Name] = true
	}
	for _, name := range stay {
		if !have[name] {
			t.Errorf("%s is gone", name)
		}
	}
	for _, name := range gone {
		if have[name] {
			t.Errorf("%s is there", name)
		}
	}
}

// locking does not let anything be removed whose name holds a word.
type locking struct {
	etcdbackup.Store
	word string
}

func (l locking) Delete(ctx context.Context, name string) error {
	if strings.Contains(name, l.word) {
		return fmt.Errorf("delete %s: %w", name, etcdbackup.ErrLocked)
	}
	return l.Store.Delete(ctx, name)
}

// A backup that the store does not let be removed yet is no failure, and the others go.
func TestUploadToLockedStore(t *testing.T) {
	_, spool, store, times := newSpool(t, 4)
	locked := list(t, spool).Backups[3].Object.Name
	report, err := upload(t, spool, locking{store, locked}, 2)
	if err != nil || len(report.Removed) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	wantBackups(t, store, times[0], times[1], times[3])

	// What an upload has left that was killed is under lock: it does where it is whole.
	h, spool, store, times := newSpool(t, 1)
	m := list(t, spool).Backups[0]
	data, err := h.ReadFile(filepath.Join(dir, m.Object.Name))
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := store.Put(t.Context(), m.Object.Name, section(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := upload(t, spool, locking{store, ""}, 2); !errors.Is(err, etcdbackup.ErrLocked) {
		t.Errorf("half an object under lock: %v", err)
	}
	wantBackups(t, spool, times...)
	data[0] ^= 1
	if err := errors.Join(store.Delete(t.Context(), m.Object.Name), store.Put(t.Context(), m.Object.Name, section(data))); err != nil {
		t.Fatal(err)
	}
	if _, err := upload(t, spool, locking{store, ""}, 2); err != nil {
		t.Error(err)
	}
	wantBackups(t, store, times...)
}

// losing says that it has taken an object, and has not.
type losing struct{ etcdbackup.Store }

func (l losing) Put(ctx context.Context, name string, content *io.SectionReader) error {
	if !strings.HasSuffix(name, ".json") {
		return nil
	}
	return l.Store.Put(ctx, name, content)
}

// What the store does not have in the end has not left the spool, and is put the next time.
func TestUploadToStoreThatLoses(t *testing.T) {
	_, spool, store, times := newSpool(t, 2)
	if report, err := upload(t, spool, losing{store}, 3); err == nil || len(report.Uploaded) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	wantBackups(t, spool, times...)
	if _, err := upload(t, spool, store, 3); err != nil {
		t.Error(err)
	}
	wantBackups(t, store, times...)
	wantBackups(t, spool)
}

// Another backup that has the name, of another cluster's host of the same name, is not replaced, and
// ours is not taken for uploaded.
func TestUploadBesideItsName(t *testing.T) {
	h, spool := newStore(t)
	store := file.New(h, shareDir, "cp1")
	source := sends(genuine(t))
	source.cluster = "ours"
	report, err := etcdbackup.Save(t.Context(), source, []etcdbackup.Local{spool}, request(noon))
	if err != nil {
		t.Fatal(err)
	}
	name := etcdbackup.ManifestName(report.Manifest.Object.Name)
	data, err := h.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for what, theirs := range map[string][]byte{
		"another cluster's": bytes.Replace(data, []byte(`"ours"`), []byte(`"theirs"`), 1),
		"another object's":  bytes.ReplaceAll(data, []byte(report.Manifest.Object.SHA256), bytes.Repeat([]byte("ab"), 32)),
		"no manifest":       []byte("{"),
	} {
		if bytes.Equal(theirs, data) {
			t.Fatalf("%s is not another one: %s", what, data)
		}
		if err := errors.Join(store.Delete(t.Context(), name), store.Put(t.Context(), name, section(theirs))); err != nil {
			t.Fatal(err)
		}
		if _, err := upload(t, spool, store, 3); err == nil || !strings.Contains(err.Error(), "another backup of that name") {
			t.Errorf("%s: %v", what, err)
		}
		wantBackups(t, spool, noon)
		if have, err := store.List(t.Context()); err != nil || len(have) != 1 {
			t.Errorf("%s: %v, %v", what, have, err)
		}
	}
}

// fickle gives something else of an object once all of it has been read.
type fickle struct{ etcdbackup.Local }

func (f fickle) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := f.Local.Open(ctx, name)
	if err != nil || strings.HasSuffix(name, ".json") {
		return r, err
	}
	data, err := io.ReadAll(r)
	return &fickleObject{data: data, left: len(data)}, errors.Join(err, r.Close())
}

type fickleObject struct {
	data    []byte
	left    int
	changed bool
}

func (o *fickleObject) Read([]byte) (int, error) { return 0, io.EOF }
func (o *fickleObject) Close() error             { return nil }

func (o *fickleObject) ReadAt(p []byte, off int64) (int, error) {
	if o.left <= 0 && !o.changed {
		o.changed = true
		o.data[len(o.data)-1] ^= 1
	}
	n, err := bytes.NewReader(o.data).ReadAt(p, off)
	o.left -= n
	return n, err
}

// What the disk gives otherwise the second time, when it is uploaded, does not leave the host.
func TestUploadOfWhatChanges(t *testing.T) {
	_, spool, store, times := newSpool(t, 1)
	if _, err := etcdbackup.Upload(t.Context(), fickle{spool}, store, uploadRequest(3)); !errors.Is(err, etcdbackup.ErrDamaged) {
		t.Error(err)
	}
	if have, err := store.List(t.Context()); err != nil || len(have) != 0 {
		t.Errorf("in the store are %v, %v", have, err)
	}
	wantBackups(t, spool, times...)
}

// An orphan in a store that other clusters write to may be what a host of the same name uploads this
// moment, whose save was long ago: it goes a day after it was put.
func TestOrphansOfSharedStore(t *testing.T) {
	h, spool, store, _ := newSpool(t, 1)
	name := etcdbackup.Name{Time: noon.Add(-72 * time.Hour), Host: "cp1", Revision: 7}.String()
	if err := store.Put(t.Context(), name, section([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		t.Helper()
		there, err := h.Exists(filepath.Join(shareDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return there
	}
	req := pruneRequest(time.Now().Add(time.Hour), 3)
	req.Shared = true
	if _, err := etcdbackup.Prune(t.Context(), store, req); err != nil || !there() {
		t.Errorf("an hour after it was put: %t, %v", there(), err)
	}
	req.Now = time.Now().Add(25 * time.Hour)
	if _, err := etcdbackup.Prune(t.Context(), store, req); err != nil || there() {
		t.Errorf("a day after it was put: %t, %v", there(), err)
	}
	_ = spool
}

func TestUploadReason(t *testing.T) {
	for want, errs := range map[string][]error{
		etcdbackup.UploadDone:        {nil},
		etcdbackup.UploadTimeout:     {etcdbackup.ErrNoAnswer, context.DeadlineExceeded, syscall.ETIMEDOUT},
		etcdbackup.UploadNoStore:     {etcdbackup.ErrNoStore, syscall.ESTALE},
		etcdbackup.UploadDenied:      {etcdbackup.ErrDenied, fs.ErrPermission, syscall.EROFS, syscall.EACCES},
		etcdbackup.UploadFull:        {etcdbackup.ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT},
		etcdbackup.UploadRefused:     {syscall.ECONNREFUSED, syscall.EHOSTUNREACH},
		etcdbackup.UploadDamaged:     {etcdbackup.ErrDamaged},
		etcdbackup.UploadInterrupted: {context.Canceled},
		etcdbackup.UploadError:       {errors.New("x")},
	} {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("upload: %w", err)
			}
			if got := etcdbackup.UploadReason(err); got != want || !slices.Contains(etcdbackup.UploadReasons(), got) {
				t.Errorf("%v is %q, want %q", err, got, want)
			}
		}
	}
}
