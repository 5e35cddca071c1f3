package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
)

// Patience is how long a server is waited for. Nothing bounds how long an object as a whole takes.
type Patience struct {
	Connect time.Duration // for a connection, and once more for its TLS
	Answer  time.Duration // for the answer to a request without content, and to each page of a list
	Stall   time.Duration // for the next bytes of content, and for the answer to content that was sent
	Pause   time.Duration // before a request is tried again; twice as long before each further try
}

// The last is what Amazon's server may take to put the parts of a large object together.
var defaultPatience = Patience{Connect: 10 * time.Second, Answer: 30 * time.Second, Stall: 2 * time.Minute, Pause: 200 * time.Millisecond}

// tries is how often a request is made before its error counts. Uploads as a whole are repeated by
// whoever makes them, over hours.
const tries = 5

var errStalled = errors.New("the server accepts the connection and then stalls")

// try makes a request, again if it failed in a way that passes. Each time it gets the client that
// the keys make now. It is given up after limit without progress.
func (s *Store) try(ctx context.Context, limit time.Duration, do func(ctx context.Context, client *minio.Core, progress func()) error) error {
	for n := 1; ; n++ {
		err := s.once(ctx, limit, do)
		if err == nil || ctx.Err() != nil || n == tries || !transient(err) {
			return err
		}
		if err := s.pause(ctx, n); err != nil {
			return err
		}
	}
}

func (s *Store) once(ctx context.Context, limit time.Duration, do func(ctx context.Context, client *minio.Core, progress func()) error) error {
	client, err := s.connected()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() { cancel(stalled(limit)) })
	defer timer.Stop()
	err = do(ctx, client, func() { timer.Reset(limit) })
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func stalled(limit time.Duration) error { return fmt.Errorf("%w: nothing for %s", errStalled, limit) }

// pause waits before the try after n, not all hosts for the same time.
func (s *Store) pause(ctx context.Context, n int) error {
	timer := time.NewTimer(time.Duration((0.5 + rand.Float64()/2) * float64(s.Patience.Pause<<n)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// passing are the codes of refusals that may be none the next time: the server is busy, or what
// arrived is not what was sent.
var passing = []string{
	"SlowDown", "SlowDownRead", "SlowDownWrite", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException",
	"RequestLimitExceeded", "RequestThrottled", "OperationAborted", "TemporaryRedirect",
	"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody",
}

// transient says that the same request may succeed in a moment.
func transient(err error) bool {
	var refusal minio.ErrorResponse
	if errors.As(err, &refusal) {
		return slices.Contains(passing, refusal.Code) || refusal.StatusCode >= 500 && refusal.StatusCode != http.StatusNotImplemented ||
			refusal.StatusCode == http.StatusRequestTimeout || refusal.StatusCode == http.StatusTooManyRequests
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var lookup *net.DNSError
	switch {
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &record), errors.As(err, &alert):
		return false
	case errors.As(err, &lookup):
		return !lookup.IsNotFound
	}
	var request *url.Error
	var network *net.OpError
	return errors.As(err, &request) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// code is what the server calls its refusal; "" is none.
func code(err error) string {
	var refusal minio.ErrorResponse
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	return ""
}
