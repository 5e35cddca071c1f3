package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// Names of the steps that install packages; others wait for them by these names.
const (
	RepositoryStep = "packages/repository"
	PackagesStep   = "packages"
	// PackagesContainerdStep is the name of the step before it that brings containerd alone, where
	// there is something for a containerd to do meanwhile.
	PackagesContainerdStep = "packages/containerd"
)

const (
	keyringDir      = "/etc/apt/keyrings"
	keyArmored      = keyringDir + "/nodeagent-kubernetes.asc" // apt goes by the ending
	keyBinary       = keyringDir + "/nodeagent-kubernetes.gpg"
	sourceFile      = sourcesDir + "/nodeagent-kubernetes.sources"
	pinFile         = "/etc/apt/preferences.d/nodeagent-kubernetes"
	ownedByPackages = "# Written by nodeagent from the section packages of its configuration; `nodeagent apply` writes it anew.\n"
)

type repository struct {
	host   *host.Host
	config PackagesConfig
	fetch  func(ctx context.Context, from string) ([]byte, error)
}

// Repository makes the step "packages/repository": apt knows where the Kubernetes packages
// come from, with which key they are signed, and that no other source moves them. fetch gets
// the key from a URL over https, where the configuration names no file.
//
// A source for the same URL that the operator has is left as it is and used, since apt refuses
// two of them with different keys.
func Repository(h *host.Host, c PackagesConfig, fetch func(ctx context.Context, from string) ([]byte, error)) step.Step {
	r := repository{host: h, config: c, fetch: fetch}
	return step.Step{Name: RepositoryStep, Check: r.check, Apply: r.apply}
}

func (r repository) check(context.Context) ([]step.Change, error) {
	changes, err := r.fileChange(pinFile, r.pin())
	if err != nil {
		return nil, err
	}
	theirs, err := findSource(r.host, r.config.repositoryURL(), sourceFile)
	if err != nil {
		return nil, err
	}
	if theirs != "" {
		return r.superfluous(changes, theirs)
	}
	key, err := r.key()
	if err != nil {
		return nil, err
	}
	path := keyArmored
	if key == nil {
		if r.host.Offline {
			return nil, fmt.Errorf("the key is fetched from %s: %w", r.keyURL(), step.Blocked{On: step.Boot})
		}
		changes = append(changes, step.Change{Subject: path, Have: "absent, or of another repository", Want: "fetched from " + r.keyURL()})
	} else {
		path = keyPath(key)
		keyChanges, err := r.fileChange(path, string(key))
		if err != nil {
			return nil, err
		}
		changes = append(changes, keyChanges...)
		sourceChanges, err := r.fileChange(sourceFile, r.source(path))
		if err != nil {
			return nil, err
		}
		changes = append(changes, sourceChanges...)
	}
	return r.readable(changes)
}

// superfluous adds that our own source is to go where the operator has one.
func (r repository) superfluous(changes []step.Change, theirs string) ([]step.Change, error) {
	there, err := r.host.Exists(sourceFile)
	if err == nil && there {
		changes = append(changes, step.Change{Subject: sourceFile, Have: "there, beside " + theirs, Want: "absent: two sources for one repository"})
	}
	return changes, err
}

// readable adds a finding where apt, which fetches as the user _apt, cannot read keys.
func (r repository) readable(changes []step.Change) ([]step.Change, error) {
	info, err := r.host.Stat(keyringDir)
	if errors.Is(err, fs.ErrNotExist) {
		return changes, nil
	}
	if err == nil && info.Mode().Perm()&0o005 != 0o005 {
		changes = append(changes, finding(keyringDir+" mode", fmt.Sprintf("%04o", info.Mode().Perm()), "0755, since apt reads keys as the user _apt: chmod 0755 "+keyringDir))
	}
	return changes, err
}

// fileChange tells how a file of ours differs from content, mode 0644.
func (r repository) fileChange(path, content string) ([]step.Change, error) {
	have, err := r.host.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []step.Change{{Subject: path, Have: "absent", Want: "for " + r.config.repositoryURL()}}, nil
	}
	if err != nil {
		return nil, err
	}
	if string(have) != content {
		return []step.Change{{Subject: path, Have: "other content", Want: "for " + r.config.repositoryURL()}}, nil
	}
	info, err := r.host.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode != 0o644 {
		return []step.Change{{Subject: path + " mode", Have: fmt.Sprintf("%04o", mode), Want: "0644"}}, nil
	}
	return nil, nil
}

