//go:build integration

package backup_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	// early is a place in the stream after which there is much more to come than what the
	// program's windows and the kernel hold.
	early = 2 << 20
	// values and valueSize make a database of some 10 MiB.
	values, valueSize = 20, 512 << 10
)

// etcd-backup-restore#778, #749, #45, etcd#18340 and rancher#18548: what befalls a stream is found
// before there is a backup, and takes no other. A real etcd is killed while it sends, and the wire
// to it is cut or changes a bit; where it is only slow, all is well.
func TestStream(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, values, valueSize)
	wire := newProxy(t, etcd.address)
	n := newNode(t, wire.address(), "")
	n.does(0, "snapshot", "save")

	for name, tt := range map[string]struct {
		down func(int64, []byte) bool
		want string // of the error; "" is a backup
	}{
		"etcd killed": {at(early, func([]byte) bool { etcd.kill(); return true }), "read snapshot"},
		"cut":         {at(early, func([]byte) bool { return false }), "read snapshot"},
		"bit flipped": {flipped(), etcdbackup.ErrTrailer.Error()},
		"slow":        {func(_ int64, p []byte) bool { time.Sleep(time.Duration(len(p)) * 100 * time.Nanosecond); return true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			before, backups := n.files(), n.verified()
			wire.befalls(tt.down)
			save := n.begin("snapshot", "save")
			code := save.end(t)
			wire.befalls(nil)
			if tt.want == "" {
				if code != 0 || len(n.verified()) != 1 || slices.Equal(n.verified(), backups) {
					t.Errorf("exit code %d, %s", code, save.messages())
				}
				return
			}
			if code != 1 || !strings.Contains(save.messages(), tt.want) {
				t.Errorf("exit code %d, %s, want 1 and %q", code, save.messages(), tt.want)
			}
			if after := n.files(); !slices.Equal(after, before) || len(backups) != 1 {
				t.Errorf("the store holds %q, and before %q", after, before)
			}
			if got := n.verified(); !slices.Equal(got, backups) {
				t.Errorf("listed are %q, and before %q", got, backups)
			}
			t.Log(save.messages())
		})
		if etcd.cmd.ProcessState != nil {
			etcd.start(t) // and its data, which it did not come to sync, are as good as before
		}
	}
	n.t = t
	before := n.verified()
	n.does(0, "snapshot", "save")
	if after := n.verified(); len(after) != 1 || slices.Equal(after, before) || len(n.files()) != 3 {
		t.Errorf("afterwards a save leaves %q of %q, and %q", after, before, n.files())
	}
}

// at calls do with what is sent at a place in the stream, once.
func at(place int64, do func([]byte) bool) func(int64, []byte) bool {
	var once sync.Once
	return func(before int64, p []byte) (on bool) {
		on = true
		if before >= place {
			once.Do(func() { on = do(p) })
		}
		return on
	}
}

// flipped changes a bit of a value in the stream.
func flipped() func(int64, []byte) bool {
	var once sync.Once
	return func(_ int64, p []byte) bool {
		if i := bytes.Index(p, []byte(marker)); i >= 0 {
			once.Do(func() { p[i+3] ^= 4 })
		}
		return true
	}
}

// etcd-druid#307: not the time that all of it takes is limited, but silence is. A wire on which
// nothing comes any more ends the save, and all that it has begun.
func TestStalledWire(t *testing.T) {
	etcd := newMember(t, etcd36(t))
	etcd.fill(t, values, valueSize)
	wire := newProxy(t, etcd.address)
	n := newNode(t, wire.address(), "")
	n.does(0, "snapshot", "save")
	before := n.files()

	over := make(chan struct{})
	defer close(over)
	wire.befalls(at(early, func([]byte) bool { <-over; return false }))
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + wire.address()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	report, err := etcdbackup.Save(t.Context(), etcdbackup.FromClient(client, ""), []etcdbackup.Local{n.store()}, etcdbackup.Request{
		Host: "cp1", Now: time.Now(), Retention: etcdbackup.Retention{KeepLast: 1}, Compress: true, Stall: 2 * time.Second,
		Scratch: func(int64) (*os.File, error) { return host.New(n.root).ScratchFile(storeDir) },
	})
	if !errors.Is(err, etcdbackup.ErrStalled) || report.Saved() {
		t.Errorf("%+v, %v, want ErrStalled", report, err)
	}
	if after := n.files(); !slices.Equal(after, before) {
		t.Errorf("the store holds %q, and before %q", after, before)
	}
	n.verified()
}
