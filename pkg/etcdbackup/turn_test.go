package etcdbackup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// The one member of these tests stands for one of three: what the others would do, tests of it do.
var (
	follower = etcd.Standing{MemberID: 1, Leader: 2, Voters: 3}
	leader   = etcd.Standing{MemberID: 1, Leader: 1, Voters: 3}
)

// team is a shared store and the members that save to it.
type team struct {
	t      *testing.T
	client *clientv3.Client
	root   *host.Host
	id     string
}

func newTeam(t *testing.T) team {
	t.Helper()
	team := team{t, etcdClient(t), host.New(t.TempDir()), strings.NewReplacer("/", "-").Replace(t.Name())}
	clean := func() {
		if _, err := team.client.Delete(context.WithoutCancel(t.Context()), etcd.Prefix, clientv3.WithPrefix()); err != nil {
			t.Error(err)
		}
	}
	clean()
	t.Cleanup(clean)
	return team
}

// own is a member's own store; common is what of the shared one lies on it.
func (m team) own(name string) *file.Store { return file.New(m.root, "/own/"+name, name) }

func (m team) common(name string) etcdbackup.Shared {
	return etcdbackup.Shared{Local: file.New(m.root, "/spool/"+name, name), ID: m.id}
}

func (m team) request(name string, standing etcd.Standing, now time.Time) etcdbackup.TurnRequest {
	m.t.Helper()
	slot, err := etcdbackup.Config{Schedule: "0 */6 * * *", TimeZone: "UTC", Jitter: 5 * time.Minute}.SlotOf(now)
	if err != nil {
		m.t.Fatal(err)
	}
	return etcdbackup.TurnRequest{
		Client: m.client, Standing: standing, Holder: name, Now: now, Slot: slot, TTL: 10 * time.Second,
		Own: []etcdbackup.Local{m.own(name)}, Shared: []etcdbackup.Shared{m.common(name)},
	}
}

func (m team) turn(r etcdbackup.TurnRequest) *etcdbackup.Turn {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	turn, err := etcdbackup.TakeTurn(ctx, r)
	if err != nil {
		m.t.Fatal(err)
	}
	return turn
}

// saves makes a member's scheduled save, as change, which may be nil, says.
func (m team) saves(r etcdbackup.TurnRequest, change func(*etcdbackup.Request)) (*etcdbackup.Turn, etcdbackup.Report, error) {
	m.t.Helper()
	turn := m.turn(r)
	req := request(r.Now)
	req.Host, req.Retention.KeepLast = r.Holder, 100
	turn.Apply(&req)
	if change != nil {
		change(&req)
	}
	report, err := etcdbackup.Save(m.t.Context(), source(m.t), turn.Stores, req)
	if ended := turn.End(m.t.Context()); ended != nil {
		m.t.Error(ended)
	}
	return turn, report, err
}

func (m team) record() etcdbackup.SlotRecord {
	m.t.Helper()
	records, err := etcdbackup.SlotRecords(m.t.Context(), m.client, m.id)
	if err != nil {
		m.t.Fatal(err)
	}
	return records[m.id]
}

func (m team) want(s etcdbackup.Local, count int) {
	m.t.Helper()
	if got := len(list(m.t, s).Backups); got != count {
		m.t.Errorf("%s has %d backups, want %d", s, got, count)
	}
}

func TestOneSharedBackupPerSlot(t *testing.T) {
	m := newTeam(t)
	for i, name := range []string{"cp1", "cp2", "cp1", "cp3"} {
		turn, report, err := m.saves(m.request(name, follower, noon.Add(time.Duration(i)*time.Minute)), nil)
		if err != nil || turn.WithoutQuorum || turn.Unlocked != nil {
			t.Fatalf("%v, %+v", err, turn)
		}
		if i == 0 {
			if r := m.record(); len(turn.Passed) != 0 || !r.Slot.Equal(noon) || r.Taken.Host != "cp1" || r.Taken.Backup != report.Manifest.Object.Name ||
				r.Taken.Revision != report.Manifest.Snapshot.Revision || !r.Taken.Saved.Equal(report.Manifest.Time) {
				t.Errorf("passed %v, recorded %+v", turn.Passed, r)
			}
			continue
		}
		if len(turn.Passed) != 1 || !strings.Contains(turn.Passed[0].Reason, "cp1 has the slot of 2026-11-21T12:00:00Z, by 20261121T1200") {
			t.Errorf("%s: passed %v", name, turn.Passed)
		}
	}
	for name, own := range map[string]int{"cp1": 2, "cp2": 1, "cp3": 1} {
		m.want(m.own(name), own)
	}
	m.want(m.common("cp1"), 1)
	m.want(m.common("cp2"), 0)
	if _, _, err := m.saves(m.request("cp2", follower, noon.Add(6*time.Hour)), nil); err != nil || m.record().Taken.Host != "cp2" {
		t.Errorf("the next slot: %v, %+v", err, m.record())
	}
	m.want(m.common("cp2"), 1)
}

