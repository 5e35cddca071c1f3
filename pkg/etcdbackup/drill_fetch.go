package etcdbackup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// ErrDamaged is an object that is not the one that was saved, or that nothing can be read from
// although it is.
var ErrDamaged = errors.New("the stored backup is damaged")

// ReadManifest reads the manifest of an object.
func ReadManifest(ctx context.Context, store Store, object string) (Manifest, error) {
	m, err := readManifest(ctx, store, object)
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest of %s in %s: %w", object, store, err)
	}
	return m, nil
}

// Openable says that a backup can be opened: it is not encrypted, or there are identities, which
// may yet be the wrong ones.
func (m Manifest) Openable(with Identities) bool { return len(m.Recipients) == 0 || !with.Empty() }

// Fetch reads all objects of a backup out of their store, to their end, and compares them with
// the manifest. One that is Openable is decrypted and decompressed on the way: the snapshot is
// written to plain, matches its trailer, and its database is whole; of another plain is not
// used. told, unless it is nil, hears how many bytes of the object have come.
//
// What is not as it was saved is ErrDamaged, or ErrDiffers where only the manifest says
// otherwise; identities that are the wrong ones are ErrNoIdentity.
func Fetch(ctx context.Context, store Store, m Manifest, with Identities, plain *os.File, told func(done, total int64)) error {
	name, err := ParseName(m.Object.Name)
	if err != nil {
		return err
	}
	var take func(io.Reader) error
	opened := m.Openable(with)
	d := newDigest()
	if opened {
		take = func(r io.Reader) error { return unwrapInto(io.MultiWriter(d, plain), r, name, with) }
	}
	if err := fetchObject(ctx, store, m.Object, take, told); err != nil {
		return fmt.Errorf("fetch %s: %w", m.Object.Name, err)
	}
	if opened {
		if err := checkPlain(ctx, d, plain, m.Snapshot); err != nil {
			return fmt.Errorf("check the snapshot in %s: %w", m.Object.Name, err)
		}
	}
	if m.Files == nil {
		return nil
	}
	take = nil
	if opened {
		take = func(r io.Reader) error { return checkArchive(r, m.Files.Paths, with) }
	}
	if err := fetchObject(ctx, store, m.Files.StoredObject, take, nil); err != nil {
		return fmt.Errorf("fetch %s: %w", m.Files.Name, err)
	}
	return nil
}

// fetchObject reads an object to its end, whatever becomes of what is made of it: the hash tells
// whether it was damaged in the store, where its content may say anything.
func fetchObject(ctx context.Context, store Store, want StoredObject, take func(io.Reader) error, told func(done, total int64)) (err error) {
	r, err := store.Open(ctx, want.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stored := &fetched{ctx: ctx, from: r, seen: counted{to: io.Discard, hash: sha256.New()}, total: want.Size, told: told}
	var taken error
	if take != nil {
		taken = take(stored)
	}
	_, rest := io.CopyBuffer(struct{ io.Writer }{io.Discard}, stored, make([]byte, bufferSize))
	if rest != nil {
		return rest // the store's, or the end of ctx
	}
	if sum := hex.EncodeToString(stored.seen.hash.Sum(nil)); stored.seen.size != want.Size || sum != want.SHA256 {
		return fmt.Errorf("%w: %d bytes with sha256 %s are not the %d with %s of its manifest", ErrDamaged, stored.seen.size, sum, want.Size, want.SHA256)
	}
	return taken
}

// fetched is an object as it is read. An error of the store stays: it is not to be taken for a
// damaged object by whoever decodes it.
type fetched struct {
	ctx   context.Context
	from  io.Reader
	seen  counted
	total int64
	told  func(done, total int64)
	err   error
}

func (f *fetched) Read(p []byte) (int, error) {
	if f.err == nil && f.ctx.Err() != nil {
		f.err = context.Cause(f.ctx)
	}
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.from.Read(p)
	_, _ = f.seen.Write(p[:n]) // nowhere
	if err != nil {
		f.err = err
	}
	if f.told != nil {
		f.told(f.seen.size, f.total)
	}
	return n, err
}

// unwrapInto is an error of w as it is, and ErrDamaged where the object cannot be unwrapped.
func unwrapInto(w io.Writer, r io.Reader, name Name, with Identities) error {
	plain, err := Unwrap(r, name.Compressed, name.Encrypted, with)
	if err != nil {
		return damaged(err)
	}
	out := &written{to: w}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, plain, make([]byte, bufferSize))
	switch {
	case out.err != nil:
		err = out.err
	case err != nil:
		err = damaged(err)
	}
	return errors.Join(err, plain.Close())
}

func damaged(err error) error {
	if errors.Is(err, ErrNoIdentity) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// written keeps the error of a writer, to tell it from a reader's.
type written struct {
	to  io.Writer
	err error
}

func (w *written) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// checkPlain looks at the snapshot that was written: is it what was saved, is it what the
// manifest says, is its database whole.
func checkPlain(ctx context.Context, d *digest, plain *os.File, want Snapshot) error {
	size := d.size
	sum, err := d.finish()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if size != want.Size || sum != want.SHA256 {
		return fmt.Errorf("%w: %d bytes with sha256 %s are not %d with %s", ErrDiffers, size, sum, want.Size, want.SHA256)
	}
	if _, err := Inspect(ctx, plain, size); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return context.Cause(ctx)
}

// checkArchive reads an archive of files to its end. What is in it goes nowhere.
func checkArchive(r io.Reader, want []string, with Identities) error {
	plain, err := Unwrap(r, true, true, with)
	if err != nil {
		return damaged(err)
	}
	var paths []string
	archive := tar.NewReader(plain)
	header, err := archive.Next()
	for ; err == nil; header, err = archive.Next() {
		paths = append(paths, "/"+strings.TrimPrefix(header.Name, "/"))
	}
	if errors.Is(err, io.EOF) {
		_, err = io.Copy(io.Discard, plain)
	}
	if err := errors.Join(err, plain.Close()); err != nil {
		return damaged(err)
	}
	if !slices.Equal(paths, want) {
		return fmt.Errorf("%w: the archive holds %d files, which are not the %d that it names", ErrDiffers, len(paths), len(want))
	}
	return nil
}
