package etcdbackup

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"go.etcd.io/bbolt"
)

// However few keys are remembered at a time, and so however often the database is walked, what
// is read in it is the same.
func TestFewKeysAtATime(t *testing.T) {
	path := t.TempDir() + "/db"
	random := rand.New(rand.NewPCG(1, 1))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucket([]byte("key"))
		if err != nil {
			return err
		}
		for i := range 5000 {
			name := fmt.Sprintf("%04d", random.IntN(1000))
			revision := fmt.Appendf([]byte{0, 0, 0, 0, 0, 0, byte((i + 256) >> 8), byte(i)}, "_\x00\x00\x00\x00\x00\x00\x00\x00")
			if exists[name] = random.IntN(4) > 0; !exists[name] {
				revision = append(revision, 't')
			}
			if err := bucket.Put(revision, append([]byte{10, 4}, name...)); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return meta.Put([]byte("finishedCompactRev"), []byte("\x00\x00\x00\x00\x00\x00\x0c\x00_\x00\x00\x00\x00\x00\x00\x00\x00"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := readMeta(data)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, there := range exists {
		if there {
			want++
		}
	}
	whole, err := inspection{data, m, 1 << 20}.run(t.Context())
	if err != nil || whole.Keys != want || whole.Rows != 5000 || whole.CompactRevision != 0xc00 {
		t.Fatalf("%+v, %v, want %d keys", whole, err, want)
	}
	for _, most := range []int{1, 7, 100, 500, want, want + 1} {
		if got, err := (inspection{data, m, most}).run(t.Context()); err != nil || got != whole {
			t.Errorf("%d at a time: %+v, %v, want %+v", most, got, err, whole)
		}
	}
}