func TestAloneTellsNobody(t *testing.T) {
	m := newTeam(t)
	standing, err := etcd.StandingOf(t.Context(), m.client)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		turn, report, err := m.saves(m.request("cp1", standing, noon), func(req *etcdbackup.Request) {
			resp, err := m.client.Get(t.Context(), etcd.Prefix, clientv3.WithPrefix())
			if err != nil || len(resp.Kvs) != 0 || req.Permit != nil || req.Published != nil {
				t.Errorf("%v, %v", resp, err)
			}
		})
		if err != nil || len(turn.Passed) != 0 {
			t.Fatalf("%v, %+v", err, turn)
		}
		if err := etcdbackup.RecordUpload(t.Context(), m.client, m.id, report.Manifest, noon); err != nil {
			t.Error(err)
		}
	}
	m.want(m.own("cp1"), 2)
	m.want(m.common("cp1"), 2)
	if resp, err := m.client.Get(t.Context(), etcd.Prefix, clientv3.WithPrefix()); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("%v, %v", resp, err)
	}
}

// Whoever has lost the lock while the snapshot came publishes nothing shared, and takes no slot.
func TestLockLostWhileSaving(t *testing.T) {
	m := newTeam(t)
	_, report, err := m.saves(m.request("cp1", follower, noon), func(req *etcdbackup.Request) {
		req.Progress = func(int64, int64) {
			if _, err := m.client.Delete(t.Context(), etcd.Prefix+"lock/", clientv3.WithPrefix()); err != nil {
				t.Error(err)
			}
		}
	})
	if !errors.Is(err, etcd.ErrLockLost) || !report.Saved() || !report.Stores[0].Saved || report.Stores[1].Saved {
		t.Errorf("%v, %+v", err, report)
	}
	m.want(m.own("cp1"), 1)
	m.want(m.common("cp1"), 0)
	if r := m.record(); r.Taken.Host != "" {
		t.Errorf("recorded %+v", r)
	}
	// Lost between the two: the backup is there, no slot is taken, and another one saves it too.
	_, report, err = m.saves(m.request("cp1", follower, noon), func(req *etcdbackup.Request) {
		published := req.Published
		req.Published = func(ctx context.Context, store etcdbackup.Local, b etcdbackup.Manifest) error {
			if _, is := store.(etcdbackup.Shared); is {
				if _, err := m.client.Delete(ctx, etcd.Prefix+"lock/", clientv3.WithPrefix()); err != nil {
					t.Error(err)
				}
			}
			return published(ctx, store, b)
		}
	})
	if !errors.Is(err, etcd.ErrLockLost) || !report.Stores[1].Saved || m.record().Taken.Host != "" {
		t.Errorf("%v, %+v, recorded %+v", err, report, m.record())
	}
	if turn, _, err := m.saves(m.request("cp2", follower, noon), nil); err != nil || len(turn.Passed) != 0 || m.record().Taken.Host != "cp2" {
		t.Errorf("%v, %+v", err, turn)
	}
	m.want(m.common("cp1"), 1)
	m.want(m.common("cp2"), 1)
}

