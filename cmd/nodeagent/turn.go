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

// saveInTurn makes the scheduled save when it is this member's turn.
func (s *session) saveInTurn(ctx context.Context) (report etcdbackup.Report, err error) {
	const purpose = "daemon: snapshot"
	m := s.machine
	err = withMember(ctx, m.host, m.cfg.Backup.Member(), func(client *clientv3.Client, source etcdbackup.Source) (err error) {
		turn, err := m.takeTurn(ctx, client, purpose)
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
	return report, err
}

func (m *machine) takeTurn(ctx context.Context, client *clientv3.Client, purpose string) (*etcdbackup.Turn, error) {
	now := time.Now()
	slot, err := m.cfg.Backup.SlotOf(now)
	if err != nil {
		return nil, err
	}
	standing, err := etcd.StandingOf(ctx, client)
	if err != nil {
		return nil, err
	}
	return etcdbackup.TakeTurn(ctx, etcdbackup.TurnRequest{
		Client: client, Standing: standing, Now: now, Slot: slot,
		Holder: fmt.Sprintf("%s: %s (pid %d)", m.nodeName(), purpose, os.Getpid()), Waiting: m.waiting,
		Own: m.targets(),
	})
}

// reportTurn says what a save does otherwise than by itself.
func (s *session) reportTurn(turn *etcdbackup.Turn) {
	if turn.Unlocked != nil {
		s.log.Warn("snapshot is not kept apart from the other members'", "why", turn.Unlocked)
	}
	for _, p := range turn.Passed {
		s.log.Info("snapshot is not saved to a store by this host", "store", p.Store, "why", p.Reason)
	}
}
