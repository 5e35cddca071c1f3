package etcdbackup_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// fakeSource sends what it is given instead of what etcd would.
type fakeSource struct {
	size    int64
	cluster string // its id; "" is that of none
	stream  func(context.Context) (io.ReadCloser, error)
}

func (s fakeSource) Describe(context.Context) (etcdbackup.Description, error) {
	d := etcdbackup.Description{Member: etcdbackup.Member{ClusterID: "1", MemberID: "2", Version: "3.6.8"}, Size: s.size}
	if s.cluster != "" {
		d.Cluster = etcdbackup.Cluster{Kind: etcdbackup.KubeSystem, ID: s.cluster}
	}
	return d, nil
}

func (s fakeSource) Snapshot(ctx context.Context) (io.ReadCloser, error) { return s.stream(ctx) }

func sends(data []byte) fakeSource {
	return fakeSource{stream: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// genuine is a snapshot of the real member.
func genuine(t *testing.T) []byte {
	t.Helper()
	r, err := source(t).Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// altered sends the real member's snapshot as change makes it.
func altered(t *testing.T, change func([]byte) []byte) fakeSource {
	t.Helper()
	return sends(change(genuine(t)))
}

// saveFails saves from source, which has to fail and to leave nothing.
func saveFails(t *testing.T, source etcdbackup.Source) error {
	t.Helper()
	h, s := newStore(t)
	report, err := etcdbackup.Save(t.Context(), source, []etcdbackup.Local{s}, request(noon))
	if err == nil || report.Saved() || report.Stores[0].Saved {
		t.Errorf("report %+v, error %v, want a failure", report, err)
	}
	if got := files(t, h); len(got) != 0 {
		t.Errorf("left %q", got)
	}
	return err
}

// etcd-backup-restore#778, #749, #45 and etcd#18340: damage that was found when restoring. The
// first two kinds pass `etcdutl snapshot status`.
func TestDamagedSnapshot(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"one bit changed":        func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"hash cut off":           func(b []byte) []byte { return b[:len(b)-32] },
		"one bit of hash":        func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"truncated in a page":    func(b []byte) []byte { return b[:len(b)/2+7] },
		"truncated, whole pages": func(b []byte) []byte { return b[:len(b)/8192*4096] },
		"truncated to 32 in 512": func(b []byte) []byte { return b[:len(b)/8192*4096+32] },
		"only a hash":            func(b []byte) []byte { return b[len(b)-32:] },
		"twice":                  func(b []byte) []byte { return append(b, b...) },
		"empty":                  func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			if err := saveFails(t, altered(t, change)); !errors.Is(err, etcdbackup.ErrTrailer) {
				t.Errorf("error %v, want ErrTrailer", err)
			}
		})
	}
}

// A stream whose trailer is right and which is no database all the same.
func TestBrokenStructure(t *testing.T) {
	for name, page := range map[string]func([]byte) []byte{
		"zeros":             func([]byte) []byte { return make([]byte, 1<<16) },
		"meta pages only":   func(b []byte) []byte { return b[:8192] },
		"data pages zeroed": func(b []byte) []byte { clear(b[8192:]); return b },
		"pages swapped":     func(b []byte) []byte { copy(b[8192:], bytes.Clone(b[12288:])); return b },
		"elements far away": farAway,
		"a page appended":   func(b []byte) []byte { return append(slices.Clip(b), make([]byte, 4096)...) },
		"keys out of order": func(b []byte) []byte { return bytes.ReplaceAll(b, row(50), row(1<<40)) },
		"data pages noise":  func(b []byte) []byte { copy(b[8192:], bytes.Repeat([]byte{0xa5}, len(b))); return b },
	} {
		t.Run(name, func(t *testing.T) {
			data := genuine(t)
			err := saveFails(t, sends(withTrailer(page(data[:len(data)-32]))))
			if err == nil || errors.Is(err, etcdbackup.ErrTrailer) || !strings.Contains(err.Error(), "inspect snapshot") {
				t.Errorf("error %v, want one about the structure", err)
			}
		})
	}
}

