package etcdbackup

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The words that Config.Rate may be beside a number.
const (
	RateAuto      = "auto"
	RateUnlimited = "unlimited"
)

const (
	// gentleRate is at which etcd's other clients hardly notice a snapshot.
	gentleRate = 10 << 20
	// gentleFor bounds how long a save may take for being gentle: as long as it runs, etcd cannot
	// reuse the pages that it frees, and its file grows.
	gentleFor = 8 * time.Minute
	// nearQuota is from which part of its quota on a database is not to be pinned for long: once
	// it is at its quota, etcd refuses every write.
	nearQuota = 0.75
)

// Rate is how fast a snapshot is read.
type Rate struct {
	auto  bool
	bytes int64 // a second; 0 is no limit
}

// ParseRate reads what Config.Rate may be: "auto", "unlimited", or bytes a second such as 50MiB.
func ParseRate(s string) (Rate, error) {
	switch s {
	case RateAuto:
		return Rate{auto: true}, nil
	case RateUnlimited:
		return Rate{}, nil
	}
	digits := strings.TrimRight(s, "KMGiB")
	unit, known := map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1e3, "MB": 1e6, "GB": 1e9}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || !known || n <= 0 {
		return Rate{}, fmt.Errorf("%q is neither %s nor %s nor a number of bytes a second such as 50MiB", s, RateAuto, RateUnlimited)
	}
	return Rate{bytes: n * unit}, nil
}

// of is how many bytes a second may be read of a member; 0 is no limit.
func (r Rate) of(d Description) int64 {
	if !r.auto {
		return r.bytes
	}
	if d.Quota > 0 && float64(d.Size) > nearQuota*float64(d.Quota) {
		return 0
	}
	return max(gentleRate, d.Size/int64(gentleFor/time.Second))
}
