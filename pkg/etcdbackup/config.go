package etcdbackup

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcd"
)

// Config is the section `backup`.
type Config struct {
	// Schedule is a cron expression of five fields, or a descriptor such as @daily. Where
	// both day fields are restricted a day that fits either is meant, as in crontab(5).
	Schedule string `yaml:"schedule"`
	// Interval, when it is not 0, replaces Schedule.
	Interval time.Duration `yaml:"interval"`
	// Jitter is how much later than Schedule, or earlier than Interval, a host may save: each host
	// by a part of it that its name decides, and never by more than a tenth of the time between two.
	Jitter time.Duration `yaml:"jitter"`
	// TimeZone is what Schedule is read in, and what the days of Retention are of: Local, UTC or
	// a name such as Europe/Berlin.
	TimeZone string `yaml:"timeZone"`
	// Endpoints are client URLs of etcd, as in https://192.0.2.10:2379, for a host on which the
	// member is not found or cannot be told from others. The one that is an address of this host
	// is used, so that every host may be given the same list.
	Endpoints []string `yaml:"endpoints"`
	// CAFile verifies etcd's certificate, where etcd's own settings do not say what does.
	CAFile string `yaml:"caFile"`
	// CertFile is the client certificate to use, instead of one that is found.
	CertFile string `yaml:"certFile"`
	// KeyFile is the key of CertFile.
	KeyFile string `yaml:"keyFile"`
	// Compression is how backups are compressed: zstd, or none.
	Compression string `yaml:"compression"`
	// Recipients are the age public keys (age1…, or age1pq1… for post-quantum ones) that backups
	// are encrypted to. The host needs no identity to save; without recipients backups are not encrypted.
	Recipients []string `yaml:"recipients"`
	// MaxDiskPercent is how much of a store's filesystem backups may take, in percent. Beyond
	// it the oldest are removed, the newest never.
	MaxDiskPercent int `yaml:"maxDiskPercent"`
	// Rate is how fast a scheduled save reads from etcd: auto, which leaves etcd's other clients their
	// pace, ends within ten minutes and hurries where the database nears its quota; unlimited; or
	// bytes a second such as 50MiB. A save by hand is not limited.
	Rate string `yaml:"rate"`
	// Stores are the places where backups are kept. Each gets every backup.
	Stores []StoreConfig `yaml:"stores"`
	// Retention says which backups are kept in each store.
	Retention Retention `yaml:"retention"`
	// Drill is when a backup is restored for proof, and with what.
	Drill DrillConfig `yaml:"drill"`
}

// StoreConfig is one place where backups are kept. Exactly one of its fields is set.
type StoreConfig struct {
	// File is a store in a directory of this host.
	File *FileConfig `yaml:"file,omitempty"`
	// S3 is a store in a bucket, of Amazon or of a server that speaks its protocol.
	S3 *S3Config `yaml:"s3,omitempty"`
}

// FileConfig is a store in a directory of this host.
type FileConfig struct {
	// Dir is an absolute path. It is made when the first backup is saved.
	Dir string `yaml:"dir"`
}

// String is what the store is called wherever it is named: what its Store.String returns.
func (s StoreConfig) String() string {
	switch {
	case s.S3 != nil:
		return s.S3.String()
	case s.File != nil:
		return "file " + s.File.Dir
	}
	return "none"
}

// The values of Config.Compression.
const (
	Zstd         = "zstd"
	Uncompressed = "none"
)

// DefaultConfig is a backup every six hours, kept for a week on the host itself.
func DefaultConfig() Config {
	return Config{
		Schedule: "0 */6 * * *",
		Jitter:   5 * time.Minute,
		TimeZone: "Local",

		Compression:    Zstd,
		MaxDiskPercent: 20,
		Rate:           RateAuto,

		Stores:    []StoreConfig{{File: &FileConfig{Dir: "/var/lib/nodeagent/backups"}}},
		Retention: Retention{KeepLast: 28},
		Drill:     defaultDrill(),
	}
}

// Validate returns every mistake, each beginning with its field.
func (c Config) Validate() error {
	var errs []error
	if c.Interval == 0 {
		if _, err := c.cron(); err != nil {
			errs = append(errs, err)
		}
	} else if c.Interval < time.Second {
		errs = append(errs, fmt.Errorf("interval: %s is shorter than one second", c.Interval))
	}
	if err := c.Member().Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Compression != Zstd && c.Compression != Uncompressed {
		errs = append(errs, fmt.Errorf("compression: %q is neither %s nor %s", c.Compression, Zstd, Uncompressed))
	}
	if _, err := ParseRecipients(c.Recipients); err != nil {
		errs = append(errs, err)
	}
	if c.MaxDiskPercent < 1 || c.MaxDiskPercent > 100 {
		errs = append(errs, fmt.Errorf("maxDiskPercent: %d is not between 1 and 100", c.MaxDiskPercent))
	}
	if _, err := ParseRate(c.Rate); err != nil {
		errs = append(errs, fmt.Errorf("rate: %w", err))
	}
	if c.Jitter < 0 {
		errs = append(errs, fmt.Errorf("jitter: %s is less than nothing", c.Jitter))
	}
	if len(c.Stores) == 0 {
		errs = append(errs, errors.New("stores: none is given, so that backups would go nowhere"))
	}
	seen := map[string]bool{}
	for i, s := range c.Stores {
		if found := s.validate(); len(found) > 0 {
			for _, err := range found {
				errs = append(errs, fmt.Errorf("stores[%d]%w", i, err))
			}
			continue
		}
		if seen[s.String()] {
			errs = append(errs, fmt.Errorf("stores[%d]: %s is another one of the stores too", i, s))
		}
		seen[s.String()] = true
	}
	if err := c.Retention.validate(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.Drill.validate())
	return errors.Join(errs...)
}

func (s StoreConfig) validate() []error {
	switch {
	case s.File == nil && s.S3 == nil:
		return []error{errors.New(": no kind of store is given, such as file or s3")}
	case s.File != nil && s.S3 != nil:
		return []error{errors.New(": file and s3 are two stores: give each an item of its own")}
	case s.S3 != nil:
		return s.S3.validate()
	}
	if err := s.File.validate(); err != nil {
		return []error{err}
	}
	return nil
}

func (c FileConfig) validate() error {
	switch {
	case c.Dir == "":
		return errors.New(".file.dir: is empty")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf(".file.dir: %q is not an absolute path", c.Dir)
	case filepath.Clean(c.Dir) != c.Dir:
		return fmt.Errorf(".file.dir: %q is written %s", c.Dir, filepath.Clean(c.Dir))
	case c.Dir == "/":
		return errors.New(".file.dir: / cannot be a store")
	}
	return nil
}

// Member is what c says about where etcd is.
func (c Config) Member() etcd.Choice {
	return etcd.Choice{Endpoints: c.Endpoints, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}
}
