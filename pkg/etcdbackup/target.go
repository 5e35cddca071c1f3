package etcdbackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// margin is what stays free in a store beside the new backup, whatever its reserve: what is
// expected of a snapshot's size is not what comes.
const margin = 64 << 20

// errNoTarget ends a stream that no store takes any more.
var errNoTarget = errors.New("no store takes the snapshot")

// target is one store in one save.
type target struct {
	Local
	draft  Draft
	report StoreReport
}

// open makes room for a backup of a database of so many bytes, and for the scratch file beside
// it where one is needed, and begins it.
func (t *target) open(ctx context.Context, req Request, size int64, scratch bool) {
	need, err := t.makeRoom(ctx, req, size, scratch)
	if err == nil {
		t.draft, err = t.Create(ctx, need)
	}
	if err != nil {
		t.draft = nil
		t.fail(err)
	}
}

// fail records why the store does not get the backup and gives its space back.
func (t *target) fail(err error) {
	t.report.Err = errors.Join(t.report.Err, err)
	t.abort()
}

func (t *target) abort() {
	if t.draft == nil {
		return
	}
	if err := t.draft.Abort(); err != nil {
		t.report.Err = errors.Join(t.report.Err, err)
	}
	t.draft = nil
}

// targets are the stores of one save.
type targets []*target

// live are those that can still get the backup.
func (ts targets) live() targets {
	var live targets
	for _, t := range ts {
		if t.draft != nil {
			live = append(live, t)
		}
	}
	return live
}

// plain is the local file of one of them; nil where none has one.
func (ts targets) plain() *os.File {
	for _, t := range ts {
		if f := t.draft.File(); f != nil {
			return f
		}
	}
	return nil
}

// Write gives p to every live target; one that cannot be written fails alone.
func (ts targets) Write(p []byte) (int, error) {
	live := ts.live()
	if len(live) == 0 {
		return 0, errNoTarget
	}
	for _, t := range live {
		if _, err := t.draft.Write(p); err != nil {
			t.fail(err)
		}
	}
	return len(p), nil
}

// checkEvery is after how much of the snapshot the stores' room is looked at again.
const checkEvery = 16 << 20

// watched is written the plain snapshot, and ends the targets whose reserve is reached: of what is
// compressed little comes to a draft while the file to verify it in, which may lie on the same
// filesystem, grows by all of it.
type watched struct {
	io.Writer
	ctx     context.Context //nolint:containedctx // of the one stream that it is made for
	targets targets
	since   int64
}

func (w *watched) Write(p []byte) (int, error) {
	if w.since += int64(len(p)); w.since >= checkEvery {
		w.since = 0
		for _, t := range w.targets.live() {
			room, err := t.Room(w.ctx)
			if err == nil && room.Size > 0 && room.Free < 0 {
				err = fmt.Errorf("%w: others have taken it while the snapshot was written, and what is reserved is left alone", ErrNoSpace)
			}
			if err != nil {
				t.fail(err)
			}
		}
	}
	return w.Writer.Write(p)
}

// publish commits the files and the object, then the manifest, and then tidies up.
func (t *target) publish(ctx context.Context, m Manifest, archive []byte, req Request) {
	if req.Permit != nil {
		if err := req.Permit(ctx, t.Local); err != nil {
			t.fail(fmt.Errorf("not published: %w", err))
			return
		}
	}
	wrote, err := t.commit(ctx, m, archive)
	if err != nil {
		for _, name := range slices.Backward(wrote) { // the manifest first
			err = errors.Join(err, t.Delete(ctx, name))
		}
		t.fail(err)
		return
	}
	t.report.Saved = true
	if req.Published != nil {
		if err := req.Published(ctx, t.Local, m); err != nil {
			t.fail(fmt.Errorf("saved, but that could not be recorded: %w", err))
		}
	}
	removed, err := tidy(ctx, t.Local, req)
	t.report.Removed = append(t.report.Removed, removed...)
	if err != nil {
		t.fail(fmt.Errorf("saved, but the older ones could not be pruned: %w", err))
	}
}

// commit returns the names under which something of this backup lies in the store, or may, in the
// order it was written. A name that was taken is not among them: what lies there is another's.
func (t *target) commit(ctx context.Context, m Manifest, archive []byte) (wrote []string, err error) {
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	did := func(name string, err error) error {
		if !errors.Is(err, fs.ErrExist) {
			wrote = append(wrote, name)
		}
		return err
	}
	if m.Files != nil {
		if err := did(m.Files.Name, put(ctx, t.Local, m.Files.Name, archive)); err != nil {
			return wrote, fmt.Errorf("write files: %w", err)
		}
	}
	draft := t.draft
	t.draft = nil // Commit ends it, whatever comes of it
	if err := did(m.Object.Name, draft.Commit(ctx, m.Object.Name)); err != nil {
		return wrote, err
	}
	name := ManifestName(m.Object.Name)
	if err := did(name, put(ctx, t.Local, name, data)); err != nil {
		return wrote, fmt.Errorf("write manifest: %w", err)
	}
	return wrote, nil
}

// put writes a small object.
func put(ctx context.Context, store Store, name string, data []byte) error {
	return store.Put(ctx, name, io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))))
}
