package etcdbackup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// What others have put into a store, by names of every kind that a backup has, is not taken for a
// backup or a part of one, is reported, and survives saves and retention, however old it is.
func TestForeignNames(t *testing.T) {
	recipient, key := pair(t, false)
	h, s := newStore(t)
	if err := h.WriteFile("/etc/kubernetes/pki/ca.key", []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	collected, err := etcdbackup.CollectFiles(h, []string{"/etc/kubernetes/pki"})
	if err != nil {
		t.Fatal(err)
	}
	req := request(noon)
	req.Retention.KeepLast, req.Compress, req.Recipients, req.Files = 1, true, recipients(t, recipient), collected
	save := func(now time.Time) etcdbackup.Manifest {
		t.Helper()
		req.Now = now
		report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req)
		if err != nil {
			t.Fatal(err)
		}
		return report.Manifest
	}
	m := save(noon)
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	const old = "20200101T000000Z-cp1-7"
	later := bytes.Replace(manifest, []byte(`"version":1`), []byte(`"version":2`), 1)
	foreign := map[string][]byte{
		// A backup of a later version, and what belongs to it.
		old + ".db.zst.age": []byte("x"), old + ".db.zst.age.json": later, old + ".files.tar.zst.age": []byte("x"),
		old + ".db.zst.age.proof-20200101T000000Z.json": []byte(`{"version": 9}`),
		// Not as they are written.
		old + ".db.age.zst": nil, old + ".db.zst.age.age": nil, old + ".db.ZST.age": nil, old + ".db.gz": nil,
		old + ".files.tar": nil, old + ".files.tar.zst": nil, old + ".files.tar.age": nil, old + ".files.tar.zst.age.json": manifest,
		old + ".db.zst.age.proof-.json": nil, old + ".db.proof-20200101T000000Z": nil, old + ".db.proof-20201301T000000Z.json": nil,
		"20200101T000000Z--7.db.zst.age": nil, "20200101T000000Z-cp1-07.db.zst.age": nil, "20200101T000000Z-cp1-7x.files.tar.zst.age": nil,
		"20200101T000000Z-ä-7.db.zst": nil, "20200101T000000Z-a\nb-7.db.zst.age": nil, "-rf.db.zst.age": nil,
		strings.Repeat("a", 180) + ".files.tar.zst": nil,
	}
	for name, data := range foreign {
		if err := h.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	last := save(noon.Add(48 * time.Hour))
	c := list(t, s)
	if len(c.Backups) != 1 || c.Backups[0].Object.Name != last.Object.Name {
		t.Errorf("listed %+v, want %s", c.Backups, last.Object.Name)
	}
	wantVerified(t, s, last, key, true)
	there := files(t, h)
	for name := range foreign {
		if !slices.Contains(there, name) {
			t.Errorf("%q is gone", name)
		}
		// Of a backup of a later version one line, that of its manifest, is enough.
		if !slices.ContainsFunc(c.Ignored, func(i etcdbackup.Ignored) bool { return i.Name == name }) && !strings.HasPrefix(name, old+".") {
			t.Errorf("%q is not reported", name)
		}
	}
	if got := len(there) - len(foreign); got != 3 {
		t.Errorf("of this host there are %d files, want 3: %q", got, there)
	}
}

// A clock that was a year ahead for a while, and one that was a year behind: what was saved then
// takes the place of nothing that was saved by the right time, and what is saved next stays.
func TestClockJumps(t *testing.T) {
	at := func(hour int) time.Time { return noon.Add(time.Duration(hour) * time.Hour) }
	const year = 365 * 24
	for name, away := range map[string]int{"ahead": year, "behind": -year} {
		t.Run(name, func(t *testing.T) {
			_, s := newStore(t)
			right := []time.Time{at(2), at(1), at(0)}
			for _, now := range slices.Backward(right) {
				save(t, s, now)
			}
			wrong := []time.Time{at(away + 1), at(away)}
			save(t, s, wrong[1])
			if got, _ := list(t, s).Newest(wrong[1]); !got.Time.Equal(wrong[1]) {
				t.Errorf("by the wrong clock the newest is of %s", got.Time)
			}
			if away < 0 {
				save(t, s, wrong[0])
				wantBackups(t, s, append(slices.Clone(right), wrong...)...)
			}
			save(t, s, at(3))
			c := list(t, s)
			if got, _ := c.Newest(at(3)); !got.Time.Equal(at(3)) {
				t.Errorf("afterwards the newest is of %s", got.Time)
			}
			for _, want := range []time.Time{at(3), at(2), at(1)} {
				if away < 0 && !slices.ContainsFunc(c.Backups, func(m etcdbackup.Manifest) bool { return m.Time.Equal(want) }) {
					t.Errorf("the backup of %s is gone; there are %+v", want, c.Backups)
				}
			}
		})
	}
}

// The newest backup of a host stays where another host's comes before it: that may be another
// cluster's.
func TestNewestOfOwnStays(t *testing.T) {
	h, s := newStore(t)
	other := request(noon.Add(time.Second))
	other.Host = "cp2"
	first := save(t, s, noon)
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{file.New(h, dir, "cp2")}, other); err != nil {
		t.Fatal(err)
	}
	full := request(noon.Add(2 * time.Minute))
	tight := fakeSource{size: 1 << 20, stream: sends(genuine(t)).stream}
	if _, err := etcdbackup.Save(t.Context(), tight, []etcdbackup.Local{roomless{s}}, full); !errors.Is(err, etcdbackup.ErrNoSpace) {
		t.Errorf("without room: %v", err)
	}
	over := request(noon.Add(time.Second))
	over.MaxDiskPercent = 1
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{sized{s, first.Object.Size * 20}}, over); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, s, noon.Add(time.Second), noon.Add(time.Second))
}

