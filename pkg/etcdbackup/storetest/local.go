package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// RunLocal tests the store on this host that newStore makes, a new and empty one each time: all
// that Run does, and its drafts.
func RunLocal(t *testing.T, newStore func(*testing.T) etcdbackup.Local) {
	Run(t, func(t *testing.T) etcdbackup.Store { return newStore(t) })
	for name, test := range map[string]func(*testing.T, etcdbackup.Local){
		"draft":                    draft,
		"abort":                    abort,
		"draft, name taken":        draftNameTaken,
		"two drafts":               twoDrafts,
		"draft with hostile names": draftHostileNames,
		"no space":                 noSpace,
		"draft, cancelled":         draftCancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

func draft(t *testing.T, s etcdbackup.Local) {
	content := twoMiB()
	d := create(t, s)
	for _, part := range [][]byte{content[:1], content[1:70000], content[70000:]} {
		write(t, d, part)
	}
	wantObjects(t, s)
	if f := d.File(); f != nil {
		onDisk := make([]byte, len(content)+1)
		if n, err := f.ReadAt(onDisk, 0); !errors.Is(err, io.EOF) || !bytes.Equal(onDisk[:n], content) {
			t.Errorf("the draft's file holds %d bytes, error %v, want the %d written", n, err, len(content))
		}
	}
	commit(t, s, d, "a.db")
	if err := d.Abort(); err != nil {
		t.Errorf("abort after commit: %v", err)
	}
	if err := d.Commit(t.Context(), "b.db"); err == nil {
		t.Error("a draft was committed twice")
	}
	wantObjects(t, s, etcdbackup.Object{Name: "a.db", Size: int64(len(content))})
	if got := read(t, s, "a.db"); !bytes.Equal(got, content) {
		t.Errorf("read back %d bytes, which are not the %d written", len(got), len(content))
	}
}

func abort(t *testing.T, s etcdbackup.Local) {
	d := create(t, s)
	write(t, d, []byte("half of it"))
	path := pathOf(d)
	for range 2 {
		if err := d.Abort(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); path != "" && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after abort the draft's file is still there: %v", err)
	}
	if err := d.Commit(t.Context(), "a"); err == nil {
		t.Error("commit after abort succeeded")
	}
	wantObjects(t, s)
}

// pathOf is the local file of a draft, "" where it has none.
func pathOf(d etcdbackup.Draft) string {
	if d.File() == nil {
		return ""
	}
	return d.File().Name()
}

func twoDrafts(t *testing.T, s etcdbackup.Local) {
	a, b := create(t, s), create(t, s)
	write(t, a, []byte("of a"))
	write(t, b, []byte("of b, longer"))
	commit(t, s, b, "b")
	commit(t, s, a, "a")
	if got := read(t, s, "a"); string(got) != "of a" {
		t.Errorf("a is %q", got)
	}
	wantObjects(t, s, etcdbackup.Object{Name: "a", Size: 4}, etcdbackup.Object{Name: "b", Size: 12})
}

func noSpace(t *testing.T, s etcdbackup.Local) {
	if d, err := s.Create(t.Context(), 1<<60); !errors.Is(err, etcdbackup.ErrNoSpace) {
		t.Errorf("create an object of an exabyte: %v, %v, want ErrNoSpace", d, err)
	}
	wantObjects(t, s)
}

func create(t *testing.T, s etcdbackup.Local) etcdbackup.Draft {
	t.Helper()
	d, err := s.Create(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Abort(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func write(t *testing.T, d etcdbackup.Draft, p []byte) {
	t.Helper()
	if n, err := d.Write(p); err != nil || n != len(p) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(p), err)
	}
}

func commit(t *testing.T, s etcdbackup.Local, d etcdbackup.Draft, name string) {
	t.Helper()
	if err := d.Commit(t.Context(), name); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

func draftNameTaken(t *testing.T, s etcdbackup.Local) {
	put(t, s, "a", "first")
	d := create(t, s)
	write(t, d, []byte("second"))
	if err := d.Commit(t.Context(), "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("commit to a taken name: %v, want fs.ErrExist", err)
	}
	if got := read(t, s, "a"); string(got) != "first" {
		t.Errorf("the object is now %q", got)
	}
	if path := pathOf(d); path != "" {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after a failed commit the draft's file is still there: %v", err)
		}
	}
}

func draftHostileNames(t *testing.T, s etcdbackup.Local) {
	for _, name := range hostile {
		d := create(t, s)
		if err := d.Commit(t.Context(), name); err == nil {
			t.Errorf("commit of %q succeeded", name)
		}
	}
	wantObjects(t, s)
}

func draftCancelled(t *testing.T, s etcdbackup.Local) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Create(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	wantObjects(t, s)
}
