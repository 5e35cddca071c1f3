package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"unicode"

	"github.com/minio/minio-go/v7"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// kind is what etcdbackup calls an error; nil is nothing that it has a name for.
func kind(err error) error {
	switch code(err) {
	case "":
		if errors.Is(err, errStalled) {
			return etcdbackup.ErrNoAnswer
		}
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError", "RequestTimeout":
		return etcdbackup.ErrNoAnswer // none to the question, after all the tries
	case minio.NoSuchBucket:
		return etcdbackup.ErrNoStore
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled", "AccountProblem", "RequestTimeTooSkewed":
		return etcdbackup.ErrDenied
	}
	return nil
}

// of is err as an error of that kind too.
type of struct{ err, kind error }

func (e of) Error() string   { return e.err.Error() }
func (e of) Unwrap() []error { return []error{e.err, e.kind} }

// explain says what failed and, where the operator can act, what to do about it. No key is in it.
func (s *Store) explain(doing string, err error) error {
	told := s.tell(doing, err)
	if kind := kind(err); kind != nil {
		return of{told, kind}
	}
	return told
}

func (s *Store) tell(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %s: %w", doing, s, err)
	}
	var refusal minio.ErrorResponse
	if errors.As(err, &refusal) {
		return fmt.Errorf("%s: %s: %w%s", doing, s, &Refusal{Code: s.plain(refusal.Code), Message: s.plain(refusal.Message)}, s.refused(refusal))
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // its URL says no more than the store's name
	}
	return fmt.Errorf("%s: %s: %w%s", doing, s, err, s.unreachable(err))
}

// Refusal is what the server answered.
type Refusal struct {
	Code    string // S3's, such as AccessDenied
	Message string // the server's own words
}

func (r *Refusal) Error() string {
	if r.Message == "" {
		return r.Code
	}
	return strings.TrimSuffix(r.Message, ".") + " (" + r.Code + ")"
}

const maxWords = 300

// plain makes a server's words fit for a terminal and a log.
func (s *Store) plain(words string) string {
	s.mu.Lock()
	for _, key := range []string{s.with.secret, s.with.access} {
		if key != "" {
			words = strings.ReplaceAll(words, key, "…")
		}
	}
	s.mu.Unlock()
	words = strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(words, " "))
	if len(words) > maxWords {
		words = strings.ToValidUTF8(words[:maxWords], "") + "…"
	}
	return strings.Join(strings.Fields(words), " ")
}

// refused is what to do about a refusal, "" if it says that itself.
func (s *Store) refused(r minio.ErrorResponse) string {
	switch r.Code {
	case minio.NoSuchBucket:
		return fmt.Sprintf("; nodeagent makes no buckets: create %s, or mend bucket, endpoint or pathStyle", s.cfg.Bucket)
	case "InvalidAccessKeyId":
		return "; the server knows no access key as in " + s.cfg.AccessKeyFile
	case "SignatureDoesNotMatch":
		return fmt.Sprintf("; the secret in %s is not that of the access key in %s", s.cfg.SecretKeyFile, s.cfg.AccessKeyFile)
	case "ExpiredToken", "InvalidToken":
		return "; put a new access key into " + s.cfg.AccessKeyFile + " and " + s.cfg.SecretKeyFile
	case minio.AccessDenied, "AllAccessDisabled", "AccountProblem":
		return fmt.Sprintf("; the key in %s has to be allowed what docs/backups.md lists (s3:ListBucket on the bucket; s3:GetObject, s3:PutObject, s3:DeleteObject on what is below %s)", s.cfg.AccessKeyFile, s.cfg.Bucket+"/"+s.prefix+"*")
	case "RequestTimeTooSkewed", "RequestExpired":
		return "; the clock of this host is not the server's: see timedatectl"
	case minio.AuthorizationHeaderMalformed, "PermanentRedirect", "TemporaryRedirect", "InvalidRegion", "IllegalLocationConstraintException":
		if r.Region != "" {
			return "; the bucket is in the region " + s.plain(r.Region) + ": set region, and the endpoint of that region"
		}
		return "; region is not the bucket's, or endpoint not that region's"
	case "SlowDown", "ServiceUnavailable", "RequestLimitExceeded":
		return "; the server is busy, and this is tried again later"
	case "EntityTooLarge", "QuotaExceeded", "XMinioStorageFull", "StorageFull":
		return "; the bucket is full, or has a quota"
	case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return "; what arrived is not what was sent, several times: look at memory and network of what is between"
	}
	return ""
}

// unreachable is what to do about a server that gave no answer.
func (s *Store) unreachable(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var lookup *net.DNSError
	switch {
	case errors.As(err, &authority) && s.cfg.CAFile != "":
		return "; " + s.cfg.CAFile + " has not the authority of the server's certificate"
	case errors.As(err, &authority):
		return "; name the certificate of its authority in caFile"
	case errors.As(err, &name) && !s.cfg.PathStyle, errors.As(err, &lookup) && !s.cfg.PathStyle:
		return "; the bucket is asked for by its own host name: many servers need pathStyle: true"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "; the server speaks http at this port, not https"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; nothing listens there: is the server up, and the port right?"
	}
	return ""
}
