package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

const (
	maxSecret = 64 << 10 // bytes: no password, key or token comes near
	// credentialPrefix marks what systemd hands to the unit (LoadCredential=, SetCredential=).
	credentialPrefix = "credential:"
	// unitCredentials is where systemd has the running unit's credentials, for a command that
	// somebody types beside it.
	unitCredentials = "/run/credentials/nodeagent.service"
)

// ValidateSecret says what is wrong with the place of a secret, without looking for it: it is
// an absolute path, or "credential:NAME". What is neither may be the secret itself, and is not quoted.
func ValidateSecret(source string) error {
	if name, is := strings.CutPrefix(source, credentialPrefix); is {
		if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') || strings.ContainsFunc(name, unicode.IsControl) {
			return errors.New("is no name of a systemd credential")
		}
		return nil
	}
	if !filepath.IsAbs(source) {
		return errors.New("is neither an absolute path nor credential:NAME")
	}
	return nil
}

// ReadSecret reads a password, a key or a token from an absolute path, or, for
// "credential:NAME", from the credentials that systemd gave the agent's unit. The file has to be
// a regular one of root's or of this process's user that nobody else can read, where nobody else
// can put another one, as OpenTrusted has it; what is not so is ErrUntrusted. Links to it
// are followed. Line breaks at the end are cut off, and nothing left is an error. No error
// holds any of it.
func (h *Host) ReadSecret(source string) ([]byte, error) {
	path, err := h.secretPath(source)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	data, err := h.readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) && path != source {
		return nil, fmt.Errorf("read secret %s: %w; give nodeagent.service a LoadCredential= of this name", source, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	return data, nil
}

// SecretFile is the file that ReadSecret would read, for a library that reads it itself. It is
// refused as ReadSecret refuses it.
func (h *Host) SecretFile(source string) (string, error) {
	if _, err := h.ReadSecret(source); err != nil {
		return "", err
	}
	path, err := h.secretPath(source)
	if err != nil {
		return "", err
	}
	return h.follow(path)
}

// secretPath is where a secret lies.
func (h *Host) secretPath(source string) (string, error) {
	if err := ValidateSecret(source); err != nil {
		return "", err
	}
	name, is := strings.CutPrefix(source, credentialPrefix)
	if !is {
		return source, nil
	}
	if h.Offline {
		return "", fmt.Errorf("%s: the tree at %s is not a running machine", source, h.Root)
	}
	return filepath.Join(h.credentials(), name), nil
}

// credentials is the directory of this process's credentials, or of the running unit's.
func (h *Host) credentials() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); filepath.IsAbs(dir) {
		return dir
	}
	return unitCredentials
}

func (h *Host) readPrivate(path string) (data []byte, err error) {
	f, err := h.openChecked(path, private)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, h.asSeen(err, path)
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSecret)
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return data, nil
}

// private is why the file at a path is none that a secret may lie in, nil if it is one.
func private(info fs.FileInfo, at string) error {
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return errors.New("is not a regular file")
	case mode.Perm()&0o077 != 0:
		return fmt.Errorf("%w: others can read or write it (mode %04o); chmod 0600 %s", ErrUntrusted, mode.Perm(), at)
	case !ownerTrusted(info):
		return fmt.Errorf("%w: it belongs to another user (mode %04o); chown root %s", ErrUntrusted, mode.Perm(), at)
	}
	return nil
}
