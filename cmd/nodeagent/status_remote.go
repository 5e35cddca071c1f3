package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// addRemotes tells of the stores that are not on this host what is remembered of them: a store that
// does not answer is to hold up nobody.
func (m *machine) addRemotes(ctx context.Context, s *agent.Status, state agent.State, f *findings) {
	for _, r := range m.remotes {
		was := state.Remotes[r.String()]
		waiting, err := r.waiting(ctx)
		if err != nil {
			f.wrong("journalctl -u nodeagent", "%v", err)
		}
		row := agent.RemoteStatus{
			Store: r.String(), Asked: was.Asked, Stored: was.Stored, Newest: was.Newest, Proven: was.Best,
			Attempt: was.Attempt, Reason: was.Reason, Error: was.Error,
		}
		row.Waiting, row.WaitingBytes, row.WaitingSince = sumOf(waiting)
		s.RemoteStores = append(s.RemoteStores, row)
		if !made(s) || m.host.Offline || !m.savesEtcd() {
			continue
		}
		switch {
		case row.Reason != "" && row.Waiting > 0:
			f.warn("nodeagent snapshot save", "%d backups wait to be uploaded to %s, the oldest was taken %s: %s", row.Waiting, r, agent.Ago(row.WaitingSince, s.Now), row.Error)
		case row.Reason != "":
			f.warn("nodeagent snapshot list", "%s could not be asked %s: %s", r, agent.Ago(row.Attempt, s.Now), row.Error)
		}
		if row.Newest == nil {
			continue
		}
		next := m.nextBackup()
		if due := next(next(row.Newest.Taken)); s.Now.Sub(due) > snapshotDeadline {
			f.wrong("nodeagent snapshot save", "the newest snapshot of etcd in %s was taken %s, as of %s", r, agent.Ago(row.Newest.Taken, s.Now), agent.Ago(row.Asked, s.Now))
		}
	}
	m.addLeftSpools(s, state, f)
}

// addLeftSpools tells of spools of stores that are no longer configured: what waits in them is nobody's
// any more, and may be the only copy.
func (m *machine) addLeftSpools(_ *agent.Status, state agent.State, f *findings) {
	entries, err := m.host.ReadDir(etcdbackup.SpoolDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return
	}
	if err != nil {
		f.warn("ls -la "+etcdbackup.SpoolDir, "%v", err)
		return
	}
	for _, e := range entries {
		if slices.ContainsFunc(m.remotes, func(r *remote) bool { return r.id == e.Name() }) {
			continue
		}
		dir := etcdbackup.SpoolDir + "/" + e.Name()
		left, err := m.host.ReadDir(dir)
		if err != nil || len(left) == 0 {
			continue
		}
		of := "a store that is no longer configured"
		for name := range state.Remotes {
			if etcdbackup.SpoolID(name) == e.Name() {
				of = name + ", which is no longer configured,"
			}
		}
		f.warn("ls -la "+dir, "what waited to be uploaded to %s still lies in %s", of, dir)
	}
}

// remoteLines say on the page of a terminal how a remote store is.
func remoteLines(r agent.RemoteStatus, now time.Time) []string {
	var lines []string
	switch {
	case r.Asked.IsZero():
		lines = append(lines, r.Store+" has not answered yet")
	case r.Newest == nil:
		lines = append(lines, fmt.Sprintf("none in %s, asked %s", r.Store, agent.Ago(r.Asked, now)))
	default:
		of := agent.Status{Now: now}
		if r.Proven != nil {
			of.Snapshots = append(of.Snapshots, *r.Proven)
		}
		lines = append(lines, fmt.Sprintf("%d in %s, the newest verified %s: %s; asked %s", r.Stored, r.Store, agent.Ago(r.Newest.Taken, now), withHash(*r.Newest), agent.Ago(r.Asked, now)),
			of.ProvenIn(r.Store))
	}
	if r.Waiting > 0 {
		line := fmt.Sprintf("%d wait to be uploaded to it (%s), the oldest taken %s", r.Waiting, agent.Bytes(r.WaitingBytes), agent.Ago(r.WaitingSince, now))
		if r.Reason != "" {
			line += ": " + r.Reason + " " + agent.Ago(r.Attempt, now)
		}
		lines = append(lines, line)
	}
	return lines
}

// shownHash is how much of a hash tells two files apart at a glance; -o json has all of it.
const shownHash = 12

// withHash is a snapshot's name and the beginning of the sha256 of its file.
func withHash(b agent.SnapshotStatus) string {
	if len(b.SHA256) < shownHash { // remembered by an agent that did not know it
		return b.Name
	}
	return b.Name + " (sha256 " + b.SHA256[:shownHash] + "…)"
}

func kindOf(store string) string {
	kind, _, _ := strings.Cut(store, " ")
	return kind
}
