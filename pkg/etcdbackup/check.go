package etcdbackup

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Kind is what a file is.
type Kind string

// The kinds of files that Check passes.
const (
	// KindSnapshot is a snapshot as etcd sends it, with the sha256 of its bytes at its end.
	KindSnapshot Kind = "snapshot"
	// KindDatabase is a copy of the file member/snap/db of a member's data directory. It has no
	// sha256, so that a changed byte in it may go unnoticed, and what was in the member's
	// write-ahead log is not in it.
	KindDatabase Kind = "database file"
)

// Verdict is what was found in a file.
type Verdict struct {
	Kind   Kind   `json:"kind"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // of the whole file, hexadecimal
	// Manifest says that it was held against a manifest too.
	Manifest bool `json:"manifest"`
	Content
}

var errNotRegular = errors.New("it is no regular file")

// Progress is told how many bytes of how many have been read. It is called often and returns soon.
type Progress func(read, total int64)

// Check reads a file that is to be a snapshot, by whatever program it was saved, from its first
// byte to its last and then its database. First the sha256 at its end, which finds every change;
// then what Inspect finds. It does not change the file, which may have been unlinked.
func Check(ctx context.Context, f *os.File, progress Progress) (Verdict, error) {
	before, err := f.Stat()
	if err != nil {
		return Verdict{}, err
	}
	if !before.Mode().IsRegular() {
		return Verdict{}, errNotRegular
	}
	size := before.Size()
	d := newDigest()
	var w io.Writer = d
	if progress != nil {
		w = &counting{to: d, progress: progress, total: size}
	}
	if err := copyUntil(ctx, w, io.NewSectionReader(f, 0, size)); err != nil {
		return Verdict{}, err
	}
	v := Verdict{Kind: KindSnapshot, Size: size}
	v.SHA256, err = d.finish()
	if err == nil {
		v.Content, _, err = inspectMapped(ctx, f, size-sha256.Size, true)
	} else if err = withoutTrailer(f, size, err); err == nil {
		v.Kind = KindDatabase
		v.Content, _, err = inspectMapped(ctx, f, size, false)
	}
	if err != nil {
		return Verdict{}, err
	}
	after, err := f.Stat()
	if err == nil && (after.Size() != size || !after.ModTime().Equal(before.ModTime())) {
		err = errors.New("it was written to while it was read")
	}
	if err != nil {
		return Verdict{}, err
	}
	return v, nil
}

// withoutTrailer says what a file is that does not end in its sha256: nil is a database that
// never had one, and the other errors are more exact than why, which says that it does not.
func withoutTrailer(f *os.File, size int64, why error) error {
	head := make([]byte, min(size, 1<<16+pageHeader+metaSize))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if packed := packedAs(head); packed != "" {
		return fmt.Errorf("it is %s: unpack it first", packed)
	}
	m, copied, err := readMeta(head)
	switch {
	case size == 0:
		return why
	case err != nil:
		return fmt.Errorf("%w, and %w", why, err)
	case size < m.size():
		return fmt.Errorf("%w: it was cut off, its database alone has %d bytes and there are %d", ErrTrailer, m.size(), size)
	case size%int64(m.pageSize) == 0 && (!copied || inDataDirectory(f.Name())):
		return nil
	case copied && size < m.size()+sha256.Size:
		return fmt.Errorf("%w: that was cut off, the file ends with its database; if it is a copy of a stopped member's own, name it snap/db", ErrTrailer)
	}
	return why
}

// inDataDirectory says that a path is that of a member's own database, or a copy's with its
// directory.
func inDataDirectory(path string) bool {
	return filepath.Base(path) == "db" && filepath.Base(filepath.Dir(path)) == "snap"
}

// packedAs names the format of a packed or encrypted file, by how it begins; "" is none of them.
func packedAs(head []byte) string {
	for format, magic := range map[string]string{
		"compressed by zstd":        magicZstd,
		"compressed by gzip":        "\x1f\x8b",
		"compressed by xz":          "\xfd7zXZ\x00",
		"a zip archive":             "PK\x03\x04",
		"encrypted by age":          magicAge,
		"encrypted by age, as text": "-----BEGIN AGE ENCRYPTED FILE-----",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return format
		}
	}
	return ""
}

// CheckFile is Check of the file at path. Where a manifest lies beside it, it is held against that
// too.
//
// A file that is compressed by zstd, encrypted by age, or both, is unwrapped into a scratch file of
// v's first, whatever its name is.
func (v Verifier) CheckFile(ctx context.Context, path string) (Verdict, error) {
	done, err := v.checkFile(ctx, path)
	if err != nil {
		return Verdict{}, fmt.Errorf("verify %s: %w", path, err)
	}
	return done, nil
}

func (v Verifier) checkFile(ctx context.Context, path string) (done Verdict, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return Verdict{}, err
	}
	if !info.Mode().IsRegular() { // a pipe is not waited for
		return Verdict{}, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return Verdict{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	plain, err := v.unwrapped(ctx, f)
	if err != nil {
		return Verdict{}, err
	}
	if plain != f {
		defer func() { err = errors.Join(err, plain.Close()) }()
	}
	if done, err = Check(ctx, plain, v.Progress); err != nil {
		return Verdict{}, err
	}
	beside, err := os.Open(ManifestName(path))
	if errors.Is(err, fs.ErrNotExist) {
		return done, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	data, err := io.ReadAll(io.LimitReader(beside, maxManifest+1))
	if err := errors.Join(err, beside.Close()); err != nil {
		return Verdict{}, err
	}
	m, err := DecodeManifest(data)
	if err != nil {
		return Verdict{}, fmt.Errorf("its manifest: %w", err)
	}
	if err := done.matches(m.Snapshot); err != nil {
		return Verdict{}, err
	}
	done.Manifest = true
	return done, nil
}

const (
	magicZstd = "\x28\xb5\x2f\xfd"
	magicAge  = "age-encryption.org/"
)

// unwrapped is the file itself, or a scratch file with what is inside of one that begins as zstd or
// age do.
func (v Verifier) unwrapped(ctx context.Context, f *os.File) (plain *os.File, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(untilDone{ctx, io.NewSectionReader(f, 0, info.Size())}, bufferSize)
	encrypted := begins(in, magicAge)
	if encrypted && v.With.Empty() {
		return nil, fmt.Errorf("it is encrypted by age: %w: give the file of one with --identity", ErrNoIdentity)
	}
	if encrypted {
		inside, err := v.With.decrypt(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReaderSize(inside, bufferSize)
	}
	compressed := begins(in, magicZstd)
	if !encrypted && !compressed || v.Scratch == nil {
		return f, nil
	}
	out, err := v.Scratch(info.Size())
	if err != nil {
		return nil, err
	}
	if err := unwrapTo(out, in, Name{Compressed: compressed}, v.With); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

func begins(r *bufio.Reader, magic string) bool {
	head, _ := r.Peek(len(magic)) // one that is shorter does not begin so
	return string(head) == magic
}