// One that waits in vain saves to its own stores.
func TestLockHeldTooLong(t *testing.T) {
	m := newTeam(t)
	first := m.turn(m.request("cp1", follower, noon))
	r := m.request("cp2", follower, noon)
	var told []string
	r.Patience, r.Waiting = 300*time.Millisecond, func(holder string) { told = append(told, holder) }
	turn, _, err := m.saves(r, nil)
	var held *etcd.HeldError
	if err != nil || !errors.As(turn.Unlocked, &held) || held.Holder != "cp1" || len(told) != 1 || told[0] != "cp1" || turn.WithoutQuorum {
		t.Errorf("%v, %+v, told %q", err, turn, told)
	}
	if len(turn.Passed) != 1 || !strings.Contains(turn.Passed[0].Reason, "held by cp1") {
		t.Errorf("passed %v", turn.Passed)
	}
	m.want(m.own("cp2"), 1)
	m.want(m.common("cp2"), 0)
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	r.Patience, r.Waiting = 0, func(string) { cancel(why) }
	if _, err := etcdbackup.TakeTurn(ctx, r); !errors.Is(err, why) {
		t.Errorf("stopped: %v", err)
	}
	if err := first.End(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLeaderComesLast(t *testing.T) {
	m := newTeam(t)
	early := m.request("cp1", leader, noon.Add(time.Minute))
	var notYet *etcdbackup.NotYetError
	if _, err := etcdbackup.TakeTurn(t.Context(), early); !errors.As(err, &notYet) || !notYet.Until.Equal(noon.Add(6*time.Minute)) {
		t.Fatalf("early: %v", err)
	}
	// Without a store that others save to, too, it leaves nothing to them.
	own := early
	own.Shared = nil
	if _, _, err := m.saves(own, nil); err != nil {
		t.Error(err)
	}
	// Just before its time it waits, and goes on when another one has taken the slot meanwhile, or nobody has.
	soon := m.request("cp1", leader, noon.Add(6*time.Minute-2*time.Second))
	ended := make(chan error)
	go func() {
		turn, err := etcdbackup.TakeTurn(t.Context(), soon)
		if err == nil {
			if len(turn.Passed) != 0 {
				err = fmt.Errorf("passed %v", turn.Passed)
			}
			err = errors.Join(err, turn.End(t.Context()))
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := m.saves(m.request("cp2", follower, noon.Add(2*time.Minute)), nil); err != nil {
		t.Fatal(err)
	}
	turn, _, err := m.saves(early, nil)
	if err != nil || len(turn.Passed) != 1 {
		t.Errorf("when it is taken: %v, %+v", err, turn)
	}
	late := m.request("cp1", leader, noon.Add(6*time.Hour+7*time.Minute))
	if turn, _, err := m.saves(late, nil); err != nil || len(turn.Passed) != 0 || m.record().Taken.Host != "cp1" {
		t.Errorf("when nobody has come: %v, %+v", err, turn)
	}
}

func TestLearnerTakesNoTurn(t *testing.T) {
	m := newTeam(t)
	_, err := etcdbackup.TakeTurn(t.Context(), m.request("cp1", etcd.Standing{MemberID: 1, Leader: 2, Learner: true, Voters: 3}, noon))
	if err == nil || !strings.Contains(err.Error(), "is a learner") {
		t.Error(err)
	}
	bad := m.request("cp1", follower, noon)
	bad.Shared[0].ID = "../lock/backup"
	if _, err := etcdbackup.TakeTurn(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "../lock") {
		t.Error(err)
	}
}

// A database that is full takes no lock; that is no time to go without backups.
func TestFullDatabaseIsSaved(t *testing.T) {
	m := newTeam(t)
	alarm := func(action etcdserverpb.AlarmRequest_AlarmAction) {
		_, err := etcdserverpb.NewMaintenanceClient(m.client.ActiveConnection()).Alarm(context.WithoutCancel(t.Context()),
			&etcdserverpb.AlarmRequest{Action: action, Alarm: etcdserverpb.AlarmType_NOSPACE})
		if err != nil {
			t.Fatal(err)
		}
	}
	alarm(etcdserverpb.AlarmRequest_ACTIVATE)
	defer alarm(etcdserverpb.AlarmRequest_DEACTIVATE)
	for range 2 {
		turn, report, err := m.saves(m.request("cp1", follower, noon), nil)
		if err != nil || turn.Unlocked == nil || turn.WithoutQuorum || report.Manifest.WithoutQuorum || !strings.Contains(turn.Unlocked.Error(), "database space exceeded") {
			t.Fatalf("%v, %+v", err, turn)
		}
	}
	m.want(m.own("cp1"), 2)
	m.want(m.common("cp1"), 2)
}

func TestSlotRecordOfOthers(t *testing.T) {
	m := newTeam(t)
	put := func(record string) {
		if _, err := m.client.Put(t.Context(), etcd.Prefix+"backup/slots/"+m.id, record); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"version":2,"later":true}`)
	turn, _, err := m.saves(m.request("cp1", follower, noon), nil)
	if err != nil || len(turn.Passed) != 1 || !strings.Contains(turn.Passed[0].Reason, "later version") {
		t.Errorf("of a later version: %v, %+v", err, turn)
	}
	put("nonsense")
	if turn, _, err = m.saves(m.request("cp1", follower, noon), nil); err != nil || len(turn.Passed) != 0 || m.record().Taken.Host != "cp1" {
		t.Errorf("nonsense: %v, %+v", err, turn)
	}
	put(`{"version":1,"slot":"2030-01-01T00:00:00Z","taken":{"host":"cp9"}}`)
	if turn, _, err = m.saves(m.request("cp1", follower, noon), nil); err != nil || len(turn.Passed) != 0 || !m.record().Slot.Equal(noon) {
		t.Errorf("of years ahead: %v, %+v", err, turn)
	}
}

// leaderless says of a member that it knows of no leader.
type leaderless struct{ clientv3.Maintenance }

func (l leaderless) Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	status, err := l.Maintenance.Status(ctx, endpoint)
	if err == nil {
		status.Leader = 0
	}
	return status, err
}

// The manifest tells of a save without a quorum, by hand too, and of no other.
func TestManifestWithoutQuorum(t *testing.T) {
	cutOff := dial(t)
	cutOff.Maintenance = leaderless{cutOff.Maintenance}
	for _, tt := range []struct {
		turn   *etcdbackup.Turn
		source etcdbackup.Source
	}{
		{&etcdbackup.Turn{}, source(t)}, {&etcdbackup.Turn{WithoutQuorum: true}, source(t)}, {nil, etcdbackup.FromClient(cutOff, "")},
	} {
		without := tt.turn == nil || tt.turn.WithoutQuorum
		_, s := newStore(t)
		req := request(noon)
		if tt.turn != nil {
			tt.turn.Apply(&req)
		}
		report, err := etcdbackup.Save(t.Context(), tt.source, []etcdbackup.Local{s}, req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(list(t, s).Backups[0])
		if err != nil || report.Manifest.WithoutQuorum != without || strings.Contains(string(data), `"withoutQuorum":true`) != without {
			t.Errorf("%t: %s, %v", without, data, err)
		}
	}
}
