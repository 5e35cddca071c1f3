//go:build integration

package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/s3"
	"github.com/nodeagent/nodeagent/pkg/host"
)

const (
	largeSize = 300 << 20
	// memoryLimit is for an upload alone, in anonymous memory: no part is ever held.
	memoryLimit = 40 << 20
	childEnv    = "NODEAGENT_TEST_S3_UPLOAD"
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(childEnv); endpoint != "" {
		if err := uploadLarge(endpoint); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ebr#95, ebr#102: a backup of 250 MB takes 2 GB of memory. An upload takes as little as it does of
// any size, with the memory limit that the unit sets.
func TestUploadTakesLittleMemory(t *testing.T) {
	server := start(t, true)
	node := server.node(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+node.cfg.Endpoint, "ROOT="+node.Root, "GOMEMLIMIT=32MiB")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	peak, err := strconv.ParseInt(string(bytes.TrimSpace(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB of anonymous memory for %d MiB", peak>>20, largeSize>>20)
	if peak > memoryLimit || peak == 0 {
		t.Errorf("%d MiB of anonymous memory", peak>>20)
	}
	about, err := node.store(t).List(t.Context())
	if err != nil || len(about) != 1 || about[0].Size != largeSize {
		t.Errorf("%v, %v", about, err)
	}
}

// uploadLarge is the child: it prints the most anonymous memory that it had.
func uploadLarge(endpoint string) error {
	store, err := s3.New(host.New(os.Getenv("ROOT")), etcdbackup.S3Config{
		Endpoint: endpoint, Bucket: bucket, PathStyle: true, CAFile: "/etc/nodeagent/s3/ca.crt",
		AccessKeyFile: "/etc/nodeagent/s3/access", SecretKeyFile: "/etc/nodeagent/s3/secret",
	}, "cp-1")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	go func() { done <- store.Put(ctx, "large", io.NewSectionReader(pattern{}, 0, largeSize)) }()
	var peak int64
	for {
		select {
		case err := <-done:
			fmt.Println(peak)
			return err
		case <-time.After(5 * time.Millisecond):
			now, err := anonymous()
			if err != nil {
				return err
			}
			peak = max(peak, now)
		}
	}
}

// pattern is content without a file: each byte is that of its place.
type pattern struct{}

func (pattern) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		p[i] = byte((at + int64(i)) >> 8)
	}
	return len(p), nil
}

// anonymous is the memory of this process that no file is behind.
func anonymous() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("RssAnon:"))
	kib, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
	n, err := strconv.ParseInt(string(kib), 10, 64)
	return n << 10, err
}