// row is the key of a revision in the database.
func row(revision uint64) []byte {
	return append(append(binary.BigEndian.AppendUint64(nil, revision), '_'), make([]byte, 8)...)
}

// farAway makes every element of every leaf page point beyond what is mapped.
func farAway(b []byte) []byte {
	const page, leaf, header, element = 4096, 2, 16, 16
	for at := 2 * page; at < len(b); at += page {
		if binary.NativeEndian.Uint16(b[at+8:]) != leaf {
			continue
		}
		for i := range int(binary.NativeEndian.Uint16(b[at+10:])) {
			binary.NativeEndian.PutUint32(b[at+header+i*element+4:], 0x70000000)
		}
	}
	return b
}

func TestEtcdFails(t *testing.T) {
	data := genuine(t)
	reset := errors.New("connection reset")
	for name, fake := range map[string]fakeSource{
		"before the stream": {stream: func(context.Context) (io.ReadCloser, error) { return nil, reset }},
		"within the stream": {stream: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data[:len(data)/2]), failing{reset})), nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := saveFails(t, fake); !errors.Is(err, reset) {
				t.Errorf("error %v, want the cause", err)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// etcd-druid#307: a fixed time-out on the whole is too short for somebody. Only silence ends a
// save: slow is fine.
func TestStall(t *testing.T) {
	data := genuine(t)
	slow := func(pieces int) fakeSource {
		return fakeSource{stream: func(ctx context.Context) (io.ReadCloser, error) {
			return &drip{ctx: ctx, data: data, piece: len(data)/100 + 1, pieces: pieces, every: 29 * time.Second}, nil
		}}
	}
	synctest.Test(t, func(t *testing.T) {
		_, s := newStore(t)
		began := time.Now()
		report, err := etcdbackup.Save(t.Context(), slow(100), []etcdbackup.Local{s}, request(noon))
		if err != nil || !report.Stores[0].Saved {
			t.Errorf("a slow stream of %s: %+v, %v", time.Since(began), report, err)
		}
		if time.Since(began) < 45*time.Minute {
			t.Errorf("the slow stream took %s: it proves nothing", time.Since(began))
		}

		began = time.Now()
		err = saveFails(t, slow(50))
		if took := time.Since(began) - 50*29*time.Second; !errors.Is(err, etcdbackup.ErrStalled) || took != etcdbackup.DefaultStall {
			t.Errorf("a stream that stops: %v after %s, want ErrStalled after %s", err, took, etcdbackup.DefaultStall)
		}

		began = time.Now()
		_, s = newStore(t)
		quick := fakeSource{stream: func(ctx context.Context) (io.ReadCloser, error) {
			return &drip{ctx: ctx, data: data, piece: len(data)/2 + 1, pieces: 2, every: time.Second}, nil
		}}
		report, err = etcdbackup.Save(t.Context(), quick, []etcdbackup.Local{slowDisk{s}}, request(noon))
		if err != nil || !report.Stores[0].Saved || time.Since(began) < 2*etcdbackup.DefaultStall {
			t.Errorf("a slow disk: %+v, %v after %s", report, err, time.Since(began))
		}

		began = time.Now()
		silent := fakeSource{stream: func(ctx context.Context) (io.ReadCloser, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		if err := saveFails(t, silent); !errors.Is(err, etcdbackup.ErrStalled) || time.Since(began) != etcdbackup.DefaultStall {
			t.Errorf("a stream that never opens: %v after %s", err, time.Since(began))
		}
	})
}

// drip sends a piece at a time and nothing after so many pieces.
type drip struct {
	ctx           context.Context
	data          []byte
	piece, pieces int
	every         time.Duration
}

func (d *drip) Read(p []byte) (int, error) {
	if len(d.data) == 0 {
		return 0, io.EOF
	}
	if d.pieces == 0 {
		<-d.ctx.Done()
		return 0, d.ctx.Err()
	}
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-time.After(d.every):
	}
	d.pieces--
	n := copy(p, d.data[:min(d.piece, len(d.data))])
	d.data = d.data[n:]
	return n, nil
}

func (d *drip) Close() error { return nil }

// slowDisk takes longer for each write than etcd may be silent.
type slowDisk struct{ *file.Store }

func (s slowDisk) Create(ctx context.Context, size int64) (etcdbackup.Draft, error) {
	d, err := s.Store.Create(ctx, size)
	return slowDraft{d}, err
}

type slowDraft struct{ etcdbackup.Draft }

func (d slowDraft) Write(p []byte) (int, error) {
	time.Sleep(2 * etcdbackup.DefaultStall)
	return d.Draft.Write(p)
}

func TestCancelled(t *testing.T) {
	data := genuine(t)
	for name, stream := range map[string]func(context.Context, func()) (io.ReadCloser, error){
		"before the stream": func(ctx context.Context, cancel func()) (io.ReadCloser, error) {
			cancel()
			return nil, ctx.Err()
		},
		"after the stream": func(_ context.Context, cancel func()) (io.ReadCloser, error) {
			return closer{bytes.NewReader(data), cancel}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			fake := fakeSource{stream: func(ctx context.Context) (io.ReadCloser, error) { return stream(ctx, cancel) }}
			h, s := newStore(t)
			if _, err := etcdbackup.Save(ctx, fake, []etcdbackup.Local{s}, request(noon)); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want context.Canceled", err)
			}
			if got := files(t, h); len(got) != 0 {
				t.Errorf("left %q", got)
			}
		})
	}
}

