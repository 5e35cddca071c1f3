package etcdbackup_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// A scheduled save is slow on purpose, and that is no stall; one of a large database ends in ten
// minutes all the same, and one near its quota is not held up.
func TestRate(t *testing.T) {
	data := genuine(t)
	for name, tt := range map[string]struct {
		rate        string
		size, quota int64
		least, most time.Duration // for the stream, of which the first MiB is free
	}{
		"unlimited":      {"unlimited", 1 << 30, 8 << 30, 0, 0},
		"auto":           {"auto", 1 << 30, 8 << 30, 7 * time.Second, 9 * time.Second},
		"large":          {"auto", 40 << 30, 0, 0, 2 * time.Second},
		"near its quota": {"auto", 7 << 30, 8 << 30, 0, 0},
		"as told":        {"1MiB", 1 << 30, 8 << 30, 75 * time.Second, 85 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := etcdbackup.ParseRate(tt.rate)
				if err != nil {
					t.Fatal(err)
				}
				padded := withTrailer(append(data[:len(data)-32:len(data)-32], make([]byte, 80<<20)...))
				fake := described{sends(nil), etcdbackup.Description{Size: tt.size, Quota: tt.quota}}
				fake.stream = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(padded)), nil }
				_, s := newStore(t)
				req := request(noon)
				req.Rate = r
				began := time.Now()
				// The padding is no database: what is looked at is how long it took to come to that.
				if _, err := etcdbackup.Save(t.Context(), fake, []etcdbackup.Local{s}, req); err == nil {
					t.Error("what is no database was saved")
				}
				if took := time.Since(began); took < tt.least || took > tt.most {
					t.Errorf("took %s, want %s to %s", took, tt.least, tt.most)
				}
			})
		})
	}
}

// described says of a fake member what a real one would.
type described struct {
	fakeSource
	description etcdbackup.Description
}

func (d described) Describe(context.Context) (etcdbackup.Description, error) {
	return d.description, nil
}
