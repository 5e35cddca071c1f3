// Package storetest is the contract that every etcdbackup.Store keeps, as a test.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// Run tests the store that newStore makes, a new and empty one each time.
func Run(t *testing.T, newStore func(*testing.T) etcdbackup.Store) {
	for name, test := range map[string]func(*testing.T, etcdbackup.Store){
		"empty":         empty,
		"round trip":    roundTrip,
		"name taken":    nameTaken,
		"delete":        remove,
		"hostile names": hostileNames,
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

func twoMiB() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 1<<17) }

func roundTrip(t *testing.T, s etcdbackup.Store) {
	content := twoMiB()
	r := bytes.NewReader(content)
	all := io.NewSectionReader(r, 0, r.Size())
	if _, err := all.Seek(70000, io.SeekStart); err != nil { // where it stands is nothing to Put
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a.db", all); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	put(t, s, "empty", "")
	wantObjects(t, s, etcdbackup.Object{Name: "a.db", Size: int64(len(content))}, etcdbackup.Object{Name: "empty"})
	if got := read(t, s, "a.db"); !bytes.Equal(got, content) {
		t.Errorf("read back %d bytes, which are not the %d written", len(got), len(content))
	}
	if got := read(t, s, "empty"); len(got) != 0 {
		t.Errorf("read %d bytes of an empty object", len(got))
	}
}

func nameTaken(t *testing.T, s etcdbackup.Store) {
	put(t, s, "a", "first")
	if err := s.Put(t.Context(), "a", section("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put to a taken name: %v, want fs.ErrExist", err)
	}
	if got := read(t, s, "a"); string(got) != "first" {
		t.Errorf("the object is now %q", got)
	}
	wantObjects(t, s, etcdbackup.Object{Name: "a", Size: 5})
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

// hostile are names that a store refuses.
var hostile = []string{"", ".", "..", "../a", "/a", "b/../a", "b/a", ".hidden", "a\x00"}

func hostileNames(t *testing.T, s etcdbackup.Store) {
	put(t, s, "a", "x")
	for _, name := range hostile {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			if err := s.Put(t.Context(), name, section("y")); err == nil {
				t.Error("put succeeded")
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

func cancelled(t *testing.T, s etcdbackup.Store) {
	put(t, s, "a", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "b", section("y")); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
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

func put(t *testing.T, s etcdbackup.Store, name, content string) {
	t.Helper()
	if err := s.Put(t.Context(), name, section(content)); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

func section(content string) *io.SectionReader {
	return io.NewSectionReader(strings.NewReader(content), 0, int64(len(content)))
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
