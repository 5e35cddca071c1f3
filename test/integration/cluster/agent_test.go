//go:build integration

package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	// ttl is that of the agents' locks: short, so that the tests are, and long enough for a busy machine.
	ttl     = 5 * time.Second
	storeID = "file-shared"
)

// agentConfig is what an agent is told when it starts.
type agentConfig struct {
	Name, Root, Endpoint  string
	CAFile, Cert, KeyFile string
}

// order is what an agent is told to do; it does one after the other.
type order struct {
	Do string // acquire, check, release, update, save, byHand, slots, go

	Slot  etcdbackup.Slot
	Hold  bool          // of save: stop in the stream until "go" comes
	Every time.Duration // of slots: their length
	Count int           // of slots
}

// answer is what an agent says of an order: several times of one that waits, and at the end "done".
type answer struct {
	Is  string // waiting, streaming, slot, done
	Who string // that holds the lock

	Slot          time.Time
	Own, Shared   bool // what was saved to
	Passed        []etcdbackup.Passed
	NotYet        bool
	WithoutQuorum bool
	Lost          bool // the lock was
	Err           string
}

type agent struct {
	agentConfig
	host   *host.Host
	client *clientv3.Client
	source etcdbackup.Source
	lock   *etcd.Lock
	orders *json.Decoder

	mu  sync.Mutex
	out *bufio.Writer
}

func runAgent(config string) error {
	a := &agent{orders: json.NewDecoder(os.Stdin), out: bufio.NewWriter(os.Stdout)}
	if err := json.Unmarshal([]byte(config), &a.agentConfig); err != nil {
		return err
	}
	a.host = host.New(a.Root)
	for {
		var o order
		if err := a.orders.Decode(&o); err != nil {
			return err // the test is over
		}
		a.say(a.done(a.obey(o)))
	}
}

func (a *agent) say(what answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = json.NewEncoder(a.out).Encode(what) // who does not listen is over
	_ = a.out.Flush()
}

func (a *agent) done(what answer, err error) answer {
	what.Is = "done"
	if err != nil {
		what.Err, what.Lost = err.Error(), errors.Is(err, etcd.ErrLockLost)
		what.NotYet = errors.As(err, new(*etcdbackup.NotYetError))
		what.WithoutQuorum = what.WithoutQuorum || errors.Is(err, etcd.ErrNoQuorum)
	}
	return what
}

func (a *agent) waits(who string) { a.say(answer{Is: "waiting", Who: who}) }

func (a *agent) obey(o order) (what answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if a.lock == nil { // as the daemon does for each save; what holds a lock keeps its client
		if err := a.connect(ctx); err != nil {
			return what, err
		}
	}
	switch o.Do {
	case "acquire":
		a.lock, err = etcd.Acquire(ctx, a.client, "test", a.Name, ttl, a.waits)
	case "check":
		err = a.lock.Check(ctx)
	case "update":
		err = a.lock.Update(ctx, etcd.Prefix+"by", func([]byte) ([]byte, error) { return []byte(a.Name), nil })
	case "release":
		err = a.lock.Release(ctx)
		a.lock = nil
	case "save":
		return a.save(ctx, o)
	case "byHand":
		return a.byHand(ctx)
	case "slots":
		return what, a.slots(o)
	default:
		err = fmt.Errorf("do not know %q", o.Do)
	}
	return what, err
}

func (a *agent) connect(ctx context.Context) (err error) {
	if a.client != nil {
		_ = a.client.Close() // its member may be gone
	}
	local, err := etcd.Find(ctx, host.New("/"), etcd.Choice{Endpoints: []string{a.Endpoint}, CAFile: a.CAFile, CertFile: a.Cert, KeyFile: a.KeyFile})
	if err != nil {
		return err
	}
	if a.client, err = local.Dial(ctx, host.New("/")); err != nil {
		return err
	}
	a.source = etcdbackup.FromClient(a.client, "")
	return nil
}

func (a *agent) own() *file.Store { return file.New(a.host, ownDir, a.Name) }

func (a *agent) shared() etcdbackup.Shared {
	return etcdbackup.Shared{Local: file.New(a.host, spoolDir, a.Name), ID: storeID}
}

func (a *agent) request() etcdbackup.Request {
	return etcdbackup.Request{
		Host: a.Name, Agent: "test", Now: time.Now(), Retention: etcdbackup.Retention{KeepLast: 1000}, Compress: true,
		Scratch: func(int64) (*os.File, error) { return host.New("/").ScratchFile(a.Root) },
	}
}

// save is a scheduled one.
func (a *agent) save(ctx context.Context, o order) (what answer, err error) {
	standing, err := etcd.StandingOf(ctx, a.client)
	if err != nil {
		return what, err
	}
	own, shared := a.own(), a.shared()
	turn, err := etcdbackup.TakeTurn(ctx, etcdbackup.TurnRequest{
		Client: a.client, Standing: standing, Holder: a.Name, Now: time.Now(), Slot: o.Slot, TTL: ttl, Waiting: a.waits,
		Patience: patience, Own: []etcdbackup.Local{own}, Shared: []etcdbackup.Shared{shared},
	})
	if err != nil {
		return what, err
	}
	what.Slot, what.Passed, what.WithoutQuorum = o.Slot.Start, turn.Passed, turn.WithoutQuorum
	req := a.request()
	turn.Apply(&req)
	if o.Hold {
		stop := sync.OnceFunc(func() {
			a.say(answer{Is: "streaming"})
			_ = a.orders.Decode(&order{}) // "go"
		})
		req.Progress = func(int64, int64) { stop() }
	}
	report, err := etcdbackup.Save(ctx, a.source, turn.Stores, req)
	for _, s := range report.Stores {
		what.Own = what.Own || s.Saved && s.Store == own.String()
		what.Shared = what.Shared || s.Saved && s.Store == shared.String()
	}
	return what, errors.Join(err, turn.End(ctx))
}

// byHand saves to all stores, and has uploaded it at once.
func (a *agent) byHand(ctx context.Context) (what answer, err error) {
	report, err := etcdbackup.Save(ctx, a.source, []etcdbackup.Local{a.own(), a.shared()}, a.request())
	if err == nil {
		err = etcdbackup.RecordUpload(ctx, a.client, storeID, report.Manifest, time.Now())
	}
	return what, err
}

// slots saves in so many slots, whenever one begins.
func (a *agent) slots(o order) error {
	c := etcdbackup.Config{Interval: o.Every, TimeZone: "UTC"}
	for range o.Count {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		slot, err := c.SlotOf(time.Now())
		if err == nil {
			time.Sleep(time.Until(slot.End))
			slot, err = c.SlotOf(time.Now())
		}
		what := answer{}
		if err == nil {
			what, err = a.save(ctx, order{Slot: slot})
		}
		cancel()
		what = a.done(what, err)
		what.Is = "slot"
		a.say(what)
	}
	return nil
}
