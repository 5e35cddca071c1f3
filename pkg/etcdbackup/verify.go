package etcdbackup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Verified is what reading a backup back has shown.
type Verified struct {
	Manifest Manifest
	// Opened says that the snapshot was read, and matches its own trailer and the manifest. It
	// is false for an encrypted backup that no identity was given for: there, the object is the
	// one that was made of a verified snapshot, by its hash, and more cannot be said.
	Opened bool
}

// Verify reads a backup back from its store: its objects are what the manifest says, and so is
// the snapshot inside, as far as the identities at hand open it.
func Verify(ctx context.Context, store Store, object string, with Identities) (Verified, error) {
	fail := func(err error) (Verified, error) {
		return Verified{}, fmt.Errorf("verify %s in %s: %w", object, store, err)
	}
	m, err := readManifest(ctx, store, object)
	if err != nil {
		return fail(err)
	}
	name, err := ParseName(object)
	if err != nil {
		return fail(err)
	}
	opened := !name.Encrypted || !with.Empty()
	var d *digest
	if opened {
		d = newDigest()
	}
	if err := verifyObject(ctx, store, m.Object, name, d, with); err != nil {
		return fail(err)
	}
	if opened {
		if err := d.matches(m.Snapshot); err != nil {
			return fail(err)
		}
	}
	if m.Files != nil {
		if err := verifyObject(ctx, store, m.Files.StoredObject, name, nil, with); err != nil {
			return fail(fmt.Errorf("its files %s: %w", m.Files.Name, err))
		}
	}
	return Verified{Manifest: m, Opened: opened}, nil
}

// matches checks the trailer, and what was read against what the manifest says of it.
func (d *digest) matches(want Snapshot) error {
	size := d.size
	sum, err := d.finish()
	if size != want.Size || sum != want.SHA256 {
		err = errors.Join(fmt.Errorf("a snapshot of %d bytes with sha256 %s is not that of %d with %s of its manifest", size, sum, want.Size, want.SHA256), err)
	}
	return err
}

// verifyObject reads an object to its end and compares it with what is said of it; the snapshot
// inside is written to d, unless that is nil.
func verifyObject(ctx context.Context, store Store, want StoredObject, name Name, d *digest, with Identities) (err error) {
	r, err := store.Open(ctx, want.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stored := &counted{to: io.Discard, hash: sha256.New()}
	raw := io.TeeReader(untilDone{ctx, r}, stored)
	if d != nil {
		err = unwrapTo(d, raw, name, with)
	}
	if err == nil || ctx.Err() == nil {
		// The rest of it: what is damaged may end early, and the hash tells whether it was here.
		_, rest := io.CopyBuffer(struct{ io.Writer }{io.Discard}, raw, make([]byte, bufferSize))
		err = errors.Join(err, rest)
	}
	if sum := hex.EncodeToString(stored.hash.Sum(nil)); stored.size != want.Size || sum != want.SHA256 {
		err = errors.Join(fmt.Errorf("%d bytes with sha256 %s are not the %d with %s of its manifest", stored.size, sum, want.Size, want.SHA256), err)
	}
	return err
}

func unwrapTo(w io.Writer, r io.Reader, name Name, with Identities) error {
	plain, err := Unwrap(r, name.Compressed, name.Encrypted, with)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, plain, make([]byte, bufferSize))
	return errors.Join(err, plain.Close())
}

// untilDone ends reading when ctx does.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}
