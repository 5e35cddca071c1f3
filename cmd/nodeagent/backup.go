package main

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

// stores are the places where backups are kept.
func (m *machine) stores() []etcdbackup.Store {
	var out []etcdbackup.Store
	for _, s := range m.targets() {
		out = append(out, s)
	}
	return out
}

// targets are the stores on this host, which snapshots are saved to.
func (m *machine) targets() []etcdbackup.Local {
	var out []etcdbackup.Local
	for _, s := range m.cfg.Backup.Stores {
		out = append(out, m.fileStore(s.File.Dir))
	}
	return out
}

// nextBackup is when this host's backup after one at a time is due.
func (m *machine) nextBackup() func(after time.Time) time.Time {
	return m.cfg.Backup.NextOn(m.nodeName())
}

const (
	// defaultDiskThreshold is the kubelet's where its configuration cannot be read: a mistake in it
	// is no reason to go without backups.
	defaultDiskThreshold = 15
	// abovePercent is how far a backup stays away from where the kubelet begins to evict.
	abovePercent = 3
)

// fileStore is the store in a directory. It leaves what the kubelet of this host wants to be free,
// and a little more, since a backup that has pods evicted is the cause of what it was taken for.
func (m *machine) fileStore(dir string) *file.Store {
	store := file.New(m.host, dir, m.nodeName())
	threshold, err := kube.DiskThresholdOf(m.host, dir)
	if err != nil {
		threshold = kube.DiskThreshold{Percent: defaultDiskThreshold}
	}
	if threshold.Percent > 0 {
		store.Reserve.Percent = threshold.Percent + abovePercent
	}
	store.Reserve.Bytes = threshold.Bytes
	return store
}

// scratchDirs are where a plain snapshot may lie without a name, in order: the agent's own directory
// and, where that is full or read-only, which is no reason to go without backups, the place for large
// temporary files of file-hierarchy(7).
var scratchDirs = []string{"/var/lib/nodeagent", "/var/tmp"}

// scratch is a file without a name for a plain snapshot. It never lies in a store: that may be another
// machine's, which is to see nothing but what is encrypted.
func (m *machine) scratch(size int64) (*os.File, error) {
	var errs []error
	for _, dir := range scratchDirs {
		f, err := m.fileStore(dir).Scratch(size)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// savesEtcd says whether this host has an etcd to save.
func (m *machine) savesEtcd() bool {
	cfg := stepsConfig(m.cfg)
	return cfg.Role != bootstrap.Worker && !cfg.ExternalEtcd()
}

// backupNotes are what the backups of this host do not protect from. Stores beside it would be
// told of here; as it is a directory is off the host when its filesystem is another machine's.
func (m *machine) backupNotes() []string {
	notes := []string{}
	if !m.savesEtcd() {
		return notes
	}
	if len(m.cfg.Backup.Recipients) == 0 {
		notes = append(notes, "not encrypted (backup.recipients), and without the keys and the configuration that a new host needs")
	}
	if !m.offHost() {
		notes = append(notes, "on this host only: what takes its disks takes them too")
	}
	return notes
}

// offHost says that a store does not lie on this host.
func (m *machine) offHost() bool {
	for _, s := range m.cfg.Backup.Stores {
		if m.fileStore(s.File.Dir).Remote() {
			return true
		}
	}
	return false
}

// backupRequest is what the configuration says of a backup.
func (m *machine) backupRequest(ctx context.Context, now time.Time) (etcdbackup.Request, error) {
	cfg := m.cfg.Backup
	recipients, err := etcdbackup.ParseRecipients(cfg.Recipients)
	if err != nil {
		return etcdbackup.Request{}, fmt.Errorf("backup.%w", err)
	}
	zone, err := cfg.Zone()
	if err != nil {
		return etcdbackup.Request{}, fmt.Errorf("backup.%w", err)
	}
	req := etcdbackup.Request{
		Host: m.nodeName(), Agent: thisBuild().Version, Now: now.In(zone),
		Retention: cfg.Retention, MaxDiskPercent: cfg.MaxDiskPercent,
		Compress: cfg.Compression == etcdbackup.Zstd, Recipients: recipients,
		Scratch: m.scratch,
	}
	if req.Rate, err = etcdbackup.ParseRate(cfg.Rate); err != nil {
		return req, fmt.Errorf("backup.rate: %w", err)
	}
	if recipients.Empty() {
		return req, nil
	}
	req.Files, err = m.filesBeside(ctx)
	return req, err
}

// save takes a snapshot under the backup lock, as change, which may be nil, says otherwise than the
// configuration.
func (m *machine) save(ctx context.Context, purpose string, now time.Time, change func(*etcdbackup.Request)) (report etcdbackup.Report, err error) {
	unlock, err := m.lock(ctx, host.LockBackup, purpose)
	if err != nil {
		return report, err
	}
	defer unlock()
	req, err := m.backupRequest(ctx, now)
	if err != nil {
		return report, fmt.Errorf("save snapshot: %w", err)
	}
	if change != nil {
		change(&req)
	}
	err = withSource(ctx, m.host, m.cfg.Backup.Member(), func(source etcdbackup.Source) error {
		report, err = etcdbackup.Save(ctx, source, m.targets(), req)
		return err
	})
	return report, err
}

// withSource connects to this host's etcd member while do runs. Where there is no member the
// error is etcd.ErrNoMember.
func withSource(ctx context.Context, h *host.Host, choice etcd.Choice, do func(etcdbackup.Source) error) error {
	return withMember(ctx, h, choice, func(_ *clientv3.Client, source etcdbackup.Source) error { return do(source) })
}

// withMember is withSource for what needs the member's client too.
func withMember(ctx context.Context, h *host.Host, choice etcd.Choice, do func(*clientv3.Client, etcdbackup.Source) error) error {
	local, err := etcd.Find(ctx, h, choice)
	if err != nil {
		return err
	}
	ca, err := local.Authority(h)
	if err != nil {
		return err
	}
	client, err := local.Dial(ctx, h)
	if err != nil {
		return err
	}
	return errors.Join(do(client, etcdbackup.FromClient(client, fingerprint(ca))), client.Close())
}

// fingerprint is the sha256 of the first certificate in a PEM file, in hexadecimal; "" of none.
func fingerprint(authority []byte) string {
	block, _ := pem.Decode(authority)
	if block == nil {
		return "" // dialing says what is wrong with it
	}
	return fmt.Sprintf("%x", sha256.Sum256(block.Bytes))
}
