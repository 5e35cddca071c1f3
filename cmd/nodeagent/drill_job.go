package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/drill"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	jobDrill  = "drill"
	drillUnit = "nodeagent-drill.service"
	// drillDeadline is what 100 GB take at the default rate.
	drillDeadline = 4 * time.Hour
	// drillPause is how long a drill that failed is not tried again: it reads and writes the
	// whole database, and what is damaged now is so in a minute.
	drillPause = time.Hour
	// spareMemory stays available beside what a drill may take; the kubelet evicts below 100 MiB.
	spareMemory = 256 << 20
	// leastWeight is the least CPU weight that there is.
	leastWeight = 1
	// sacrificed is whom the kernel takes first where memory runs out.
	sacrificed = 1000
)

// drills says whether this host is to prove backups by itself.
func (m *machine) drills() bool {
	return !m.host.Offline && m.savesEtcd() && !m.cfg.Backup.Drill.Off()
}

// drillJob restores the newest backup of each store for proof, in a unit of its own: it is
// `nodeagent snapshot drill` with bounds, and goes on when the agent is restarted.
func (s *session) drillJob(ctx context.Context) agent.Job {
	next := s.machine.cfg.Backup.NextDrill(s.machine.nodeName())
	return agent.Job{
		Name: jobDrill, Last: s.exportDrills(ctx), Deadline: jobDeadline(jobDrill), Run: s.drill,
		Next: func(last time.Time) time.Time {
			if last.IsZero() {
				return last.Add(1) // never: at once, which is after the first save
			}
			return next(last)
		},
	}
}

// drill runs the unit, or waits for the one that runs. It takes no lock: what it reads does not
// change, and a save that falls due meanwhile is worth more than this. It only does not begin beside one.
func (s *session) drill(ctx context.Context) error {
	began := time.Now()
	if left := drillPause - began.Sub(s.drillFailed); left > 0 {
		return agent.NothingToDo("the last drill failed; the next try is in " + left.Round(time.Second).String())
	}
	unsaved, err := s.machine.unsaved(ctx)
	if err != nil {
		return err
	}
	next := s.machine.cfg.Backup.NextDrill(s.machine.nodeName())
	if len(unsaved) > 0 && slices.Equal(unsaved, s.unsaved) && began.Before(next(s.drilled)) {
		return awaits(unsaved)
	}
	unit, err := s.machine.unit(ctx, drillUnit)
	if err != nil {
		return err
	}
	t, err := s.machine.drillTransient(ctx, s.app.configPath)
	if runs := unit.ActiveState == "activating" || unit.ActiveState == "active" && unit.SubState != "exited"; !runs {
		if err == nil {
			err = s.mayDrill()
		}
		if err != nil {
			return s.skipDrill(err)
		}
	} else {
		s.log.Info("drill: one runs, and is waited for", "unit", drillUnit)
	}
	_, err = s.machine.transient(ctx, t)
	if ctx.Err() != nil {
		return err // the unit goes on
	}
	err = s.drillEnded(ctx, began, err)
	if err != nil {
		s.drillFailed = time.Now()
		return err
	}
	if s.drilled, s.unsaved = began, unsaved; len(unsaved) > 0 {
		return awaits(unsaved)
	}
	return nil
}

// unsaved are the stores that hold no backup yet: the first one is proven soon after it has come,
// and not when the schedule has the next drill.
func (m *machine) unsaved(ctx context.Context) (stores []string, err error) {
	for _, store := range m.locals() {
		catalog, err := etcdbackup.List(ctx, store)
		if err != nil {
			return nil, err
		}
		if _, found := catalog.Newest(time.Now()); !found {
			stores = append(stores, store.String())
		}
	}
	state, err := agent.LoadState(m.host)
	if err != nil {
		return nil, err
	}
	for _, r := range m.remotes { // as they were when they were last asked
		if state.Remotes[r.String()].Newest == nil {
			stores = append(stores, r.String())
		}
	}
	return stores, nil
}

