package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Key signs repositories. Both halves are armored: Public is what a Release.key holds, and
// what apt takes from a file whose name ends in .asc.
type Key struct{ Private, Public []byte }

// NewKey makes a key.
func NewKey(ctx context.Context) (k Key, err error) {
	err = withGPG(ctx, func(gpg gpgFunc) error {
		if _, err := gpg(nil, "--quick-generate-key", "nodeagent test lab <lab@nodeagent.invalid>", "rsa2048", "sign", "never"); err != nil {
			return err
		}
		var private, public error
		k.Private, private = gpg(nil, "--armor", "--export-secret-keys")
		k.Public, public = gpg(nil, "--armor", "--export")
		return errors.Join(private, public)
	})
	if err != nil {
		return Key{}, fmt.Errorf("make key: %w", err)
	}
	return k, nil
}

// RepositoryKey is the key of one of the two repositories ("kubernetes", "debian") in the
// directory that Repository returned.
func RepositoryKey(dir, name string) (Key, error) {
	private, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	public, err := os.ReadFile(filepath.Join(dir, name, "Release.key"))
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	return Key{private, public}, nil
}

// sign returns the text with the signature around it, and the signature alone.
func (k Key) sign(ctx context.Context, text []byte) (clear, detached []byte, err error) {
	err = withGPG(ctx, func(gpg gpgFunc) error {
		if _, err := gpg(k.Private, "--import"); err != nil {
			return err
		}
		var inline, apart error
		clear, inline = gpg(text, "--digest-algo", "SHA512", "--clearsign")
		detached, apart = gpg(text, "--digest-algo", "SHA512", "--armor", "--detach-sign")
		return errors.Join(inline, apart)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	return clear, detached, nil
}

type gpgFunc func(stdin []byte, args ...string) ([]byte, error)

// withGPG gives gpg a home of its own, whose agent ends with it.
func withGPG(ctx context.Context, use func(gpgFunc) error) (err error) {
	home, err := os.MkdirTemp("", "gpg-")
	if err != nil {
		return err
	}
	env := []string{"GNUPGHOME=" + home}
	defer func() {
		_, kill := execute(context.WithoutCancel(ctx), nil, env, "gpgconf", "--kill", "all")
		err = errors.Join(err, kill, os.RemoveAll(home))
	}()
	return use(func(stdin []byte, args ...string) ([]byte, error) {
		args = append([]string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)
		return execute(ctx, bytes.NewReader(stdin), env, "gpg", args...)
	})
}
