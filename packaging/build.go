package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
)

// Input is everything that a package is made of. Equal inputs give equal bytes, wherever and
// whenever they are packed.
type Input struct {
	Version   string    // as Debian spells it
	Arch      string    // amd64 or arm64
	Binary    string    // path of the built nodeagent
	Generated string    // directory with the completions
	Source    string    // the checkout
	Time      time.Time // of every file in the package
}

// A version with a hyphen would have a Debian revision, and another place for its changelog.
var validVersion = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~]*$`)

func (in Input) validate() error {
	if !validVersion.MatchString(in.Version) {
		return fmt.Errorf("version %q is not of the form 0.1.0, 0.2.0~rc1 or 0.1.0+5.gabcdef0", in.Version)
	}
	if !slices.Contains([]string{"amd64", "arm64"}, in.Arch) {
		return fmt.Errorf("arch %q is neither amd64 nor arm64", in.Arch)
	}
	return nil
}

// Build writes the package into the directory out and returns its path.
func Build(in Input, out string) (path string, err error) {
	if err := in.validate(); err != nil {
		return "", err
	}
	staging, err := os.MkdirTemp("", "nodeagent-packaging-")
	if err != nil {
		return "", fmt.Errorf("make staging directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	if err := stage(in, staging); err != nil {
		return "", err
	}
	info, err := describe(in, staging)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	if err := deb.Default.Package(info, &packed); err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", fmt.Errorf("make output directory: %w", err)
	}
	path = filepath.Join(out, fmt.Sprintf("nodeagent_%s_%s.deb", in.Version, in.Arch))
	if err := os.WriteFile(path, packed.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write package: %w", err)
	}
	return path, nil
}

// describe is deploy/nfpm.yaml with its variables filled in and its paths resolved.
func describe(in Input, staging string) (*nfpm.Info, error) {
	variables := map[string]string{
		"ARCH": in.Arch, "VERSION": in.Version, "BINARY": in.Binary, "GENERATED": in.Generated, "STAGING": staging,
	}
	for _, name := range []string{"BINARY", "GENERATED"} {
		path, err := filepath.Abs(variables[name])
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", variables[name], err)
		}
		variables[name] = path
	}
	config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(in.Source, "deploy", "nfpm.yaml"), func(name string) string { return variables[name] })
	if err != nil {
		return nil, fmt.Errorf("read deploy/nfpm.yaml: %w", err)
	}
	info := &config.Info
	// Every file has the one time; the library would otherwise take it from the disk.
	info.MTime = in.Time
	for _, content := range info.Contents {
		content.Source = within(in.Source, content.Source)
		content.FileInfo.MTime = in.Time
	}
	for _, script := range []*string{&info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove} {
		*script = within(in.Source, *script)
	}
	return info, nil
}

func within(source, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(source, path)
}

// stage writes the files that are made at packing time.
func stage(in Input, dir string) error {
	for _, name := range []string{"nodeagent.8", "nodeagent-config.5"} {
		page, err := os.ReadFile(filepath.Join(in.Source, "deploy", "man", name))
		if err != nil {
			return fmt.Errorf("read man page: %w", err)
		}
		if err := writeGzip(filepath.Join(dir, name+".gz"), page); err != nil {
			return err
		}
	}
	bill, err := sbom(in)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "sbom.cdx.json"), bill, 0o644); err != nil {
		return fmt.Errorf("write bill of materials: %w", err)
	}
	return writeGzip(filepath.Join(dir, "changelog.gz"), changelog(in))
}

// changelog is the one entry that Debian's tools need to date the package. What changed is in
// the project's own CHANGELOG.md.
func changelog(in Input) []byte {
	return fmt.Appendf(nil, "nodeagent (%s) unstable; urgency=medium\n\n"+
		"  * See https://github.com/nodeagent/nodeagent/blob/main/CHANGELOG.md\n\n"+
		" -- The nodeagent authors <nodeagent@users.noreply.github.com>  %s\n",
		in.Version, in.Time.UTC().Format(time.RFC1123Z))
}

// writeGzip writes data as `gzip -9n` would: no name and no time in the header.
func writeGzip(path string, data []byte) error {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("compress %s: %w", filepath.Base(path), err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("compress %s: %w", filepath.Base(path), err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("compress %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path, packed.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
