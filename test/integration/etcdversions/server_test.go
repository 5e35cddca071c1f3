//go:build integration

// Package etcdversions_test holds what nodeagent reads in a snapshot against what the etcd it
// came from says of itself. It makes the snapshots in pkg/etcdbackup/testdata/snapshots too:
//
//	go test -tags integration ./test/integration/etcdversions -programs DIR -update
//
// where DIR has etcd, etcdctl and, since 3.5, etcdutl of one version.
package etcdversions_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// server is an etcd of the version under test, in a process of its own.
type server struct {
	*clientv3.Client
	bin, endpoint, data string
	stop                func()
}

// run starts a member on loopback. Its data directory is empty, or one that a member had.
func run(t *testing.T, bin, data string, args ...string) *server {
	t.Helper()
	client, peer := "http://"+freePort(t), "http://"+freePort(t)
	s := &server{bin: bin, endpoint: client, data: data}
	cmd := exec.Command(filepath.Join(bin, "etcd"), append([]string{
		"--name=m", "--data-dir=" + data, "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=m=" + peer,
	}, args...)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "etcd.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = func() {
		if s.stop = func() {}; s.Client != nil {
			_ = s.Close()
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it ends by the signal
		_ = log.Close()
	}
	t.Cleanup(func() { s.stop() })
	s.Client, err = clientv3.New(clientv3.Config{Endpoints: []string{client}, DialTimeout: 30 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if _, err = s.Get(ctx, "x"); err == nil {
			return s
		}
		if ctx.Err() != nil {
			said, _ := os.ReadFile(log.Name())
			t.Fatalf("etcd does not answer: %v\n%s", err, said)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ctl runs etcdctl of the same version.
func (s *server) ctl(t *testing.T, args ...string) string {
	t.Helper()
	return program(t, filepath.Join(s.bin, "etcdctl"), append([]string{"--endpoints=" + s.endpoint}, args...)...)
}

func program(t *testing.T, path string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{"ETCDCTL_API=3"}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(path), args, err, stderr.String())
	}
	return string(out)
}

// snapshot is what etcdctl of the same version saves.
func (s *server) snapshot(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	s.ctl(t, "snapshot", "save", path)
	return path
}

// said is what the member says of its own content.
type said struct {
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
	Keys            int64  `json:"keys"`
	KVHash          uint32 `json:"kvHash"`
}

func (s *server) says(t *testing.T) said {
	t.Helper()
	all, err := s.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	hash, err2 := s.HashKV(t.Context(), s.endpoint, 0)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return said{all.Header.Revision, hash.CompactRevision, all.Count, hash.Hash}
}

func (s *server) put(t *testing.T, n int, value func(i int) string) {
	t.Helper()
	for i := range n {
		if _, err := s.Put(t.Context(), fmt.Sprintf("/registry/k%04d", i), value(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *server) del(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *server) head(t *testing.T) int64 {
	t.Helper()
	r, err := s.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

func (s *server) compact(t *testing.T, revision int64, opts ...clientv3.CompactOption) {
	t.Helper()
	if _, err := s.Compact(t.Context(), revision, opts...); err != nil {
		t.Fatal(err)
	}
}
