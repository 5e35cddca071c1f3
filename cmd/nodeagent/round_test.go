package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

func TestRound(t *testing.T) {
	hour := func(n int) time.Time { return time.Date(2026, 1, 1, n, 0, 0, 0, time.UTC) }
	next := func(last time.Time) time.Time { return last.Add(6 * time.Hour) }
	var r round
	if r.goesOn(hour(0), next) {
		t.Error("nothing has been saved, and it goes on")
	}
	r.add(hour(0), []etcdbackup.StoreReport{{Store: "good", Saved: true}, {Store: "broken", Err: errors.New("is full")}})
	unpruned := errors.New("not pruned")
	r.add(hour(1), []etcdbackup.StoreReport{{Store: "late", Saved: true, Err: unpruned}})
	if !r.since.Equal(hour(0)) || len(r.saved) != 2 {
		t.Errorf("%+v", r)
	}
	if err := r.err(); !errors.Is(err, unpruned) {
		t.Errorf("what went wrong beside it: %v", err)
	}
	for now, want := range map[time.Time]bool{hour(0): true, hour(5): true, hour(6): false, hour(-1): false} {
		if got := r.goesOn(now, next); got != want {
			t.Errorf("at %s: goes on %v", now, got)
		}
	}
}

// A job that failed for one store is tried again for hours, and a daemon may be started again and again: the
// other store's history is not turned over by that.
func TestRetryLeavesTheOthers(t *testing.T) {
	h := scratch(t, `
role: control-plane
metrics: {listen: "127.0.0.1:0"}
backup:
  interval: 6h
  retention: {keepLast: 2}
  stores: [{file: {dir: /good}}, {file: {dir: /mnt/share, shared: true, allowPlaintext: true}}, {file: {dir: /broken}}]
`)
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	broken := filepath.Join(h.Root, "broken")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	names := func(dir string) (names []string) {
		t.Helper()
		c, err := etcdbackup.List(t.Context(), file.New(h, dir, "node-1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Backups {
			names = append(names, b.Object.Name)
		}
		return names
	}
	p := start(t, h)
	until(t, "the first save", func() bool {
		return strings.Contains(p.output(), `job=snapshot`) && strings.Contains(p.output(), "job failed")
	})
	until(t, "its upload", func() bool { return len(names("/mnt/share")) == 1 })
	p.waitPage(t, "/metrics", `nodeagent_etcd_snapshots{store="file /mnt/share"} 1`)
	p.stop(t)
	was := names("/good")
	for range 2 {
		p := start(t, h)
		until(t, "the next try", func() bool { return strings.Contains(p.output(), "job failed") })
		p.stop(t)
		if strings.Contains(p.output(), "snapshot saved") {
			t.Errorf("a further try has saved to a store that had its backup: %s", p.output())
		}
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	p = start(t, h)
	until(t, "the store that was broken to have its backup", func() bool { return strings.Contains(p.output(), "snapshot saved") })
	p.stop(t)
	if good, share, late := names("/good"), names("/mnt/share"), names("/broken"); len(was) != 1 || !slices.Equal(good, was) || !slices.Equal(share, was) || len(late) != 1 {
		t.Errorf("first %q; then %q, %q and in the one that was broken %q", was, good, share, late)
	}
}
