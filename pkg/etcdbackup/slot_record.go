package etcdbackup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcd"
)

const (
	// slotsPrefix is where etcd holds the slot records, by the id of their store.
	slotsPrefix = etcd.Prefix + "backup/slots/"
	// slotVersion is the version of the record that this code writes; by the rules of manifestVersion.
	slotVersion = 1
	// maxSlotRecord is more than a record ever takes.
	maxSlotRecord = 64 << 10
)

// SlotRecord is what the members of a cluster tell one another of a store that they share. Fields
// that a later program has added are kept when it is written.
type SlotRecord struct {
	// Slot is the start of the one that was taken last, Taken the backup that it was taken with: it
	// lies in the spool of its host, and may not have been uploaded yet.
	Slot  time.Time
	Taken SlotBackup
	// Uploaded is the newest backup that the store is known to have.
	Uploaded Uploaded

	fields map[string]json.RawMessage
}

// SlotBackup is a backup as the slot record names it; its zero value is none.
type SlotBackup struct {
	Host     string    `json:"host"`
	Backup   string    `json:"backup"` // the name of its object
	Revision int64     `json:"revision"`
	Saved    time.Time `json:"saved"` // the time of its manifest
}

// Uploaded is a backup that lies in a shared store.
type Uploaded struct {
	SlotBackup
	Uploaded time.Time `json:"uploaded"` // when the upload had ended
}

// decodeSlotRecord reads a record; of no data it is the empty one.
func decodeSlotRecord(data []byte) (SlotRecord, error) {
	fail := func(err error) (SlotRecord, error) { return SlotRecord{}, fmt.Errorf("decode slot record: %w", err) }
	r := SlotRecord{fields: map[string]json.RawMessage{}}
	if data == nil {
		return r, nil
	}
	if len(data) > maxSlotRecord {
		return fail(errors.New("it is too large to be one"))
	}
	if err := json.Unmarshal(data, &r.fields); err != nil {
		return fail(err)
	}
	version := 0
	if err := json.Unmarshal(r.fields["version"], &version); err != nil || version < 1 {
		return fail(errors.New("it has no version"))
	}
	if version > slotVersion {
		return fail(fmt.Errorf("version %d: %w", version, ErrLaterVersion))
	}
	for name, field := range map[string]func(json.RawMessage) error{
		"slot":     func(raw json.RawMessage) error { return json.Unmarshal(raw, &r.Slot) },
		"taken":    func(raw json.RawMessage) error { return json.Unmarshal(raw, &r.Taken) },
		"uploaded": func(raw json.RawMessage) error { return json.Unmarshal(raw, &r.Uploaded) },
	} {
		if raw, there := r.fields[name]; there {
			if err := field(raw); err != nil {
				return fail(fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return r, nil
}

func (r SlotRecord) encode() ([]byte, error) {
	fields := map[string]json.RawMessage{}
	maps.Copy(fields, r.fields)
	var errs []error
	set := func(name string, raw []byte, err error) {
		fields[name] = raw
		errs = append(errs, err)
	}
	raw, err := json.Marshal(slotVersion)
	set("version", raw, err)
	if !r.Slot.IsZero() {
		raw, err = json.Marshal(r.Slot.UTC())
		set("slot", raw, err)
		raw, err = json.Marshal(r.Taken)
		set("taken", raw, err)
	}
	if r.Uploaded.Backup != "" {
		raw, err = json.Marshal(r.Uploaded)
		set("uploaded", raw, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("encode slot record: %w", err)
	}
	return json.Marshal(fields)
}

// taken says that somebody has a slot already, or the one after: this host's clock is behind then. A
// record of a time further ahead is by a clock that was wrong, and must not stop the backups until then.
func (r SlotRecord) taken(slot Slot) bool {
	return !r.Slot.Before(slot.Start) && !r.Slot.After(slot.End)
}

// slotBackup is a backup as a record names it.
func slotBackup(m Manifest) SlotBackup {
	return SlotBackup{Host: m.Host, Backup: m.Object.Name, Revision: m.Snapshot.Revision, Saved: m.Time}
}

// storeID is what the id of a store may be.
var storeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func slotKey(id string) string { return slotsPrefix + id }

// changed is what change makes of a record in etcd. One that cannot be read is made anew, since it must not
// stop the backups; one of a later version is left alone.
func changed(change func(*SlotRecord)) func([]byte) ([]byte, error) {
	return func(old []byte) ([]byte, error) {
		r, err := decodeSlotRecord(old)
		if errors.Is(err, ErrLaterVersion) {
			return nil, err
		}
		if err != nil {
			r = SlotRecord{}
		}
		change(&r)
		return r.encode()
	}
}

// RecordUpload tells the other members that a shared store, by its id, has a backup, by whomever and
// whenever it was saved, since a time. One that is older than what is recorded changes nothing, and a
// member that is alone in its cluster tells nobody. It waits for no lock: it is written by comparing
// the record's revision, so that an upload does not wait for a member that saves.
func RecordUpload(ctx context.Context, client *clientv3.Client, id string, m Manifest, uploaded time.Time) error {
	standing, err := etcd.StandingOf(ctx, client)
	if err == nil && !standing.Alone() {
		err = recordUpload(ctx, client, id, m, uploaded)
	}
	if err != nil {
		return fmt.Errorf("record the upload of %s: %w", m.Object.Name, err)
	}
	return nil
}

func recordUpload(ctx context.Context, client *clientv3.Client, id string, m Manifest, uploaded time.Time) error {
	return etcd.Update(ctx, client, slotKey(id), changed(func(r *SlotRecord) {
		// One that is dated after its upload was saved by a clock that was ahead.
		known := r.Uploaded
		if known.Saved.Before(m.Time) || known.Saved.After(uploaded) {
			r.Uploaded = Uploaded{SlotBackup: slotBackup(m), Uploaded: uploaded.UTC().Truncate(time.Second)}
		}
	}))
}

// SlotRecords are those of shared stores, by id, as this host's member knows them: it may be a little
// behind, and answers without a quorum. A store without a record, or with one that cannot be
// read, is left out.
func SlotRecords(ctx context.Context, client *clientv3.Client, ids ...string) (map[string]SlotRecord, error) {
	var keys []string
	for _, id := range ids {
		keys = append(keys, slotKey(id))
	}
	values, err := etcd.Values(ctx, client, keys...)
	if err != nil {
		return nil, fmt.Errorf("read slot records: %w", err)
	}
	records := map[string]SlotRecord{}
	for _, id := range ids {
		if r, err := decodeSlotRecord(values[slotKey(id)]); err == nil && values[slotKey(id)] != nil {
			records[id] = r
		}
	}
	return records, nil
}
