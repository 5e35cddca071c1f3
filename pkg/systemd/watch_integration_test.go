//go:build integration

package systemd

import (
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// connection is nil where there is none.
func (c *Conn) connection() *dbus.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bus
}

// A program that takes its time is waited for without a connection, over which systemd would send every
// signal of every unit; its end is seen, and a connection made again.
func TestWaitIsSilent(t *testing.T) {
	ctx, c := connect(t)
	type answer struct {
		result Result
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		r, err := c.RunTransient(ctx, transient(t, "silent", "sleep 4; exit 3"))
		answers <- answer{r, err}
	}()
	silent := 0
	for {
		select {
		case a := <-answers:
			if a.result != (Result{Result: "exit-code", Code: 3}) {
				t.Errorf("%+v, %v", a.result, a.err)
			}
			if silent < 10 { // of some 30
				t.Errorf("while the program ran there was no connection at %d looks only", silent)
			}
			return
		case <-time.After(100 * time.Millisecond):
			if c.connection() == nil {
				silent++
			}
		}
	}
}

// A job's result comes on the connection that the job was asked for on, however long it takes.
func TestJobKeepsConnection(t *testing.T) {
	ctx, c := connect(t)
	const unit = "nodeagent-test-slow.service"
	unitFile(t, ctx, c, unit, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 3\n")
	started := make(chan error, 1)
	go func() { started <- c.Start(ctx, unit) }()
	time.Sleep(time.Second)
	asked := c.connection()
	time.Sleep(time.Second) // twice as long as one that nobody uses is kept
	if now := c.connection(); asked == nil || now != asked {
		t.Error("the connection was given up while a job was waited for")
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if c.connection() == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("nobody uses the connection, and it is kept")
}
