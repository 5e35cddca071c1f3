//go:build integration

package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/s3"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/storetest"
)

func TestContract(t *testing.T) {
	for name, secure := range map[string]bool{"http": false, "https, own authority": true} {
		t.Run(name, func(t *testing.T) {
			server := start(t, secure)
			n := 0
			storetest.Run(t, func(t *testing.T) etcdbackup.Store {
				node := server.node(t)
				n++
				node.cfg.Prefix = fmt.Sprintf("clusters/%d", n)
				return node.store(t)
			})
		})
	}
}

// content is reproducible and does not compress.
func content(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // it never fails
	return data
}

func section(data []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))
}

func put(t *testing.T, s *s3.Store, name string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, section(data)); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, s *s3.Store, name string) ([]byte, error) {
	r, err := s.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func wantContent(t *testing.T, s *s3.Store, name string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), s, name)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%s: read %d bytes that are not the %d written", name, len(got), len(want))
	}
}

func wantNames(t *testing.T, s *s3.Store, want ...string) {
	t.Helper()
	objects, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, o := range objects {
		got[o.Name] = true
	}
	expected := map[string]bool{}
	for _, name := range want {
		expected[name] = true
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Errorf("listed, -want +got\n%s", diff)
	}
}

const manyParts = 33<<20 + 12345 // two

// Both ways to send have the server store the CRC32C of what left the host.
func TestChecksumsAreStored(t *testing.T) {
	for name, secure := range map[string]bool{"http": false, "https": true} {
		t.Run(name, func(t *testing.T) {
			server := start(t, secure)
			store := server.node(t).store(t)
			for name, size := range map[string]int{"one-part": 1 << 20, "parts": manyParts} {
				data := content(size)
				put(t, store, name, data)
				wantContent(t, store, name, data)
				about, err := server.admin.StatObject(t.Context(), bucket, name, minio.StatObjectOptions{Checksum: true})
				if err != nil {
					t.Fatal(err)
				}
				if about.ChecksumCRC32C == "" || about.Size != int64(size) {
					t.Errorf("%s: %d bytes, CRC32C %q", name, about.Size, about.ChecksumCRC32C)
				}
			}
			if left := uploads(t, server); len(left) != 0 {
				t.Errorf("unfinished uploads: %q", left)
			}
		})
	}
}

func uploads(t *testing.T, server *server) (keys []string) {
	t.Helper()
	for u := range server.admin.ListIncompleteUploads(t.Context(), bucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		keys = append(keys, u.Key)
	}
	return keys
}

// More than a page of objects, folders below, and keys that are no names.
func TestListAThousand(t *testing.T) {
	server := start(t, false)
	node := server.node(t)
	node.cfg.Prefix = "blue"
	store := node.store(t)
	var want []string
	place := func(key string) {
		if _, err := server.admin.PutObject(t.Context(), bucket, key, strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
	}
	for i := range 1203 {
		name := fmt.Sprintf("%04d", i)
		want = append(want, name)
		place("blue/" + name)
	}
	for _, key := range []string{
		"blue/deeper/0001", "blue/deeper/and/deeper", "bluer/0001", "green/0001", "0001", "blue0001",
		"blue/.hidden", "blue/..hidden", "blue/...",
	} {
		place(key)
	}
	strange := []string{"with space", "ä", "a\nb", "a+b%20c", "a&b=c?d#e", `<a>"'`}
	for _, name := range strange {
		place("blue/" + name)
	}
	wantNames(t, store, append(want, strange...)...)
	for _, name := range strange {
		wantContent(t, store, name, []byte("x"))
	}
}

func TestMissing(t *testing.T) {
	server := start(t, false)
	store := server.node(t).store(t)
	if _, err := store.Open(t.Context(), "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	put(t, store, "lost", content(100))
	if err := server.admin.RemoveObject(t.Context(), bucket, "lost", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), "lost"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open what was removed behind our back: %v", err)
	}
}