// roomless lacks a byte of what a save needs, if all of its backups but one go.
type roomless struct{ *file.Store }

func (s roomless) Room(ctx context.Context) (etcdbackup.Room, error) {
	c, err := etcdbackup.List(ctx, s.Store)
	if err != nil {
		return etcdbackup.Room{}, err
	}
	return etcdbackup.Room{Size: 1 << 40, Free: 1<<20 + 64<<20 - c.Backups[len(c.Backups)-1].Object.Size}, nil
}

// An object of this very name that somebody else has put there in the meantime is theirs: the save
// fails, and removes nothing but its own.
func TestNameTakenMeanwhile(t *testing.T) {
	recipient, _ := pair(t, false)
	for taken, ending := range map[string]string{"files": ".files.tar.zst.age", "object": ".db.age", "manifest": ".json"} {
		t.Run(taken, func(t *testing.T) {
			h, s := newStore(t)
			req := request(noon)
			req.Recipients, req.Files = recipients(t, recipient), []etcdbackup.File{{Path: "/etc/kubernetes/pki/ca.key", Mode: 0o600, Data: []byte("key")}}
			theirs := ""
			rival := rivalled{Store: s, commit: func(name string) {
				if strings.HasSuffix(name, ending) {
					theirs = filepath.Join(dir, name)
					if err := h.WriteFile(theirs, []byte("theirs"), 0o600); err != nil {
						t.Error(err)
					}
				}
			}}
			report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{rival}, req)
			if !errors.Is(err, fs.ErrExist) || report.Saved() {
				t.Errorf("%+v, %v, want fs.ErrExist", report, err)
			}
			if data, err := h.ReadFile(theirs); err != nil || string(data) != "theirs" {
				t.Errorf("theirs is %q, %v", data, err)
			}
			if got := files(t, h); len(got) != 1 {
				t.Errorf("the store holds %q", got)
			}
		})
	}
}

// rivalled is told of each name before it is committed.
type rivalled struct {
	*file.Store
	commit func(name string)
}

func (s rivalled) Create(ctx context.Context, size int64) (etcdbackup.Draft, error) {
	d, err := s.Store.Create(ctx, size)
	return rivalledDraft{d, s.commit}, err
}

func (s rivalled) Put(ctx context.Context, name string, content *io.SectionReader) error {
	s.commit(name)
	return s.Store.Put(ctx, name, content)
}

type rivalledDraft struct {
	etcdbackup.Draft
	commit func(string)
}

func (d rivalledDraft) Commit(ctx context.Context, name string) error {
	d.commit(name)
	return d.Draft.Commit(ctx, name)
}

// The reserve is left alone by the file that the snapshot is verified in, too: it grows by all of
// what comes while of an object that is compressed nearly nothing does.
func TestReserveWhileStreaming(t *testing.T) {
	h, s := newStore(t)
	left := 3
	req := request(noon)
	req.Compress = true
	zeros := fakeSource{stream: sends(make([]byte, 200<<20)).stream}
	report, err := etcdbackup.Save(t.Context(), zeros, []etcdbackup.Local{eaten{s, &left}}, req)
	if !errors.Is(err, etcdbackup.ErrNoSpace) || report.Saved() {
		t.Errorf("%+v, %v, want ErrNoSpace", report, err)
	}
	if got := files(t, h); len(got) != 0 {
		t.Errorf("left %q", got)
	}
}

// eaten has room for so many looks.
type eaten struct {
	*file.Store
	left *int
}

func (s eaten) Room(context.Context) (etcdbackup.Room, error) {
	*s.left--
	return etcdbackup.Room{Size: 1 << 40, Free: int64(*s.left) << 30}, nil
}
