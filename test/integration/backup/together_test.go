//go:build integration

package backup_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// rke2#6226 (k3s#10371): snapshots at the same time failed without a word, or were corrupt. Two
// agents and two saves by hand on one host: one after the other, each told whom it waits for, and
// each a backup of its own.
func TestAtOnce(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, values, valueSize)
	wire := newProxy(t, etcd.address)
	n := newNode(t, wire.address(), "interval: 1h, retention: {keepLast: 1000}")

	// The first save is held in its stream until everybody else has come.
	held, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	var once sync.Once
	wire.befalls(at(early, func([]byte) bool {
		once.Do(func() { close(held) })
		<-goOn
		return true
	}))
	agents := []*run{n.begin("run")}
	until(t, "the agent's save", func() bool {
		select {
		case <-held:
			return true
		default:
			return false
		}
	})
	holder := fmt.Sprintf("(pid %d)", agents[0].Process.Pid)
	agents = append(agents, n.begin("run"))
	byHand := []*run{n.begin("snapshot", "save"), n.begin("snapshot", "save")}
	for _, r := range byHand {
		until(t, "a save by hand to wait for the agent's", func() bool {
			return strings.Contains(r.messages(), "waiting for") && strings.Contains(r.messages(), holder)
		})
	}
	t.Log(byHand[0].messages())
	if out := n.does(5, "snapshot", "save", "--lock-timeout", "1ms"); !strings.Contains(out, "held by") || !strings.Contains(out, holder) {
		t.Errorf("without patience: %s", out)
	}
	release()
	saved := map[string]bool{}
	for _, r := range byHand {
		if code := r.end(t); code != 0 {
			t.Errorf("a save by hand exits %d: %s", code, r.messages())
		}
		name, _, _ := strings.Cut(r.stdout.String(), ":")
		saved[name] = true
	}
	until(t, "the other agent's save", func() bool { return len(n.list()) == 4 })
	for _, agent := range agents {
		if err := agent.Process.Signal(interrupt); err != nil {
			t.Error(err)
		}
		if code := agent.end(t); code != 0 {
			t.Errorf("an agent exits %d: %s", code, agent.messages())
		}
		if strings.Contains(agent.messages(), "level=ERROR") {
			t.Errorf("an agent says %s", agent.messages())
		}
	}
	names := n.verified()
	for name := range saved {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not listed", name)
		}
	}
	if len(saved) != 2 || len(names) != 4 || len(n.files()) != 3*len(names) {
		t.Errorf("by hand %v, listed %q, in the store %q", saved, names, n.files())
	}
}
