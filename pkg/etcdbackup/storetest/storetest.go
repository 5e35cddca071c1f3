// Package storetest is the contract that every etcdbackup.Store keeps, as a test.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// Run tests the store that newStore makes, a new and empty one each time.
func Run(t *testing.T, newStore func(*testing.T) etcdbackup.Store) {
	for name, test := range map[string]func(*testing.T, etcdbackup.Store){
		"empty":         empty,
		"round trip":    roundTrip,
		"abort":         abort,
		"name taken":    nameTaken,
		"two drafts":    twoDrafts,
		"delete":        remove,
		"hostile names": hostileNames,
		"no space":      noSpace,
		"cancelled":     cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, newStore(t)) })
	}
}

func empty(t *testing.T, s etcdbackup.Store) {
	if s.String() == "" {
		t.Error("it does not say where it is")
	}
	wantObjects(t, s)
	if _, err := s.Open(t.Context(), "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open what is not there: %v, want fs.ErrNotExist", err)
	}
	if err := s.Delete(t.Context(), "absent"); err != nil {
		t.Errorf("delete what is not there: %v", err)
	}
}

func roundTrip(t *testing.T, s etcdbackup.Store) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB
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

func abort(t *testing.T, s etcdbackup.Store) {
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

func nameTaken(t *testing.T, s etcdbackup.Store) {
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

// pathOf is the local file of a draft, "" where it has none.
func pathOf(d etcdbackup.Draft) string {
	if d.File() == nil {
		return ""
	}
	return d.File().Name()
}

func twoDrafts(t *testing.T, s etcdbackup.Store) {
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

func remove(t *testing.T, s etcdbackup.Store) {
	put(t, s, "a", "x")
	put(t, s, "a.json", "y")
	for range 2 {
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	wantObjects(t, s, etcdbackup.Object{Name: "a.json", Size: 1})
}

func hostileNames(t *testing.T, s etcdbackup.Store) {
	put(t, s, "a", "x")
	for _, name := range []string{"", ".", "..", "../a", "/a", "b/../a", "b/a", ".hidden", "a\x00"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			d := create(t, s)
			if err := d.Commit(t.Context(), name); err == nil {
				t.Error("commit succeeded")
			}
			if r, err := s.Open(t.Context(), name); err == nil {
				t.Error("open succeeded", r.Close())
			}
			if err := s.Delete(t.Context(), name); err == nil {
				t.Error("delete succeeded")
			}
		})
	}
	wantObjects(t, s, etcdbackup.Object{Name: "a", Size: 1})
}

func noSpace(t *testing.T, s etcdbackup.Store) {
	if d, err := s.Create(t.Context(), 1<<60); !errors.Is(err, etcdbackup.ErrNoSpace) {
		t.Errorf("create an object of an exabyte: %v, %v, want ErrNoSpace", d, err)
	}
	wantObjects(t, s)
}

func cancelled(t *testing.T, s etcdbackup.Store) {
	put(t, s, "a", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Create(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if _, err := s.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.Open(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	if err := s.Delete(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("delete: %v", err)
	}
	wantObjects(t, s, etcdbackup.Object{Name: "a", Size: 1})
}

func create(t *testing.T, s etcdbackup.Store) etcdbackup.Draft {
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

func commit(t *testing.T, s etcdbackup.Store, d etcdbackup.Draft, name string) {
	t.Helper()
	if err := d.Commit(t.Context(), name); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

func put(t *testing.T, s etcdbackup.Store, name, content string) {
	t.Helper()
	d := create(t, s)
	write(t, d, []byte(content))
	commit(t, s, d, name)
}

func read(t *testing.T, s etcdbackup.Store, name string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// wantObjects compares what is listed, in any order.
func wantObjects(t *testing.T, s etcdbackup.Store, want ...etcdbackup.Object) {
	t.Helper()
	objects, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, expected := map[string]int64{}, map[string]int64{}
	for _, o := range objects {
		got[o.Name] = o.Size
	}
	for _, o := range want {
		expected[o.Name] = o.Size
	}
	if diff := cmp.Diff(expected, got); diff != "" || len(objects) != len(want) {
		t.Errorf("listed, -want +got\n%s", diff)
	}
}