func awaits(stores []string) error {
	return agent.NothingToDo(strings.Join(stores, ", ") + ": no backup yet, whose first is proven when it has come")
}

// mayDrill says why a drill is not to begin now.
func (s *session) mayDrill() error {
	unlock, err := s.host.TryLock(host.LockBackup, "daemon: looks whether a drill may begin")
	var held *host.HeldError
	if errors.As(err, &held) {
		return agent.NothingToDo(held.Error())
	}
	if err != nil {
		return err
	}
	unlock()
	dir, err := s.host.Path(s.machine.cfg.Backup.Drill.Dir)
	if err != nil {
		return err
	}
	return drill.Sweep(dir) // what a killed one has left takes room
}

var errLittleMemory = errors.New("not enough available memory")

// skipDrill makes a finding of what is short, which is told once: it is looked at again soon.
func (s *session) skipDrill(err error) error {
	reason := drill.Reason(etcdbackup.Proof{}, err)
	if errors.Is(err, errLittleMemory) {
		reason = drill.ReasonMemory
	}
	if reason != drill.ReasonMemory && reason != drill.ReasonSpace {
		return err
	}
	s.remember(func(state *agent.State) {
		for _, store := range s.machine.stores() {
			r := agent.DrillResult{At: time.Now(), Store: store.String(), Reason: reason, Error: err.Error()}
			if was := state.Drills.Of(r.Store); was.Reason == reason {
				r.At = was.At
				state.Drills.Replace(r)
				continue
			}
			state.Drills.Add(r)
			s.log.Warn("drill skipped", "store", r.Store, "err", err)
		}
	})
	s.exportDrillResults()
	return agent.NothingToDo("drill skipped: " + err.Error())
}

