package etcdbackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

// UploadRequest says how backups go from a spool to their store.
type UploadRequest struct {
	Host      string    // this one
	Now       time.Time // its time zone is the one that days are of
	Retention Retention // of the store, over all backups of the cluster
	// Progress, unless it is nil, is told how much of a backup's object has been read for the store,
	// which may read some of it again.
	Progress func(object string, done, total int64)
}

// UploadReport is what an upload did.
type UploadReport struct {
	// Uploaded are in the store: put there by this upload, or by an earlier one that did not come to
	// its end.
	Uploaded []Manifest
	Removed  []Decision // from the store, by retention
}

// Upload moves every complete backup from a spool to its store, the newest first: its objects, then
// its manifest, and what the store lists in the end it has. Then it prunes the store by retention over
// the backups of the same cluster; another cluster's are neither counted nor removed. The newest
// leaves the spool after that, so that an upload which is killed anywhere is gone on with by the next.
//
// What of a spooled backup is not as its manifest says is ErrDamaged: nothing of it is put, it stays, and
// the others are uploaded. An error of the store ends the upload. The caller sees to it that one upload
// of a spool runs at a time; saves to it may run beside it.
func Upload(ctx context.Context, from Local, to Store, req UploadRequest) (UploadReport, error) {
	u := upload{from: from, to: to, req: req}
	if u.req.Progress == nil {
		u.req.Progress = func(string, int64, int64) {}
	}
	err := u.run(ctx)
	if err != nil {
		err = fmt.Errorf("upload to %s: %w", to, err)
	}
	return u.report, err
}

type upload struct {
	from   Local
	to     Store
	req    UploadRequest
	there  map[string]int64 // the sizes of the store's objects
	report UploadReport
}

// errKept is a backup that stays in the spool although the store is all right.
var errKept = errors.New("it is not uploaded")

func (u *upload) run(ctx context.Context) error {
	spooled, err := List(ctx, u.from)
	if err != nil || len(spooled.Backups) == 0 {
		return err
	}
	if err := u.look(ctx); err != nil {
		return err
	}
	var errs []error
	for _, m := range spooled.Backups {
		err := u.one(ctx, m)
		switch {
		case errors.Is(err, errKept), errors.Is(err, ErrDamaged):
			errs = append(errs, fmt.Errorf("%s: %w", m.Object.Name, err))
			continue
		case errors.Is(err, errGone):
			continue
		case err != nil:
			return errors.Join(append(errs, fmt.Errorf("%s: %w", m.Object.Name, err))...)
		}
		u.report.Uploaded = append(u.report.Uploaded, m)
		if len(u.report.Uploaded) > 1 {
			errs = append(errs, removeBackup(ctx, u.from, spooled, m))
		}
	}
	if len(u.report.Uploaded) == 0 {
		return errors.Join(errs...)
	}
	newest := u.report.Uploaded[0]
	errs = append(errs, u.prune(ctx, newest))
	if ctx.Err() == nil {
		errs = append(errs, removeBackup(ctx, u.from, spooled, newest))
	}
	return errors.Join(errs...)
}

// look lists the store.
func (u *upload) look(ctx context.Context) error {
	objects, err := u.to.List(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	u.there = make(map[string]int64, len(objects))
	for _, o := range objects {
		u.there[o.Name] = o.Size
	}
	return nil
}

// errGone is a spooled backup that a save has removed meanwhile, for its room.
var errGone = errors.New("it is no longer in the spool")

// one sees to it that the store has a backup.
func (u *upload) one(ctx context.Context, m Manifest) error {
	manifest := ManifestName(m.Object.Name)
	_, published := u.there[manifest]
	if published {
		data, err := readSmall(ctx, u.to, manifest)
		if err != nil {
			return fmt.Errorf("read what is there: %w", err)
		}
		theirs, err := manifestOf(data, m.Object.Name)
		if err != nil || theirs.Object != m.Object || theirs.Cluster != m.Cluster {
			return fmt.Errorf("%w: the store has another backup of that name", errors.Join(errKept, err))
		}
	}
	want := []StoredObject{m.Object}
	if m.Files != nil {
		want = append(want, m.Files.StoredObject)
	}
	put := false
	for _, o := range want {
		if size, there := u.there[o.Name]; published && there && size == o.Size {
			continue
		}
		put = true
		if err := u.put(ctx, m, o); err != nil {
			return err
		}
	}
	if !published {
		put = true
		if err := u.publish(ctx, manifest); err != nil {
			return err
		}
	}
	if !put {
		return nil
	}
	if err := u.look(ctx); err != nil {
		return err
	}
	if _, there := u.there[manifest]; !there {
		return fmt.Errorf("the store has taken %s and does not list it", manifest)
	}
	return m.stored(u.there)
}

// put puts an object. What lies in its place an upload has left that did not come to its manifest.
func (u *upload) put(ctx context.Context, m Manifest, o StoredObject) (err error) {
	file, content, err := u.open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, there := u.there[o.Name]; there {
		err := u.to.Delete(ctx, o.Name)
		if errors.Is(err, ErrLocked) {
			// Then it has to do, if it is whole.
			if whole := fetchObject(ctx, u.to, o, nil, nil); whole != nil {
				return fmt.Errorf("what an earlier upload has left of %s: %w", o.Name, errors.Join(err, whole))
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("remove what an earlier upload has left: %w", err)
		}
	}
	told := &toldAt{from: content, done: func(read int64) {
		if o.Name == m.Object.Name {
			u.req.Progress(o.Name, min(read, o.Size), o.Size)
		}
	}}
	return u.to.Put(ctx, o.Name, io.NewSectionReader(told, 0, o.Size))
}

// open opens an object of the spool, which was read whole and is what the manifest says.
func (u *upload) open(ctx context.Context, o StoredObject) (io.Closer, io.ReaderAt, error) {
	file, err := u.from.Open(ctx, o.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errGone
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: read the spool: %w", errKept, err)
	}
	at, ok := file.(io.ReaderAt)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("%w: %s cannot be read at any place", errKept, u.from), file.Close())
	}
	content, err := newChecked(ctx, at, o)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, content, nil
}

// publish puts the manifest, as it lies in the spool.
func (u *upload) publish(ctx context.Context, name string) error {
	data, err := readSmall(ctx, u.from, name)
	if errors.Is(err, fs.ErrNotExist) {
		return errGone
	}
	if err != nil {
		return fmt.Errorf("%w: read the spool: %w", errKept, err)
	}
	if _, err := DecodeManifest(data); err != nil {
		return fmt.Errorf("%w: %w", errKept, err)
	}
	return u.to.Put(ctx, name, io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))))
}

// prune prunes the store. A backup that does not say which cluster it is of is pruned with this host's
// alone.
func (u *upload) prune(ctx context.Context, newest Manifest) error {
	done, err := Prune(ctx, u.to, PruneRequest{
		Host: u.req.Host, Now: u.req.Now, Retention: u.req.Retention, Mine: SameCluster(newest), Shared: true,
	})
	u.report.Removed = slices.Clip(done.Removed)
	return err
}

// SameCluster says which backups of a shared store are of the same cluster as one: those that
// retention counts. Where that does not say which cluster it is of, they are its host's that do not.
func SameCluster(as Manifest) func(Manifest) bool {
	return func(m Manifest) bool {
		return m.Cluster == as.Cluster && (as.Cluster.ID != "" || m.Host == as.Host)
	}
}
