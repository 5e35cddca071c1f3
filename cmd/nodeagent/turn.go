package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// saveInTurn makes the scheduled save when it is this member's turn, to the stores that have no backup of
// this round yet.
func (s *session) saveInTurn(ctx context.Context) (report etcdbackup.Report, err error) {
	const purpose = "daemon: snapshot"
	m := s.machine
	targets := s.round.left(m.targets())
	if len(targets) == 0 {
		return report, s.round.err()
	}
	err = withMember(ctx, m.host, m.cfg.Backup.Member(), func(client *clientv3.Client, source etcdbackup.Source) (err error) {
		turn, err := m.takeTurn(ctx, client, purpose, targets)
		if err != nil {
			return err
		}
		defer func() {
			if err := turn.End(ctx); err != nil { // what was saved is saved
				s.log.Warn("cluster-wide lock not released", "err", err)
			}
		}()
		s.reportTurn(turn)
		if len(turn.Stores) == 0 {
			return nil
		}
		// The members' lock is taken before the host's: who waits for others keeps no save by hand waiting.
		unlock, err := m.lock(ctx, host.LockBackup, purpose)
		if err != nil {
			return err
		}
		defer unlock()
		req, err := m.backupRequest(ctx, time.Now())
		if err != nil {
			return fmt.Errorf("save snapshot: %w", err)
		}
		turn.Apply(&req)
		report, err = etcdbackup.Save(ctx, source, turn.Stores, req)
		return err
	})
	var notYet *etcdbackup.NotYetError
	if errors.As(err, &notYet) {
		return report, agent.NothingToDo(err.Error())
	}
	return report, errors.Join(err, s.round.err())
}

func (m *machine) takeTurn(ctx context.Context, client *clientv3.Client, purpose string, targets []etcdbackup.Local) (*etcdbackup.Turn, error) {
	now := time.Now()
	slot, err := m.cfg.Backup.SlotOf(now)
	if err != nil {
		return nil, err
	}
	standing, err := etcd.StandingOf(ctx, client)
	if err != nil {
		return nil, err
	}
	var own []etcdbackup.Local
	var shared []etcdbackup.Shared
	for _, store := range targets {
		if r := m.remoteOf(store.String()); r != nil {
			shared = append(shared, etcdbackup.Shared{Local: store, ID: r.id})
		} else {
			own = append(own, store)
		}
	}
	return etcdbackup.TakeTurn(ctx, etcdbackup.TurnRequest{
		Client: client, Standing: standing, Now: now, Slot: slot,
		Holder: fmt.Sprintf("%s: %s (pid %d)", m.nodeName(), purpose, os.Getpid()), Waiting: m.waiting,
		Own: own, Shared: shared,
	})
}

// shareTimeout is how long the members may take to be told, or asked, of a shared store.
const shareTimeout = 10 * time.Second

// tellUploaded tells the other members what a shared store has: those that do not save to it know its
// last success by that.
func (m *machine) tellUploaded(ctx context.Context, r *remote, uploaded []etcdbackup.Manifest) error {
	if len(uploaded) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareTimeout)
	defer cancel()
	return withMember(ctx, m.host, m.cfg.Backup.Member(), func(client *clientv3.Client, _ etcdbackup.Source) error {
		return etcdbackup.RecordUpload(ctx, client, r.id, uploaded[0], time.Now()) // the newest comes first
	})
}

// toldUploaded is the newest backup that the members know a shared store to have; the zero value where
// none is known, and in a cluster of one.
func (m *machine) toldUploaded(ctx context.Context, r *remote) (told etcdbackup.Uploaded, err error) {
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	err = withMember(ctx, m.host, m.cfg.Backup.Member(), func(client *clientv3.Client, _ etcdbackup.Source) error {
		records, err := etcdbackup.SlotRecords(ctx, client, r.id)
		told = records[r.id].Uploaded
		return err
	})
	return told, err
}

// reportTurn says what a save does otherwise than by itself.
func (s *session) reportTurn(turn *etcdbackup.Turn) {
	if turn.Unlocked != nil {
		s.log.Warn("snapshot is not kept apart from the other members'", "why", turn.Unlocked)
	}
	for _, p := range turn.Passed {
		store := p.Store
		if r := s.machine.remoteOf(store); r != nil {
			store = r.String()
		}
		s.log.Info("snapshot is not saved to a store by this host", "store", store, "why", p.Reason)
	}
}