// closer calls a function when it is closed.
type closer struct {
	io.Reader
	closed func()
}

func (c closer) Close() error {
	c.closed()
	return nil
}

// kubekey#1625: a full disk ended in deleted files.
func TestNoSpace(t *testing.T) {
	_, s := newStore(t)
	save(t, s, noon)
	fake := fakeSource{size: 1 << 60, stream: func(context.Context) (io.ReadCloser, error) {
		t.Error("the stream was opened")
		return nil, fs.ErrInvalid
	}}
	if _, err := etcdbackup.Save(t.Context(), fake, []etcdbackup.Local{s}, request(noon.Add(time.Hour))); !errors.Is(err, etcdbackup.ErrNoSpace) {
		t.Errorf("error %v, want ErrNoSpace", err)
	}
	wantBackups(t, s, noon)
}

var errBroken = errors.New("broken")

// broken is a store that takes only so many bytes of an object, or, when that is 0, whole
// objects but no manifest.
type broken struct {
	*file.Store
	atByte int
}

func (s broken) Create(ctx context.Context, size int64) (etcdbackup.Draft, error) {
	d, err := s.Store.Create(ctx, size)
	return &brokenDraft{Draft: d, store: s}, err
}

type brokenDraft struct {
	etcdbackup.Draft
	store broken
	wrote int
}

func (d *brokenDraft) Write(p []byte) (int, error) {
	d.wrote += len(p)
	if d.store.atByte > 0 && d.wrote > d.store.atByte {
		return 0, errBroken
	}
	return d.Draft.Write(p)
}

func (s broken) Put(ctx context.Context, name string, content *io.SectionReader) error {
	if strings.HasSuffix(name, ".json") {
		return errBroken
	}
	return s.Store.Put(ctx, name, content)
}

func TestVerifyFindsDamage(t *testing.T) {
	h, s := newStore(t)
	m := save(t, s, noon)
	path := filepath.Join(dir, m.Object.Name)
	data, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"a bit":     func(b []byte) []byte { b[len(b)/3] ^= 4; return b },
		"truncated": func(b []byte) []byte { return b[:len(b)-32] },
		"longer":    func(b []byte) []byte { return append(b, 0) },
		"another":   func(b []byte) []byte { return withTrailer(b[:8192]) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := h.WriteFile(path, change(bytes.Clone(data)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, etcdbackup.Identities{}); err == nil {
				t.Error("verified")
			}
		})
	}
	if _, err := etcdbackup.Verify(t.Context(), s, "20260101T000000Z-cp1-1.db", etcdbackup.Identities{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
}
