package etcdbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

// Catalog is what a store holds.
type Catalog struct {
	Backups []Manifest // newest first
	Ignored []Ignored  // whatever else is there
	// Proofs are the names of the objects that tell of a drill, by the object that it was of.
	Proofs map[string][]string
	// restored are the objects that a drill has restored, and not only held against their hash.
	restored map[string]bool
}

// Proven says that there is a proof of an object.
func (c Catalog) Proven(object string) bool { return len(c.Proofs[object]) > 0 }

// bestProven says of which of the backups there is a proof of the best kind that any of them has:
// a host that has no identity only proves hashes, day by day, and what somebody else has restored
// elsewhere is worth more.
func (c Catalog) bestProven(backups []Manifest) func(object string) bool {
	if slices.ContainsFunc(backups, func(m Manifest) bool { return c.restored[m.Object.Name] }) {
		return func(object string) bool { return c.restored[object] }
	}
	return c.Proven
}

// spares says that a backup is one that nothing removes: the newest of the host's or the newest
// proven of them, both of those not dated after now.
func (c Catalog) spares(host string, now time.Time) func(Manifest) bool {
	own := Catalog{Backups: ownOf(c.Backups, host)}
	newest, _ := own.Newest(now)
	best := c.bestProven(own.Backups)
	own.Backups = slices.DeleteFunc(own.Backups, func(m Manifest) bool { return !best(m.Object.Name) })
	proven, _ := own.Newest(now)
	return func(m Manifest) bool {
		return m.Object.Name == newest.Object.Name || m.Object.Name == proven.Object.Name
	}
}

// Ignored is an object of a store that is no backup, or no part of one.
type Ignored struct {
	Name, Reason string
	Modified     time.Time // as the store has it
}

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
	c := Catalog{Proofs: map[string][]string{}, restored: map[string]bool{}}
	for _, o := range objects {
		ignore := func(reason string) { c.Ignored = append(c.Ignored, Ignored{o.Name, reason, o.Modified}) }
		switch kind, name := classify(o.Name); kind {
		case foreign:
			ignore("is not named like a backup")
		case proofObject:
			c.Proofs[name.String()] = append(c.Proofs[name.String()], o.Name)
			p, err := readProof(ctx, store, o.Name)
			if ofTheStore(err) { // and what was restored would go as if it never had been
				return Catalog{}, fmt.Errorf("list %s: read %s: %w", store, o.Name, err)
			}
			// One that cannot be read is one of no kind.
			if err == nil && p.Proven == ProvenRestored && p.Object.Name == name.String() {
				c.restored[name.String()] = true
			}
		case manifestObject:
			object := name.String()
			m, err := readManifest(ctx, store, object)
			if err == nil {
				err = m.stored(sizes)
			}
			if errors.Is(err, fs.ErrNotExist) { // pruned since it was listed
				continue
			}
			if ofTheStore(err) { // it is nothing that is wrong with the manifest
				return Catalog{}, fmt.Errorf("list %s: read %s: %w", store, o.Name, err)
			}
			if err != nil {
				ignore(err.Error())
				continue
			}
			c.Backups = append(c.Backups, m)
		}
		if ctx.Err() != nil {
			return Catalog{}, fmt.Errorf("list %s: %w", store, context.Cause(ctx))
		}
	}
	c.Backups = newestFirst(c.Backups)
	c.Ignored = append(c.Ignored, orphans(objects)...)
	return c, nil
}

// stored says what of a backup is not in a store with objects of these sizes.
func (m Manifest) stored(sizes map[string]int64) error {
	want := []StoredObject{m.Object}
	if m.Files != nil {
		want = append(want, m.Files.StoredObject)
	}
	for _, o := range want {
		size, there := sizes[o.Name]
		switch {
		case !there:
			return fmt.Errorf("its object %s is gone", o.Name)
		case size != o.Size:
			return fmt.Errorf("its object %s has %d bytes, not %d", o.Name, size, o.Size)
		}
	}
	return nil
}

// orphans are those of the objects that belong to a backup which has no manifest.
func orphans(objects []Object) []Ignored {
	manifests := map[string]bool{}
	for _, o := range objects {
		if kind, name := classify(o.Name); kind == manifestObject {
			manifests[name.String()], manifests[name.Stem()] = true, true
		}
	}
	var found []Ignored
	for _, o := range objects {
		kind, name := classify(o.Name)
		switch kind {
		case snapshotObject, proofObject:
			if !manifests[name.String()] {
				found = append(found, Ignored{o.Name, reasonOrphan, o.Modified})
			}
		case filesObject:
			if !manifests[name.Stem()] {
				found = append(found, Ignored{o.Name, reasonOrphan, o.Modified})
			}
		}
	}
	return found
}

// readManifest reads the manifest of an object, which has to be that object's.
func readManifest(ctx context.Context, store Store, object string) (Manifest, error) {
	data, err := readSmall(ctx, store, ManifestName(object))
	if err != nil {
		return Manifest{}, err
	}
	return manifestOf(data, object)
}

// manifestOf reads what is to be the manifest of an object.
func manifestOf(data []byte, object string) (Manifest, error) {
	m, err := DecodeManifest(data)
	if err == nil && m.Object.Name != object {
		err = fmt.Errorf("is the manifest of %s", m.Object.Name)
	}
	return m, err
}

// readSmall reads an object, or more of it than a manifest or a proof may have.
func readSmall(ctx context.Context, store Store, name string) ([]byte, error) {
	r, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	return data, errors.Join(err, r.Close())
}
