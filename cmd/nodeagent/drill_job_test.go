package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// hasBackup puts one into a directory, encrypted, which is not opened on a host without the identity.
func hasBackup(t *testing.T, h *host.Host, dir string) {
	t.Helper()
	data, err := os.ReadFile("../../pkg/etcdbackup/testdata/manifest-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer("20261121T", "20200101T", "2026-11-21T", "2020-01-01T").Replace(string(data))
	const name = "20200101T120000Z-cp1-42"
	write(t, h, dir+"/"+name+".db.zst.age", strings.Repeat("x", 2000))
	write(t, h, dir+"/"+name+".files.tar.zst.age", strings.Repeat("x", 900))
	write(t, h, dir+"/"+name+".db.zst.age.json", manifest)
}

// A store whose first backup comes after a drill has its own drill soon, and not when the schedule
// has the next one; until then nothing is drilled again and again.
func TestDrillAwaitsTheFirstBackup(t *testing.T) {
	m := liveMachine(t, "127.0.0.1:1")
	m.cfg.Backup.Stores = []etcdbackup.StoreConfig{
		{File: &etcdbackup.FileConfig{Dir: "/var/lib/nodeagent/backups"}},
		{File: &etcdbackup.FileConfig{Dir: "/mnt/share", Shared: true, AllowPlaintext: true}},
	}
	m.remotes = m.newRemotes()
	write(t, m.host, "/proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 16000000 kB\n")
	m.unit = func(context.Context, string) (systemd.State, error) {
		return systemd.State{ActiveState: "inactive"}, nil
	}
	runs := 0
	m.transient = func(context.Context, systemd.Transient) (systemd.Result, error) {
		runs++
		return systemd.Result{Result: "success"}, nil
	}
	s, _ := liveSession(t, m)
	s.app = &app{}
	drills := func(want int, waits bool) {
		t.Helper()
		err := s.drill(t.Context())
		if runs != want || errors.Is(err, agent.ErrNothingToDo) != waits || err != nil && !waits {
			t.Fatalf("%d drills, want %d: %v", runs, want, err)
		}
	}
	drills(0, true) // nothing is saved yet
	hasBackup(t, m.host, "/var/lib/nodeagent/backups")
	drills(1, true)
	drills(1, true) // the share's backup has not come
	if err := agent.UpdateState(t.Context(), m.host, func(state *agent.State) {
		state.Remote(m.remotes[0].String(), func(r *agent.RemoteState) { r.Newest = &agent.SnapshotStatus{Size: 1} })
	}); err != nil {
		t.Fatal(err)
	}
	drills(2, false)
	s.drilled = time.Now().Add(-48 * time.Hour)
	drills(3, false) // the schedule's
}
