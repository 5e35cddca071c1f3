package etcdbackup

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Name is what the name of an object says: <time>-<host>-<revision>.db, the time in UTC.
type Name struct {
	Time     time.Time // whole seconds, UTC
	Host     string    // as HostInName returns it
	Revision int64
}

const (
	timeLayout  = "20060102T150405Z"
	extension   = ".db"
	manifestExt = ".json"
	maxHost     = 128
)

func (n Name) String() string {
	return fmt.Sprintf("%s-%s-%d%s", n.Time.UTC().Format(timeLayout), n.Host, n.Revision, extension)
}

// ParseName reads the name of an object, and only as String writes it.
func ParseName(s string) (Name, error) {
	bad := func(why string) (Name, error) { return Name{}, fmt.Errorf("parse name %q: %s", s, why) }
	rest, ok := strings.CutSuffix(s, extension)
	if !ok {
		return bad("does not end in " + extension)
	}
	stamp, rest, ok := strings.Cut(rest, "-")
	if !ok {
		return bad("no time")
	}
	t, err := time.Parse(timeLayout, stamp)
	if err != nil {
		return bad("no time")
	}
	i := strings.LastIndexByte(rest, '-')
	if i < 0 {
		return bad("no revision")
	}
	revision, err := strconv.ParseInt(rest[i+1:], 10, 64)
	if err != nil || revision < 0 {
		return bad("no revision")
	}
	n := Name{Time: t, Host: rest[:i], Revision: revision}
	if n.Host == "" || HostInName(n.Host) != n.Host {
		return bad("no host")
	}
	if n.String() != s {
		return bad("is not written as it would be")
	}
	return n, nil
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
