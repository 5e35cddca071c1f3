package bootstrap

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	maxKey     = 1 << 20 // bytes; Debian's own keyring has 60 KiB
	keyTimeout = 30 * time.Second
	armorBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	armorEnd   = "-----END PGP PUBLIC KEY BLOCK-----"
)

// checkKey says whether data is an OpenPGP public key, RFC 9580, and whether it is armored.
// Whether it is the right one apt finds out, by the repository's signature.
func checkKey(data []byte) (armored bool, err error) {
	if len(data) > maxKey {
		return false, fmt.Errorf("it is larger than %d bytes", maxKey)
	}
	binary := data
	if armored = bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("-----BEGIN PGP ")); armored {
		if binary, err = dearmor(data); err != nil {
			return true, err
		}
	}
	if len(binary) == 0 || binary[0]&0x80 == 0 {
		return armored, errors.New("it is no OpenPGP key")
	}
	tag := binary[0] & 0x3f // a packet of the new format
	if binary[0]&0x40 == 0 {
		tag = tag >> 2
	}
	switch tag {
	case 6:
		return armored, nil
	case 5:
		return armored, errors.New("it is a secret key: export the public one")
	}
	return armored, errors.New("it is OpenPGP, but no public key")
}

// dearmor decodes the first armored public key of a file.
func dearmor(data []byte) ([]byte, error) {
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	_, text, begun := strings.Cut(text, armorBegin)
	body, _, ended := strings.Cut(text, armorEnd)
	if !begun {
		return nil, errors.New("it is OpenPGP, but no public key")
	}
	if !ended {
		return nil, errors.New("it is cut off: " + armorEnd + " is missing")
	}
	_, body, ok := strings.Cut(body, "\n\n") // headers end with an empty line
	if !ok {
		return nil, errors.New("its armor has no empty line")
	}
	var encoded strings.Builder
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=") { // the checksum
			encoded.WriteString(line)
		}
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded.String())
	if err != nil {
		return nil, fmt.Errorf("its armor is damaged: %w", err)
	}
	return decoded, nil
}

// fetchKey gets a key over https, and over nothing else, redirects included.
func fetchKey(ctx context.Context, transport *http.Transport, from string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		switch {
		case r.URL.Scheme != "https":
			return errors.New("is sent on to " + r.URL.Scheme + "://, where the key could be anybody's")
		case len(via) >= 5:
			return errors.New("is sent on again and again")
		}
		return nil
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxKey+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server says %s", response.Status)
	}
	return data, nil
}
