//go:build integration

package cluster_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func TestCluster(t *testing.T) {
	c := newCluster(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"in the order in which they came", inOrder},
		{"the holder is killed", killed},
		{"the holder is paused", paused},
		{"the holder is paused while it saves", pausedSaving},
		{"the leader comes last", leaderLast},
		{"three agents, slot after slot", slots},
		{"two agents and a save by hand", byHand},
		{"daemons", daemons},
		{"daemons share stores", sharing},
		{"a member is cut off", cutOff},
		{"the quorum is lost, and back", quorumLost},
	} {
		if !t.Run(tt.name, func(t *testing.T) {
			for _, r := range c.agents[1:] {
				r.t = t
			}
			tt.test(t, c)
		}) {
			return // what comes next begins with nothing held
		}
	}
}

// slotOn is one of six hours, on a day of its own, that the leader may take at once.
func slotOn(day int) etcdbackup.Slot {
	start := time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
	return etcdbackup.Slot{Start: start, End: start.Add(6 * time.Hour), LeaderFrom: start}
}

func inOrder(t *testing.T, c *cluster) {
	one, two, three := c.agents[1], c.agents[2], c.agents[3]
	one.must(order{Do: "acquire"})
	two.begin(order{Do: "acquire"})
	if a := two.says("waiting"); a.Who != "cp1" {
		t.Errorf("cp2 is told of %q", a.Who)
	}
	three.begin(order{Do: "acquire"})
	if a := three.says("waiting"); a.Who != "cp1" {
		t.Errorf("cp3 is told of %q", a.Who)
	}
	one.must(order{Do: "check"})
	one.must(order{Do: "release"})
	if a := two.says("done"); a.Err != "" {
		t.Fatal(a.Err)
	}
	one.begin(order{Do: "acquire"}) // again, and behind cp3
	if a := one.says("waiting"); a.Who != "cp2" {
		t.Errorf("cp1 is told of %q", a.Who)
	}
	two.must(order{Do: "release"})
	if a := three.says("done"); a.Err != "" {
		t.Fatal(a.Err)
	}
	if got := c.locks(t); len(got) != 2 {
		t.Errorf("in the queue: %q", got)
	}
	three.must(order{Do: "release"})
	if a := one.says("done"); a.Err != "" {
		t.Fatal(a.Err)
	}
	one.must(order{Do: "release"})
	if got := c.locks(t); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// kured#137, #847, #792: a lock that is held for ever by a node that no longer exists.
func killed(t *testing.T, c *cluster) {
	one, two := c.agents[1], c.agents[2]
	one.must(order{Do: "acquire"})
	two.begin(order{Do: "acquire"})
	two.says("waiting")
	kill(one.cmd)
	if a := two.says("done"); a.Err != "" {
		t.Fatal(a.Err)
	}
	two.must(order{Do: "check"})
	two.must(order{Do: "release"})
	c.startAgent(1)
}

func paused(t *testing.T, c *cluster) {
	one, two := c.agents[1], c.agents[2]
	one.must(order{Do: "acquire"})
	one.must(order{Do: "update"})
	two.begin(order{Do: "acquire"})
	two.says("waiting")
	one.signal(syscall.SIGSTOP)
	if a := two.says("done"); a.Err != "" {
		t.Fatal(a.Err)
	}
	two.must(order{Do: "update"})
	// What it was told before it wakes it does first thing.
	one.begin(order{Do: "update"})
	one.begin(order{Do: "check"})
	one.signal(syscall.SIGCONT)
	for _, what := range []string{"update", "check"} {
		if a := one.says("done"); !a.Lost {
			t.Errorf("%s by one that woke after its lease: %+v", what, a)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if resp, err := c.client.Get(ctx, etcd.Prefix+"by"); err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "cp2" {
		t.Errorf("written: %v, %v", resp, err)
	}
	one.must(order{Do: "release"}) // of what is lost
	two.must(order{Do: "check"})   // and it takes nothing from who has it now
	two.must(order{Do: "release"})
}

func pausedSaving(t *testing.T, c *cluster) {
	one, two := c.agents[1], c.agents[2]
	own, spool := len(c.backups(t, 1, ownDir)), len(c.backups(t, 1, spoolDir))
	one.begin(order{Do: "save", Slot: slotOn(1), Hold: true})
	one.says("streaming")
	two.begin(order{Do: "save", Slot: slotOn(1)})
	if a := two.says("waiting"); a.Who != "cp1" {
		t.Errorf("cp2 is told of %q", a.Who)
	}
	one.signal(syscall.SIGSTOP)
	if a := two.says("done"); a.Err != "" || !a.Own || !a.Shared {
		t.Fatalf("%+v", a)
	}
	one.signal(syscall.SIGCONT)
	one.begin(order{Do: "go"})
	if a := one.says("done"); !a.Lost || !a.Own || a.Shared {
		t.Errorf("who woke after its lease: %+v", a)
	}
	if got, gotSpool := len(c.backups(t, 1, ownDir)), len(c.backups(t, 1, spoolDir)); got != own+1 || gotSpool != spool {
		t.Errorf("%d of its own, %d to be shared; before %d and %d", got, gotSpool, own, spool)
	}
	if r := c.record(t); r.Taken.Host != "cp2" || !r.Slot.Equal(slotOn(1).Start) {
		t.Errorf("recorded %+v", r)
	}
}

func leaderLast(t *testing.T, c *cluster) {
	was := c.leader(t, 1, 2, 3)
	late := slotOn(2)
	late.LeaderFrom = time.Now().Add(time.Hour)
	if a := c.agents[was].does(order{Do: "save", Slot: late}); !a.NotYet {
		t.Errorf("the leader: %+v", a)
	}
	next := was%members + 1
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := c.client.Status(ctx, endpoint(next))
	if err != nil {
		t.Fatal(err)
	}
	mover, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint(was)}, TLS: c.tls, DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer mover.Close()
	if _, err := mover.MoveLeader(ctx, status.Header.MemberId); err != nil {
		t.Fatal(err)
	}
	if leads := c.leader(t, 1, 2, 3); leads != next {
		t.Fatalf("cp%d leads", leads)
	}
	if a := c.agents[next].does(order{Do: "save", Slot: late}); !a.NotYet {
		t.Errorf("the leader now: %+v", a)
	}
	if a := c.agents[was].must(order{Do: "save", Slot: late}); !a.Shared {
		t.Errorf("who led before: %+v", a)
	}
	if a := c.agents[next].must(order{Do: "save", Slot: late}); a.Shared || !a.Own || len(a.Passed) != 1 {
		t.Errorf("the leader, once it is taken: %+v", a)
	}
}

func slots(t *testing.T, c *cluster) {
	const count, length = 4, 5 * time.Second
	before, spooled := [members + 1]int{}, 0
	for i := 1; i <= members; i++ {
		before[i] = len(c.backups(t, i, ownDir))
		spooled -= len(c.backups(t, i, spoolDir))
	}
	for _, r := range c.agents[1:] {
		r.begin(order{Do: "slots", Every: length, Count: count})
	}
	came, shared := map[time.Time]int{}, map[time.Time]int{}
	for i, r := range c.agents[1:] {
		for range count {
			a := r.says("slot")
			if a.Err != "" || !a.Own || a.Shared == (len(a.Passed) > 0) || a.WithoutQuorum {
				t.Errorf("%s: %+v", r.name, a)
			}
			came[a.Slot]++
			if a.Shared {
				shared[a.Slot]++
			}
		}
		r.says("done")
		if got := len(c.backups(t, i+1, ownDir)); got != before[i+1]+count {
			t.Errorf("%s has %d of its own, before %d: not one a slot", r.name, got, before[i+1])
		}
		spooled += len(c.backups(t, i+1, spoolDir))
	}
	whole := 0
	for slot, n := range came {
		if shared[slot] > 1 || n == members && shared[slot] != 1 {
			t.Errorf("the slot of %s, with %d members: %d shared backups", slot, n, shared[slot])
		}
		if n == members {
			whole++
		}
	}
	if whole == 0 || spooled != len(shared) {
		t.Errorf("%d slots with all members; %d shared backups lie there, of %d slots: %v", whole, spooled, len(shared), came)
	}
}

func byHand(t *testing.T, c *cluster) {
	spool := len(c.backups(t, 3, spoolDir))
	for _, r := range c.agents[1:3] {
		r.begin(order{Do: "save", Slot: slotOn(3)})
	}
	c.agents[3].begin(order{Do: "byHand"})
	taken := 0
	for i, r := range c.agents[1:] {
		a := r.says("done")
		if a.Err != "" || i < 2 && !a.Own {
			t.Errorf("%s: %+v", r.name, a)
		}
		if a.Shared {
			taken++
		}
	}
	r := c.record(t)
	if taken != 1 || r.Taken.Host == "cp3" || !r.Slot.Equal(slotOn(3).Start) {
		t.Errorf("taken %d times, recorded %+v", taken, r)
	}
	if r.Uploaded.Host != "cp3" || r.Uploaded.Backup == "" || r.Uploaded.Uploaded.IsZero() {
		t.Errorf("the save by hand is not the last upload: %+v", r)
	}
	if got := len(c.backups(t, 3, spoolDir)); got != spool+1 {
		t.Errorf("by hand: %d to be shared, before %d", got, spool)
	}
}

func cutOff(t *testing.T, c *cluster) {
	apart := 3
	others := []int{1, 2}
	wire(t, apart, "down")
	c.leader(t, others...)
	r := c.agents[apart]
	r.begin(order{Do: "save", Slot: slotOn(4)})
	if a := c.agents[1].must(order{Do: "save", Slot: slotOn(4)}); !a.Own || !a.Shared || a.WithoutQuorum {
		t.Errorf("of those that agree: %+v", a)
	}
	if a := c.agents[2].must(order{Do: "save", Slot: slotOn(4)}); !a.Own || a.Shared || a.WithoutQuorum {
		t.Errorf("of those that agree: %+v", a)
	}
	if a := r.says("done"); a.Err != "" || !a.Own || !a.Shared || !a.WithoutQuorum {
		t.Errorf("the one apart: %+v", a)
	}
	for _, dir := range []string{ownDir, spoolDir} {
		if b := c.backups(t, apart, dir); len(b) == 0 || !b[0].WithoutQuorum {
			t.Errorf("in %s it is not marked: %+v", dir, b)
		}
	}
	if b := c.backups(t, 1, ownDir); b[0].WithoutQuorum {
		t.Error("a backup of those that agree is marked")
	}
	wire(t, apart, "up")
	c.leader(t, 1, 2, 3)
	if rec := c.record(t); rec.Taken.Host != "cp1" {
		t.Errorf("recorded %+v", rec)
	}
	if a := r.must(order{Do: "save", Slot: slotOn(4)}); !a.Own || a.Shared || a.WithoutQuorum {
		t.Errorf("back again: %+v", a)
	}
}

func quorumLost(t *testing.T, c *cluster) {
	one := c.agents[1]
	kill(c.etcds[2])
	kill(c.etcds[3])
	if a := one.must(order{Do: "save", Slot: slotOn(5)}); !a.Own || !a.Shared || !a.WithoutQuorum {
		t.Errorf("alone: %+v", a)
	}
	c.startEtcd(2)
	c.leader(t, 1, 2)
	if a := one.must(order{Do: "save", Slot: slotOn(5)}); !a.Own || !a.Shared || a.WithoutQuorum {
		t.Errorf("with a quorum again: %+v", a)
	}
	if a := c.agents[2].must(order{Do: "save", Slot: slotOn(5)}); !a.Own || a.Shared {
		t.Errorf("after it: %+v", a)
	}
}
