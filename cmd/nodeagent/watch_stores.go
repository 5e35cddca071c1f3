package main

import (
	"context"
	"maps"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
)

// watchInterval is less than any scrape is apart from the next.
const watchInterval = 2 * time.Second

// watchStores puts into the metrics what others do to the stores on this host, and what they remember of
// drills, until ctx is done: saves, prunings and drills by hand, and the drill's own unit. It looks at when
// the directories and the state were written, which costs nothing; a look that is overtaken by a change is
// followed by another one.
func (s *session) watchStores(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var dirs []string
	for _, store := range s.machine.cfg.Backup.Stores {
		dirs = append(dirs, store.File.Dir)
	}
	stores, state := s.written(dirs...), s.written(agent.StateFile)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := s.written(dirs...); !maps.Equal(now, stores) {
			stores = now
			s.exportSnapshots(ctx)
			if s.drills() {
				s.exportDrills(ctx)
			}
		}
		if now := s.written(agent.StateFile); !maps.Equal(now, state) {
			state = now
			s.exportDrillResults()
		}
	}
}

// written is when files and directories were written last; those that cannot be looked at are left
// out, since whoever reads them next says what is wrong with them.
func (s *session) written(paths ...string) map[string]time.Time {
	written := map[string]time.Time{}
	for _, path := range paths {
		if info, err := s.host.Stat(path); err == nil {
			written[path] = info.ModTime()
		}
	}
	return written
}
