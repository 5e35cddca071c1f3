package lab

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// origin is what a repository says of itself, for apt's pins.
type origin struct{ origin, label string }

// communityOrigin is that of the community's repository of one minor version.
func communityOrigin() origin {
	label := "isv:kubernetes:core:stable:" + minorVersion()
	return origin{"obs://build.opensuse.org/" + label + "/deb", label}
}

// UseRepositories is a shell script that makes the apt of a machine know the repositories that
// lie in its directory dir, and no others.
func UseRepositories(dir string) string {
	return fmt.Sprintf(`rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
for name in kubernetes debian; do
	install -D -m 644 '%[1]s'/$name/Release.key /etc/apt/keyrings/lab-$name.asc
	echo "deb [signed-by=/etc/apt/keyrings/lab-$name.asc] file:%[1]s/$name /" >/etc/apt/sources.list.d/lab-$name.list
done
apt-get -q update
`, dir)
}

// WriteRepository makes dir a signed repository of the packages, in the shape of the
// community's: flat ("deb URL /"), with Release.key beside InRelease. The packages are copied:
// a test may break them, and the indexes, in any way it likes. For a repository without a
// version leave its package out; for one signed by another key give another key.
func WriteRepository(ctx context.Context, dir string, debs []string, key Key) error {
	return writeRepository(ctx, dir, communityOrigin(), debs, key)
}

func writeRepository(ctx context.Context, dir string, o origin, debs []string, key Key) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	packages, err := index(ctx, dir, debs)
	if err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(packages); err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	files := map[string][]byte{"Packages": packages, "Packages.gz": zipped.Bytes(), "Release.key": key.Public}
	release := releaseText(o, files)
	if files["InRelease"], files["Release.gpg"], err = key.sign(ctx, release); err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	files["Release"] = release
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write repository: %w", err)
		}
	}
	return nil
}

// index copies the packages into dir and describes them as apt wants it.
func index(ctx context.Context, dir string, debs []string) ([]byte, error) {
	debs = slices.Sorted(slices.Values(debs))
	var packages bytes.Buffer
	for _, deb := range debs {
		content, err := os.ReadFile(deb)
		if err != nil {
			return nil, err
		}
		control, err := controlOf(ctx, deb)
		if err != nil {
			return nil, err
		}
		name := filepath.Join("amd64", filepath.Base(deb))
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return nil, err
		}
		fmt.Fprintf(&packages, "%s\nFilename: %s\nSize: %d\nMD5sum: %x\nSHA256: %x\n\n",
			control, name, len(content), md5.Sum(content), sha256.Sum256(content))
	}
	return packages.Bytes(), nil
}

// releaseText is the Release file over the indexes.
func releaseText(o origin, files map[string][]byte) []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "Archive: deb\nCodename: deb\nOrigin: %s\nLabel: %s\nArchitectures: amd64\nDate: %s\nSHA256:\n",
		o.origin, o.label, time.Now().UTC().Format(time.RFC1123))
	for _, name := range []string{"Packages", "Packages.gz"} {
		fmt.Fprintf(&text, " %x %d %s\n", sha256.Sum256(files[name]), len(files[name]), name)
	}
	return text.Bytes()
}
