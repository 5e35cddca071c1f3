package etcdbackup_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/storetest"
)

func TestBoundedStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) etcdbackup.Store {
		_, s := newStore(t)
		return etcdbackup.Bounded(s, time.Minute)
	})
}

// hanging heeds no context, as a share whose server is gone, until it is released; of an object it
// reads one byte each so often.
type hanging struct {
	released chan struct{}
	pace     time.Duration
}

func (h hanging) String() string { return "hanging" }

func (h hanging) List(context.Context) ([]etcdbackup.Object, error) {
	<-h.released
	return nil, nil
}

func (h hanging) Open(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("x"), hungReader(h))), nil
}

func (h hanging) Put(_ context.Context, _ string, content *io.SectionReader) error {
	b := make([]byte, 1)
	for at := range content.Size() {
		time.Sleep(h.pace)
		if _, err := content.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

func (h hanging) Delete(context.Context, string) error {
	<-h.released
	return nil
}

type hungReader hanging

func (h hungReader) Read([]byte) (int, error) {
	<-h.released
	return 0, io.EOF
}

// A store that answers nothing is given up after its time, whatever is asked of it, and is not asked
// again before it has answered.
func TestBoundedGivesUp(t *testing.T) {
	for name, ask := range map[string]func(t *testing.T, s etcdbackup.Store) error{
		"list":   func(t *testing.T, s etcdbackup.Store) error { _, err := s.List(t.Context()); return err },
		"delete": func(t *testing.T, s etcdbackup.Store) error { return s.Delete(t.Context(), "a") },
		"read": func(t *testing.T, s etcdbackup.Store) error {
			r, err := s.Open(t.Context(), "a")
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			if string(data) != "x" {
				t.Errorf("it read %q", data)
			}
			return errors.Join(err, r.Close())
		},
		"put": func(t *testing.T, s etcdbackup.Store) error { return s.Put(t.Context(), "a", section([]byte("ab"))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hanging{released: make(chan struct{}), pace: time.Hour}
				s := etcdbackup.Bounded(h, time.Minute)
				began := time.Now()
				err := ask(t, s)
				if took := time.Since(began); !errors.Is(err, etcdbackup.ErrNoAnswer) || took < time.Minute || took > time.Minute+2*time.Second {
					t.Errorf("%v after %s", err, took)
				}
				began = time.Now()
				if _, err := s.List(t.Context()); !errors.Is(err, etcdbackup.ErrNoAnswer) || time.Since(began) != 0 {
					t.Errorf("while it hangs: %v after %s", err, time.Since(began))
				}
				close(h.released)
				time.Sleep(3 * time.Hour)
				if _, err := s.List(t.Context()); err != nil {
					t.Errorf("once it has answered: %v", err)
				}
			})
		})
	}
}

// What moves, however slowly, is not given up; the one who asks may give up at any time.
func TestBoundedIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := etcdbackup.Bounded(hanging{pace: 50 * time.Second}, time.Minute)
		began := time.Now()
		if err := s.Put(t.Context(), "a", section(make([]byte, 1000))); err != nil || time.Since(began) < 10*time.Hour {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		if err := s.Put(ctx, "a", section(make([]byte, 10))); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute+2*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		time.Sleep(time.Hour)
	})
}
