//go:build integration

package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// fleet is a daemon beside each member, and the stores that they share.
type fleet struct {
	*cluster
	recipient string
	daemons   [members + 1]*daemon
	stores    []store
	anothers  string // the backup of another cluster in each of them
}

// store is one of the daemons', as the test reads it behind their back.
type store struct {
	name, path string
	files      *file.Store
}

type daemon struct {
	cmd *exec.Cmd
	log *bytes.Buffer // to be read once it has ended
}

const (
	// s3Address is of the namespace that the wires end in, and every member reaches it.
	s3Address = "10.78.1.1:7070"
	s3Key     = "AKIDNODEAGENTTEST"
	bucket    = "backups"
)

func newFleet(t *testing.T, c *cluster) *fleet {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{cluster: c, recipient: identity.Recipient().String()}
	share := t.TempDir()
	if err := unix.Mount("share", share, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, share) })
	for i := 1; i <= members; i++ {
		mount := filepath.Join(f.daemonRoot(i), "mnt/share")
		if err := os.MkdirAll(mount, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(share, mount, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unmount(t, mount) })
	}
	s3 := etcdbackup.S3Config{Endpoint: "http://" + s3Address, Bucket: bucket, PathStyle: true}
	f.stores = []store{{name: "file /mnt/share", path: share}, {name: s3.String(), path: f.startS3(t)}}
	for i, s := range f.stores {
		f.stores[i].files = file.New(host.New(filepath.Dir(s.path)), "/"+filepath.Base(s.path), "test")
	}
	return f
}

func unmount(t *testing.T, path string) {
	if err := unix.Unmount(path, 0); err != nil {
		t.Errorf("unmount %s: %v", path, err)
	}
}

// startS3 starts the S3 server, whose buckets are directories, and returns the bucket.
func (f *fleet) startS3(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, bucket)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(os.Getenv(s3Env), "versitygw"), "--port", s3Address, "--access", s3Key, "--secret", s3Key, "posix", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = []string{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	return path
}

func (f *fleet) daemonRoot(i int) string { return f.path("shares-" + name(i)) }

func (f *fleet) configure(t *testing.T, i int, when string) {
	t.Helper()
	f.cluster.configure(t, i, f.daemonRoot(i), fmt.Sprintf("%s, recipients: [%s], retention: {keepLast: %d}, stores: [{file: {dir: %s}}, {file: {dir: /mnt/share, shared: true}}, "+
		"{s3: {endpoint: \"http://%s\", bucket: %s, pathStyle: true, accessKeyFile: /s3/access, secretKeyFile: /s3/secret, allowPlaintext: true}}]", when, f.recipient, kept, ownDir, s3Address, bucket))
	h := host.New(f.daemonRoot(i))
	if err := h.MkdirAll("/s3", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/s3/access", "/s3/secret"} {
		if err := h.WriteFile(path, []byte(s3Key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fleet) start(t *testing.T, i int) {
	t.Helper()
	d := &daemon{inside(i, os.Getenv(programEnv), "--root", f.daemonRoot(i), "run"), &bytes.Buffer{}}
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill(d.cmd)
		if t.Failed() {
			t.Logf("%s says\n%s", name(i), d.log)
		}
	})
	f.daemons[i] = d
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("a daemon ends: %v", err)
	}
}

func (d *daemon) reload(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// own is a member's own store.
func (f *fleet) own(i int) store {
	return store{files: file.New(host.New(f.daemonRoot(i)), ownDir, name(i))}
}

// names are the backups in a store, by time.
func (f *fleet) names(t *testing.T, s store) (names []string) {
	t.Helper()
	list, err := etcdbackup.List(t.Context(), s.files)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Backups {
		names = append(names, m.Object.Name)
	}
	slices.Sort(names)
	return names
}

// spooled is how many files wait on a member to be uploaded.
func (f *fleet) spooled(t *testing.T, i int) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(f.daemonRoot(i), etcdbackup.SpoolDir, "*", "*.db*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// metric is the value of a series of a daemon; false while it has none.
func (f *fleet) metric(i int, series string) (float64, bool) {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + address(i) + ":9400/metrics")
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(page)) {
		if text, is := strings.CutPrefix(strings.TrimSpace(line), series+" "); is {
			value, err := strconv.ParseFloat(text, 64)
			return value, err == nil
		}
	}
	return 0, false
}

// lastSuccess is what a daemon publishes of a store.
func (f *fleet) lastSuccess(i int, s store) int64 {
	value, _ := f.metric(i, `nodeagent_etcd_snapshot_last_success_timestamp_seconds{store="`+s.name+`"}`)
	return int64(value)
}

// rests says that a daemon will not save any more.
func (f *fleet) rests(i int) bool {
	next, there := f.metric(i, `nodeagent_job_next_run_timestamp_seconds{job_name="snapshot"}`)
	return there && time.Unix(int64(next), 0).After(time.Now().AddDate(1, 0, 0))
}

// settled waits for a daemon to publish what the shared stores got last, and to have done what it had to do.
func (f *fleet) settled(t *testing.T, i int) {
	t.Helper()
	until(t, name(i)+" to know what the shared stores have", func(context.Context) bool {
		for _, s := range f.stores {
			if f.lastSuccess(i, s) != f.record(t, s).Uploaded.Saved.Unix() {
				return false
			}
		}
		return f.rests(i)
	})
}

func (f *fleet) record(t *testing.T, s store) etcdbackup.SlotRecord {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	id := etcdbackup.SpoolID(s.name)
	records, err := etcdbackup.SlotRecords(ctx, f.client, id)
	if err != nil {
		t.Fatal(err)
	}
	return records[id]
}

func (c *cluster) revision(t *testing.T) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := c.client.Get(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// slot is what a slot record says of one.
type slot struct {
	Slot  time.Time
	Taken etcdbackup.SlotBackup
}

// taken are the slots of a store that were taken since a revision, in their order in etcd.
func (f *fleet) taken(t *testing.T, s store, since int64) (slots []slot) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	key := etcd.Prefix + "backup/slots/" + etcdbackup.SpoolID(s.name)
	now, err := f.client.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(now.Kvs) == 0 || now.Kvs[0].ModRevision <= since {
		return nil
	}
	var before slot
	if was, err := f.client.Get(ctx, key, clientv3.WithRev(since)); err != nil {
		t.Fatal(err)
	} else if len(was.Kvs) > 0 {
		before = readSlot(t, was.Kvs[0].Value)
	}
	for resp := range f.client.Watch(ctx, key, clientv3.WithRev(since+1)) {
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.Events {
			if taken := readSlot(t, e.Kv.Value); taken != before { // else an upload is recorded
				slots, before = append(slots, taken), taken
			}
			if e.Kv.ModRevision >= now.Kvs[0].ModRevision {
				return slots
			}
		}
	}
	t.Fatal("the history of the slots has no end")
	return nil
}

func readSlot(t *testing.T, value []byte) (s slot) {
	t.Helper()
	if err := json.Unmarshal(value, &s); err != nil {
		t.Fatal(err)
	}
	return s
}
