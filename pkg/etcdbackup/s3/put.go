package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/http"

	"github.com/minio/minio-go/v7"
)

const (
	// wholeSize is up to which size an object is sent in one request, and the size of the parts of
	// larger ones. A part is what is sent again when a connection breaks.
	wholeSize = 32 << 20
	maxParts  = 10000 // S3's limit
	// threads is how many parts are on their way at once: one connection does not fill a long line.
	threads = 3
)

// The headers of the CRC32C that the server compares with what it got, and stores.
const (
	crcHeader       = "X-Amz-Checksum-Crc32c"
	algorithmHeader = "X-Amz-Checksum-Algorithm"
)

// Put sends an object. That its name is taken is found out by asking first, which cannot keep apart
// two that put the same name in the same instant: not every server knows If-None-Match. Nobody does:
// a name has in it the host, whose uploads go one after the other, and the second of its save.
func (s *Store) Put(ctx context.Context, name string, content *io.SectionReader) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	switch _, err := s.stat(ctx, key); {
	case err == nil:
		return fmt.Errorf("put %s to %s: %w", name, s, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return s.explain("put "+name, err)
	}
	if content.Size() <= wholeSize {
		err = s.putWhole(ctx, key, content)
	} else {
		err = s.putParts(ctx, key, content)
	}
	if err == nil {
		err = s.arrived(ctx, key, content.Size())
	}
	if err != nil {
		return s.explain("put "+name, err)
	}
	return nil
}

// arrived looks at what the server says it has now. One that got something else than was sent, as
// servers do that store the framing of a signed stream, is no store.
func (s *Store) arrived(ctx context.Context, key string, size int64) error {
	about, err := s.stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the server said that it has it, and does not know of it now")
	}
	if err == nil && about.Size != size {
		err = fmt.Errorf("the server has stored %d bytes of the %d that it got", about.Size, size)
	}
	return err
}

func (s *Store) putWhole(ctx context.Context, key string, content *io.SectionReader) error {
	sums, err := sumsOf(content, 0, content.Size())
	if err != nil {
		return err
	}
	return s.try(ctx, s.Patience.Stall, func(ctx context.Context, client *minio.Core, progress func()) error {
		_, err := client.PutObject(ctx, s.cfg.Bucket, key, newBody(content, 0, content.Size(), progress), content.Size(), "", sums.sha256, minio.PutObjectOptions{
			DisableContentSha256: true, // as a stream of its own framing; the sum goes into the header
			UserMetadata:         map[string]string{crcHeader: sums.crc32c},
			ServerSideEncryption: s.sse,
		})
		return err
	})
}

// sums are those of a part, as they stand in headers.
type sums struct{ sha256, crc32c string }

func sumsOf(content *io.SectionReader, from, size int64) (sums, error) {
	sha, crc := sha256.New(), crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(io.MultiWriter(sha, crc), io.NewSectionReader(content, from, size)); err != nil {
		return sums{}, fmt.Errorf("read what is to be sent: %w", err)
	}
	return sums{hex.EncodeToString(sha.Sum(nil)), base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc.Sum32()))}, nil
}

// body is content on its way. Each try has one of its own, since the connection of an earlier
// one may still read from it.
type body struct {
	*io.SectionReader
	progress func()
}

func newBody(content *io.SectionReader, from, size int64, progress func()) *body {
	return &body{io.NewSectionReader(content, from, size), progress}
}

func (b *body) Read(p []byte) (int, error) {
	b.progress()
	return b.SectionReader.Read(p)
}

// partSize is that of all parts but the last of an object.
func partSize(size int64) int64 {
	const unit = 1 << 20
	return max(wholeSize, (size/maxParts/unit+1)*unit)
}

func partHeader(sums sums) http.Header { return http.Header{crcHeader: {sums.crc32c}} }
