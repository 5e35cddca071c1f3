package etcdbackup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Recipients are those who can decrypt a backup: public keys, of which a host may hold any
// number without being able to read what it has saved.
type Recipients struct {
	keys []age.Recipient
	// Fingerprints are what manifests say of them, in the order given: "sha256:" and the
	// hexadecimal hash of the recipient as it is written.
	Fingerprints []string
}

// ParseRecipients reads age recipients, X25519 ("age1…") or hybrid post-quantum ("age1pq1…").
// The two kinds cannot be mixed: what is encrypted to both would be as weak as the weaker, which
// age refuses. None gives the zero value.
func ParseRecipients(list []string) (Recipients, error) {
	var r Recipients
	var errs []error
	hybrid := 0
	for i, s := range list {
		key, err := parseRecipient(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("recipients[%d]: %w", i, err))
			continue
		}
		if _, ok := key.(*age.HybridRecipient); ok {
			hybrid++
		}
		sum := sha256.Sum256([]byte(s))
		r.keys = append(r.keys, key)
		r.Fingerprints = append(r.Fingerprints, "sha256:"+hex.EncodeToString(sum[:]))
	}
	if hybrid > 0 && hybrid < len(r.keys) {
		errs = append(errs, errors.New("recipients: post-quantum recipients (age1pq1…) and others cannot be mixed: give one kind"))
	}
	return r, errors.Join(errs...)
}

func parseRecipient(s string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(s, "AGE-SECRET-KEY-"): // not quoted: it is what is to be kept secret
		return nil, errors.New("is an identity, the secret half: it is to leave this file; the recipient is what `age-keygen -y` prints of it")
	case strings.HasPrefix(s, "age1pq1"):
		return age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1"):
		return age.ParseX25519Recipient(s)
	}
	return nil, fmt.Errorf("%.20q is no age recipient, which begins with age1", s)
}

// Empty says that nothing is to be encrypted.
func (r Recipients) Empty() bool { return len(r.keys) == 0 }

// encrypt returns a writer whose Close has to be called for the last bytes.
func (r Recipients) encrypt(w io.Writer) (io.WriteCloser, error) {
	out, err := age.Encrypt(w, r.keys...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}

// Identities can decrypt backups: the secret halves of recipients.
type Identities struct{ keys []age.Identity }

// ParseIdentities reads a file as age-keygen writes it: a secret key a line, and comments.
func ParseIdentities(file []byte) (Identities, error) {
	keys, err := age.ParseIdentities(bytes.NewReader(file))
	if err != nil {
		return Identities{}, errors.New("read identities: it is no file of age identities, as age-keygen writes it") // err may quote a key
	}
	return Identities{keys}, nil
}

// Empty says that nothing can be decrypted.
func (i Identities) Empty() bool { return len(i.keys) == 0 }

// ErrNoIdentity is a backup that none of the identities at hand decrypts.
var ErrNoIdentity = errors.New("no identity that is given decrypts it")

// decrypt reads what encrypt wrote. A stream that was cut off or changed is an error of Read.
func (i Identities) decrypt(r io.Reader) (io.Reader, error) {
	if i.Empty() {
		return nil, fmt.Errorf("decrypt: %w: none is given", ErrNoIdentity)
	}
	out, err := age.Decrypt(r, i.keys...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("decrypt: %w", ErrNoIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return out, nil
}
