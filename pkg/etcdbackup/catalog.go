package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Catalog is what a store holds.
type Catalog struct {
	Backups []Manifest // newest first
	Ignored []Ignored  // whatever else is there
}

// Ignored is an object of a store that is no backup, or no part of one.
type Ignored struct{ Name, Reason string }

// Newest is the newest backup that is not dated after now, as Retain has it; false when there is
// none. One that a clock which was ahead has dated must not put off the next.
func (c Catalog) Newest(now time.Time) (Manifest, bool) {
	for _, m := range c.Backups {
		if !m.Time.After(now) {
			return m, true
		}
	}
	return Manifest{}, false
}

const reasonOrphan = "has no manifest: its save was not completed"

// List reads what a store holds. A backup is a manifest whose object is there, with the size
// it says. Manifests of later versions are ignored, and so never pruned.
func List(ctx context.Context, store Store) (Catalog, error) {
	objects, err := store.List(ctx)
	if err != nil {
		return Catalog{}, fmt.Errorf("list %s: %w", store, err)
	}
	sizes := make(map[string]int64, len(objects))
	for _, o := range objects {
		sizes[o.Name] = o.Size
	}
	var c Catalog
	for _, o := range objects {
		object, isManifest := strings.CutSuffix(o.Name, manifestExt)
		if _, err := ParseName(object); err != nil {
			c.Ignored = append(c.Ignored, Ignored{o.Name, "is not named like a backup"})
			continue
		}
		if !isManifest {
			if _, ok := sizes[ManifestName(o.Name)]; !ok {
				c.Ignored = append(c.Ignored, Ignored{o.Name, reasonOrphan})
			}
			continue
		}
		m, err := readManifest(ctx, store, object)
		size, there := sizes[object]
		switch {
		case errors.Is(err, fs.ErrNotExist): // pruned since it was listed
		case err != nil:
			c.Ignored = append(c.Ignored, Ignored{o.Name, err.Error()})
		case !there:
			c.Ignored = append(c.Ignored, Ignored{o.Name, "its object is gone"})
		case size != m.Object.Size:
			c.Ignored = append(c.Ignored, Ignored{o.Name, fmt.Sprintf("its object has %d bytes, not %d", size, m.Object.Size)})
		default:
			c.Backups = append(c.Backups, m)
		}
		if ctx.Err() != nil {
			return Catalog{}, fmt.Errorf("list %s: %w", store, context.Cause(ctx))
		}
	}
	c.Backups = newestFirst(c.Backups)
	return c, nil
}

// readManifest reads the manifest of an object, which has to be that object's.
func readManifest(ctx context.Context, store Store, object string) (Manifest, error) {
	r, err := store.Open(ctx, ManifestName(object))
	if err != nil {
		return Manifest{}, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return Manifest{}, err
	}
	m, err := DecodeManifest(data)
	if err == nil && m.Object.Name != object {
		err = fmt.Errorf("is the manifest of %s", m.Object.Name)
	}
	return m, err
}

// Verify reads a backup back from its store: the object is what the manifest says, and the
// snapshot in it matches its own trailer.
func Verify(ctx context.Context, store Store, object string) (Manifest, error) {
	fail := func(err error) (Manifest, error) {
		return Manifest{}, fmt.Errorf("verify %s in %s: %w", object, store, err)
	}
	m, err := readManifest(ctx, store, object)
	if err != nil {
		return fail(err)
	}
	r, err := store.Open(ctx, object)
	if err != nil {
		return fail(err)
	}
	d := newDigest()
	err = copyUntil(ctx, d, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return fail(err)
	}
	size := d.size
	sum, err := d.finish()
	if size != m.Object.Size || sum != m.Object.SHA256 {
		err = errors.Join(fmt.Errorf("%d bytes with sha256 %s are not the %d with %s of its manifest", size, sum, m.Object.Size, m.Object.SHA256), err)
	}
	if err != nil {
		return fail(err)
	}
	return m, nil
}

// copyUntil copies until the end or until ctx is done.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// orphanAge is how old an object without a manifest is before it is taken for a leftover, and
// not for one that is being published this moment.
const orphanAge = time.Hour

// tidy runs after a save: it removes what earlier saves of this host left unfinished, and what
// retention does not keep. Nothing of another host is touched.
func tidy(ctx context.Context, store Store, req Request) (removed []Decision, err error) {
	c, err := List(ctx, store)
	if err != nil {
		return nil, err
	}
	host := HostInName(req.Host)
	for _, i := range c.Ignored {
		name, err := ParseName(i.Name)
		if err != nil || i.Reason != reasonOrphan || name.Host != host || req.Now.Sub(name.Time) < orphanAge {
			continue
		}
		if err := store.Delete(ctx, i.Name); err != nil {
			return nil, err
		}
	}
	var own []Manifest
	for _, m := range c.Backups {
		if m.Host == req.Host {
			own = append(own, m)
		}
	}
	_, remove := Retain(own, req.Retention, req.Now)
	for _, d := range remove {
		// The manifest first: what a crash leaves then is an orphan, never a manifest that
		// promises an object which is gone.
		for _, name := range []string{ManifestName(d.Manifest.Object.Name), d.Manifest.Object.Name} {
			if err := store.Delete(ctx, name); err != nil {
				return removed, err
			}
		}
		removed = append(removed, d)
	}
	return removed, nil
}
