package etcdbackup

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// DrillConfig is the section `backup.drill`: a drill restores the newest backup of each store for
// proof, in a unit of its own.
type DrillConfig struct {
	// Schedule is a cron expression or a descriptor like that of backups, in the same time zone;
	// "off", or nothing, is no drills. A host is late by up to a tenth of the time between two, always
	// by as much, so that not all of a cluster's hosts restore at once. The first drill follows
	// the first backup.
	Schedule string `yaml:"schedule"`
	// IdentityFile is a file of age identities, as age-keygen writes it, that open the backups:
	// an absolute path, or "credential:NAME" for a systemd credential. It is refused when others
	// can read it. Without one, of backups that are encrypted only the objects are compared with
	// their hashes.
	IdentityFile string `yaml:"identityFile"`
	// Dir is where a backup is restored: an absolute path. It needs twice the database's size,
	// and nothing stays in it.
	Dir string `yaml:"dir"`
	// DiskRate is how many megabytes (1000000 bytes) a second a drill may read from the disks of
	// dir and of the stores, and how many it may write to them; 0 is no limit.
	DiskRate int `yaml:"diskRate"`
}

// DrillOff is the schedule of no drills. So is the empty one.
const DrillOff = "off"

// defaultDrill leaves most of any disk to etcd. That the rate is little was measured with a save that was held
// to it, and with no drill: etcd's slowest percent of puts took a fifth longer.
func defaultDrill() DrillConfig {
	return DrillConfig{Schedule: "@daily", Dir: "/var/lib/nodeagent/drill", DiskRate: 20}
}

// Off says that no drills are scheduled.
func (c DrillConfig) Off() bool { return c.Schedule == "" || c.Schedule == DrillOff }

func (c DrillConfig) validate() error {
	var errs []error
	if !c.Off() {
		if _, err := (Config{Schedule: c.Schedule, TimeZone: "UTC"}).cron(); err != nil { // the zone is validated as timeZone
			errs = append(errs, fmt.Errorf("drill.%w", err))
		}
	}
	if c.IdentityFile != "" {
		if err := host.ValidateSecret(c.IdentityFile); err != nil {
			errs = append(errs, fmt.Errorf("drill.identityFile: %w", err))
		}
	}
	switch {
	case c.Dir == "":
		errs = append(errs, errors.New("drill.dir: is empty"))
	case !filepath.IsAbs(c.Dir):
		errs = append(errs, fmt.Errorf("drill.dir: %q is not an absolute path", c.Dir))
	case filepath.Clean(c.Dir) != c.Dir || c.Dir == "/":
		errs = append(errs, fmt.Errorf("drill.dir: %q cannot be it", c.Dir))
	}
	if c.DiskRate < 0 {
		errs = append(errs, fmt.Errorf("drill.diskRate: %d is less than 0", c.DiskRate))
	}
	return errors.Join(errs...)
}

// NextDrill is when, on a host of that name, the drill after one at a time is due, as NextOn has
// it for backups; the zero time where there are none.
func (c Config) NextDrill(host string) func(after time.Time) time.Time {
	if c.Drill.Off() {
		return func(time.Time) time.Time { return time.Time{} }
	}
	return Config{Schedule: c.Drill.Schedule, TimeZone: c.TimeZone, Jitter: drillJitter}.NextOn(host)
}

// drillJitter is more than the part of the time between two drills that bounds it.
const drillJitter = 24 * time.Hour
