package etcdbackup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
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
		return Verdict{}, errors.New("it is no regular file")
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
		"compressed by zstd":        "\x28\xb5\x2f\xfd",
		"compressed by gzip":        "\x1f\x8b",
		"compressed by xz":          "\xfd7zXZ\x00",
		"a zip archive":             "PK\x03\x04",
		"encrypted by age":          "age-encryption.org/",
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
func CheckFile(ctx context.Context, path string, progress Progress) (Verdict, error) {
	v, err := checkFile(ctx, path, progress)
	if err != nil {
		return Verdict{}, fmt.Errorf("verify %s: %w", path, err)
	}
	return v, nil
}

func checkFile(ctx context.Context, path string, progress Progress) (v Verdict, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe is not waited for
	if err != nil {
		return Verdict{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if v, err = Check(ctx, f, progress); err != nil {
		return Verdict{}, err
	}
	beside, err := os.Open(ManifestName(path))
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
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
	if err := v.matches(m.Snapshot); err != nil {
		return Verdict{}, err
	}
	v.Manifest = true
	return v, nil
}