// drillTransient is the unit for the newest backups. The error says what is short for them, or that
// there are none.
func (m *machine) drillTransient(ctx context.Context, configPath string) (t systemd.Transient, err error) {
	cfg := m.cfg.Backup
	size, there, paths := int64(0), false, []string{cfg.Drill.Dir}
	look := func(found, encrypted bool, bytes int64) {
		there = there || found
		if !encrypted || cfg.Drill.IdentityFile != "" {
			size = max(size, bytes)
		}
	}
	for _, store := range m.locals() {
		catalog, err := etcdbackup.List(ctx, store)
		if err != nil {
			return t, err
		}
		newest, found := catalog.Newest(time.Now())
		look(found, len(newest.Recipients) > 0, newest.Snapshot.Size)
	}
	for _, s := range cfg.Stores {
		if !s.Remote() { // the others' disks are not this host's
			paths = append(paths, s.File.Dir)
		}
	}
	state, err := agent.LoadState(m.host)
	if err != nil {
		return t, err
	}
	for _, r := range m.remotes { // as they were when they were last asked
		if b := state.Remotes[r.String()].Newest; b != nil {
			look(true, b.Encrypted, b.Size)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return t, err
	}
	t = systemd.Transient{
		Unit: drillUnit, Description: "Restore of an etcd backup for proof",
		Argv:      []string{self, "snapshot", "drill", "--due", "--config", configPath},
		Env:       []string{"GOMEMLIMIT=" + strconv.FormatInt(drill.GoMemory(size), 10)},
		MemoryMax: uint64(drill.Memory(size)), CPUWeight: leastWeight, OOMScore: sacrificed,
		IOBandwidth: uint64(cfg.Drill.DiskRate) * 1_000_000, IOPaths: paths, Timeout: drillDeadline,
	}
	if !there {
		return t, agent.NothingToDo("there is no snapshot yet")
	}
	return t, m.shortFor(ctx, size)
}

// shortFor says what a drill of a snapshot of so many bytes would take and this host has not.
func (m *machine) shortFor(ctx context.Context, size int64) error {
	proc, err := m.host.Path("/proc")
	if err != nil {
		return err
	}
	fs, err := procfs.NewFS(proc)
	if err != nil {
		return fmt.Errorf("read memory figures: %w", err)
	}
	memory, err := fs.Meminfo()
	if err != nil {
		return fmt.Errorf("read memory figures: %w", err)
	}
	if memory.MemAvailableBytes == nil {
		return errors.New("read memory figures: no MemAvailable in /proc/meminfo")
	}
	if need := drill.Memory(size) + spareMemory; int64(*memory.MemAvailableBytes) < need {
		return fmt.Errorf("%w for a drill: %d MiB are needed, %d MiB are there", errLittleMemory, need>>20, *memory.MemAvailableBytes>>20)
	}
	if size == 0 {
		return nil // nothing is opened
	}
	free, err := m.scratchRoom(m.cfg.Backup.Drill.Dir)(ctx)
	if need := drill.Space(size); err == nil && free < need {
		err = fmt.Errorf("%w for a drill in %s: %d MiB are needed, %d MiB are free beside what is reserved", etcdbackup.ErrNoSpace, m.cfg.Backup.Drill.Dir, need>>20, max(free, 0)>>20)
	}
	return err
}

// drillEnded tells of what the unit has found, which it has written down itself unless it was
// killed.
func (s *session) drillEnded(ctx context.Context, began time.Time, err error) error {
	if dir, pathErr := s.host.Path(s.machine.cfg.Backup.Drill.Dir); pathErr == nil {
		err = errors.Join(err, drill.Sweep(dir))
	}
	state, stateErr := agent.LoadState(s.host)
	if stateErr != nil {
		s.log.Warn("state not read", "err", stateErr)
	}
	wrote := false
	for _, r := range state.Drills.Last {
		if r.At.Before(began) {
			continue
		}
		wrote = true
		s.log.Info("drill", "store", r.Store, "name", r.Object, "result", r.Reason, "err", r.Error)
	}
	// One whose time was over has only noticed that it was to end.
	if failed := (*systemd.UnitError)(nil); errors.As(err, &failed) && (failed.Result.Signal != 0 || failed.Result.Result == "timeout" || !wrote) {
		s.remember(func(state *agent.State) {
			for _, store := range s.machine.stores() {
				state.Drills.Add(agent.DrillResult{At: time.Now(), Store: store.String(), Reason: drill.ReasonKilled, Error: err.Error()})
			}
		})
	}
	s.exportDrills(ctx)
	return err
}

// exportDrills puts the proofs of each store, and how drills ended, into the metrics. It returns when
// the store was last drilled where that is longest ago.
func (s *session) exportDrills(ctx context.Context) time.Time {
	var last earliest
	for _, store := range s.machine.locals() {
		proofs, err := etcdbackup.Proofs(ctx, store)
		if err != nil {
			s.log.Error("proofs not read", "err", err)
			return time.Time{}
		}
		now := time.Now()
		newest, _ := etcdbackup.NewestProof(proofs, "", now)
		last.add(newest.Time)
		restored, opened := etcdbackup.NewestProof(proofs, etcdbackup.ProvenRestored, now)
		object, _ := etcdbackup.NewestProof(proofs, etcdbackup.ProvenObject, now)
		row := metrics.Drill{Restored: restored.Time, Object: object.Time, Took: newest.Seconds}
		if opened {
			row.Restore = restored.Restored.Seconds
		}
		s.daemon.metrics.Drills(store.String(), row)
	}
	state, err := agent.LoadState(s.host)
	if err != nil {
		s.log.Warn("state not read", "err", err)
	}
	for _, r := range s.machine.remotes {
		s.exportRemote(ctx, r)
		last.add(state.Remotes[r.String()].Proven())
	}
	s.exportDrillResults()
	return last.time
}

func (s *session) exportDrillResults() {
	state, err := agent.LoadState(s.host)
	if err != nil {
		s.log.Warn("state not read", "err", err)
		return
	}
	s.daemon.metrics.DrillResults(drill.Reasons(), state.Drills.Results)
}
