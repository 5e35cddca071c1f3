package etcdbackup

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Name is what the name of an object says: <time>-<host>-<revision>.db[.zst][.age], the time in
// UTC. The endings say how the snapshot was wrapped, the innermost first, so that whoever finds
// the file knows which stock programs unwrap it.
type Name struct {
	Time       time.Time // whole seconds, UTC
	Host       string    // as HostInName returns it
	Revision   int64
	Compressed bool // by zstd
	Encrypted  bool // by age
}

const (
	timeLayout  = "20060102T150405Z"
	extension   = ".db"
	zstdExt     = ".zst"
	ageExt      = ".age"
	manifestExt = ".json"
	proofExt    = ".proof-"
	filesExt    = ".files.tar" + zstdExt + ageExt
	maxHost     = 128
)

// Stem is the name without its endings: what a backup's objects have in common.
func (n Name) Stem() string {
	return fmt.Sprintf("%s-%s-%d", n.Time.UTC().Format(timeLayout), n.Host, n.Revision)
}

func (n Name) String() string {
	s := n.Stem() + extension
	if n.Compressed {
		s += zstdExt
	}
	if n.Encrypted {
		s += ageExt
	}
	return s
}

// ManifestName is the name of the manifest of an object.
func ManifestName(object string) string { return object + manifestExt }

// FilesName is the name of the archive of files that goes with a snapshot.
func (n Name) FilesName() string { return n.Stem() + filesExt }

// ParseName reads the name of an object, and only as String writes it.
func ParseName(s string) (Name, error) {
	var n Name
	rest, encrypted := strings.CutSuffix(s, ageExt)
	rest, compressed := strings.CutSuffix(rest, zstdExt)
	stem, ok := strings.CutSuffix(rest, extension)
	if !ok {
		return Name{}, fmt.Errorf("parse name %q: does not end in %s, with or without %s and %s", s, extension, zstdExt, ageExt)
	}
	n, why := parseStem(stem)
	if why != "" {
		return Name{}, fmt.Errorf("parse name %q: %s", s, why)
	}
	n.Compressed, n.Encrypted = compressed, encrypted
	if n.String() != s {
		return Name{}, fmt.Errorf("parse name %q: is not written as it would be", s)
	}
	return n, nil
}

// kind is what an object of a store is, by its name.
type kind int

const (
	foreign kind = iota // nothing that a backup has
	snapshotObject
	manifestObject
	filesObject
	proofObject
)

// classify tells what an object is, and the name of the backup that it belongs to; of files the
// name does not tell how the snapshot beside them is wrapped.
func classify(s string) (kind, Name) {
	if stem, ok := strings.CutSuffix(s, filesExt); ok {
		if n, why := parseStem(stem); why == "" && n.FilesName() == s {
			return filesObject, n
		}
		return foreign, Name{}
	}
	rest, isJSON := strings.CutSuffix(s, manifestExt)
	if !isJSON {
		if n, err := ParseName(s); err == nil {
			return snapshotObject, n
		}
		return foreign, Name{}
	}
	of := manifestObject
	if object, stamp, ok := strings.Cut(rest, proofExt); ok {
		if t, err := time.Parse(timeLayout, stamp); err != nil || t.Format(timeLayout) != stamp {
			return foreign, Name{}
		}
		rest, of = object, proofObject
	}
	if n, err := ParseName(rest); err == nil {
		return of, n
	}
	return foreign, Name{}
}

// ProofName is the name of a proof that was made of an object at a time.
func ProofName(object string, at time.Time) string {
	return object + proofExt + at.UTC().Format(timeLayout) + manifestExt
}

// parseStem says why s is none, or nothing.
func parseStem(s string) (n Name, why string) {
	stamp, rest, ok := strings.Cut(s, "-")
	if !ok {
		return n, "no time"
	}
	t, err := time.Parse(timeLayout, stamp)
	if err != nil {
		return n, "no time"
	}
	i := strings.LastIndexByte(rest, '-')
	if i < 0 {
		return n, "no revision"
	}
	revision, err := strconv.ParseInt(rest[i+1:], 10, 64)
	if err != nil || revision < 0 {
		return n, "no revision"
	}
	n = Name{Time: t, Host: rest[:i], Revision: revision}
	if n.Host == "" || HostInName(n.Host) != n.Host {
		return n, "no host"
	}
	return n, ""
}

// HostInName is how a host's name appears in the names of its objects: letters, digits, dots,
// dashes and underscores stay, everything else becomes an underscore, and the length is cut.
func HostInName(host string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '_'
	}, host)
	return safe[:min(len(safe), maxHost)]
}

// HostOf is the host, as HostInName returns it, that the object of this name is of; "" where it is
// named like nothing that a backup has.
func HostOf(name string) string {
	_, n := classify(name)
	return n.Host
}

// CheckName refuses what is no name of an object in a store.
func CheckName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name of object %q: is not a plain file name", name)
	}
	return nil
}
