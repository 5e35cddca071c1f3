package etcdbackup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Verifier reads backups back from their stores.
type Verifier struct {
	With Identities // to open those that are encrypted
	// Scratch makes a file without a name, for a plain snapshot of so many bytes, whose structure
	// is then checked too; nil checks hashes and the trailer only.
	Scratch func(size int64) (*os.File, error)
	// Progress, unless it is nil, is told how much of the snapshot has been read.
	Progress Progress
}

// Verified is what reading a backup back has shown.
type Verified struct {
	Manifest Manifest
	// Opened says that the snapshot was read, and matches its own trailer and the manifest. It
	// is false for an encrypted backup that no identity was given for: there, the object is the
	// one that was made of a verified snapshot, by its hash, and more cannot be said.
	Opened bool
	// Verdict is what Check found in the snapshot; zero where there was no file to put it in.
	Verdict Verdict
}

// Verify is a Verifier's that checks hashes and the trailer.
func Verify(ctx context.Context, store Store, object string, with Identities) (Verified, error) {
	return Verifier{With: with}.Verify(ctx, store, object)
}

// Verify reads a backup back from its store: its objects are what the manifest says, and so is
// the snapshot inside, as far as the identities at hand open it.
func (v Verifier) Verify(ctx context.Context, store Store, object string) (Verified, error) {
	done, err := v.verify(ctx, store, object)
	if err != nil {
		return Verified{}, fmt.Errorf("verify %s in %s: %w", object, store, err)
	}
	return done, nil
}

func (v Verifier) verify(ctx context.Context, store Store, object string) (done Verified, err error) {
	if done.Manifest, err = readManifest(ctx, store, object); err != nil {
		return done, err
	}
	m := done.Manifest
	name, err := ParseName(object)
	if err != nil {
		return done, err
	}
	switch done.Opened = !name.Encrypted || !v.With.Empty(); {
	case !done.Opened:
		err = verifyObject(ctx, store, m.Object, name, nil, v.With)
	case v.Scratch == nil:
		d := newDigest()
		if err = verifyObject(ctx, store, m.Object, name, v.counting(d, m), v.With); err == nil {
			err = d.matches(m.Snapshot)
		}
	default:
		done.Verdict, err = v.inFile(ctx, store, m, name)
	}
	if err == nil && m.Files != nil {
		if err = verifyObject(ctx, store, m.Files.StoredObject, name, nil, v.With); err != nil {
			err = fmt.Errorf("its files %s: %w", m.Files.Name, err)
		}
	}
	return done, err
}

// inFile puts the plain snapshot into a scratch file and checks it there.
func (v Verifier) inFile(ctx context.Context, store Store, m Manifest, name Name) (verdict Verdict, err error) {
	f, err := v.Scratch(m.Snapshot.Size)
	if err != nil {
		return Verdict{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := verifyObject(ctx, store, m.Object, name, v.counting(f, m), v.With); err != nil {
		return Verdict{}, err
	}
	if verdict, err = Check(ctx, f, nil); err != nil {
		return Verdict{}, err
	}
	verdict.Manifest = true
	return verdict, verdict.matches(m.Snapshot)
}

func (v Verifier) counting(w io.Writer, m Manifest) io.Writer {
	if v.Progress == nil {
		return w
	}
	return &counting{to: w, progress: v.Progress, total: m.Snapshot.Size}
}

// counting tells of what is written to another.
type counting struct {
	to          io.Writer
	progress    Progress
	done, total int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.done += int64(n)
	c.progress(c.done, c.total)
	return n, err
}

// matches checks the trailer, and what was read against what the manifest says of it.
func (d *digest) matches(want Snapshot) error {
	size := d.size
	sum, err := d.finish()
	if size != want.Size || sum != want.SHA256 {
		err = errors.Join(notTheManifests(size, sum, want), err)
	}
	return err
}

func notTheManifests(size int64, sum string, want Snapshot) error {
	return fmt.Errorf("a snapshot of %d bytes with sha256 %s is not that of %d with %s of its manifest", size, sum, want.Size, want.SHA256)
}

// matches holds what was found against what the manifest says.
func (v Verdict) matches(want Snapshot) error {
	switch {
	case v.Size != want.Size || v.SHA256 != want.SHA256:
		return notTheManifests(v.Size, v.SHA256, want)
	case v.Revision != want.Revision || v.Keys != want.Keys:
		return fmt.Errorf("revision %d and %d keys are not the %d and %d of its manifest", v.Revision, v.Keys, want.Revision, want.Keys)
	case v.KVHash != want.KVHash || v.CompactRevision != want.CompactRevision:
		return fmt.Errorf("KV hash %d, compacted at %d, is not the %d, at %d, of its manifest", v.KVHash, v.CompactRevision, want.KVHash, want.CompactRevision)
	}
	return nil
}

// verifyObject reads an object to its end and compares it with what is said of it; the snapshot
// inside is written to w, unless that is nil.
func verifyObject(ctx context.Context, store Store, want StoredObject, name Name, w io.Writer, with Identities) (err error) {
	r, err := store.Open(ctx, want.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stored := &counted{to: io.Discard, hash: sha256.New()}
	raw := io.TeeReader(untilDone{ctx, r}, stored)
	if w != nil {
		err = unwrapTo(w, raw, name, with)
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

// copyUntil copies until the end or until ctx is done.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{untilDone{ctx, r}}, make([]byte, bufferSize))
	return err
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