func (r repository) apply(ctx context.Context) error {
	if err := r.host.WriteFile(pinFile, []byte(r.pin()), 0o644); err != nil {
		return err
	}
	theirs, err := findSource(r.host, r.config.repositoryURL(), sourceFile)
	if err != nil {
		return err
	}
	if theirs != "" {
		return errors.Join(r.host.Remove(sourceFile), r.host.Remove(keyArmored), r.host.Remove(keyBinary))
	}
	key, err := r.key()
	if err != nil {
		return err
	}
	if key == nil {
		if key, err = r.fetch(ctx, r.keyURL()); err != nil {
			return fmt.Errorf("fetch key of repository: %w; packages.repository.keyFile can name a copy", err)
		}
		if _, err := checkKey(key); err != nil {
			return fmt.Errorf("fetch key of repository: %s: %w", r.keyURL(), err)
		}
	}
	path, other := keyPath(key), keyBinary
	if path == keyBinary {
		other = keyArmored
	}
	// The key first: a source without one would stop every other use of apt.
	if err := r.host.WriteFile(path, key, 0o644); err != nil {
		return err
	}
	if err := r.host.WriteFile(sourceFile, []byte(r.source(path)), 0o644); err != nil {
		return err
	}
	return r.host.Remove(other)
}

// key is the repository's, nil when it has to be fetched: as it was fetched before, unless the
// source that it was fetched for was another one.
func (r repository) key() ([]byte, error) {
	path := r.config.Repository.KeyFile
	if u, isFile := strings.CutPrefix(plainURL(r.config.repositoryURL()), "file:///"); path == "" && isFile {
		path = "/" + u + "/Release.key"
	}
	if path != "" {
		return r.readKey(path)
	}
	source, err := r.host.ReadFile(sourceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, kept := range []string{keyArmored, keyBinary} {
		if !strings.Contains(string(source), "\nURIs: "+r.config.repositoryURL()+"\n") || !strings.Contains(string(source), kept) {
			continue
		}
		key, err := r.host.ReadFile(kept)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err := checkKey(key); err == nil { // a damaged one is fetched again
			return key, nil
		}
	}
	return nil, nil
}

func (r repository) readKey(path string) ([]byte, error) {
	key, err := r.host.ReadTrusted(path, maxKey) // who chooses it chooses what is installed
	if err != nil {
		return nil, fmt.Errorf("read key of repository: %w", err)
	}
	if _, err := checkKey(key); err != nil {
		return nil, fmt.Errorf("read key of repository: %s: %w", path, err)
	}
	return key, nil
}

// keyURL is where the community publishes the key, and its mirrors do.
func (r repository) keyURL() string { return r.config.repositoryURL() + "Release.key" }

// keyPath is where a key that is one goes.
func keyPath(key []byte) string {
	if armored, err := checkKey(key); err == nil && armored {
		return keyArmored
	}
	return keyBinary
}

func (r repository) source(keyPath string) string {
	return ownedByPackages + "Types: deb\nURIs: " + r.config.repositoryURL() + "\nSuites: /\nSigned-By: " + keyPath + "\n"
}

// pin makes apt prefer what is wanted to what other sources have, and never take another
// minor, apt_preferences(5). The first entry that matches a version counts.
func (r repository) pin() string {
	version := r.config.Minor() + ".*"
	if r.config.Pinned() {
		version = r.config.KubernetesVersion + "-*"
	}
	site := ""
	if u, err := url.Parse(r.config.repositoryURL()); err == nil {
		site = u.Hostname()
	}
	entry := func(names []string, pin, priority string) string {
		return "\nPackage: " + strings.Join(names, " ") + "\nPin: " + pin + "\nPin-Priority: " + priority + "\n"
	}
	return ownedByPackages +
		entry(kubernetesPackages, "version "+version, "990") +
		entry(kubernetesPackages, "release *", "-1") +
		entry(companionPackages, `origin "`+site+`"`, "990") +
		entry(companionPackages, "release *", "-1")
}
