package etcdbackup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// manifestVersion is the version of the format that this code writes. Fields may be added to
// a version; one whose meaning changes makes a new version.
const manifestVersion = 1

// maxManifest is more than a manifest ever takes, so that a hostile store cannot fill memory.
const maxManifest = 1 << 20

// Manifest is the commit record of a backup, the JSON beside its object. The file's name is
// the object's with ".json" added.
type Manifest struct {
	Version int       `json:"version"`
	Host    string    `json:"host"` // the node's name, as it calls itself
	Time    time.Time `json:"time"` // when the save began, in whole seconds; a later one where that name was taken

	// Object is what lies in the store.
	Object StoredObject `json:"object"`
	// Snapshot is etcd's snapshot inside it: what `etcdutl snapshot restore` takes.
	Snapshot Snapshot `json:"snapshot"`
	// Etcd is where the snapshot came from.
	Etcd Member `json:"etcd"`
}

// StoredObject is an object as its bytes lie in the store.
type StoredObject struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // of all its bytes, hexadecimal
}

// Snapshot is the plain snapshot. In this version it is the object, byte for byte.
type Snapshot struct {
	Size     int64  `json:"size"`   // with the trailer
	SHA256   string `json:"sha256"` // of the whole file, its 32-byte trailer included, hexadecimal
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"` // live ones
}

// Member is the etcd member a snapshot is taken from, as far as it tells. The ids are
// hexadecimal, as etcdctl prints them.
type Member struct {
	ClusterID      string `json:"clusterID"`
	MemberID       string `json:"memberID"`
	Version        string `json:"version"`                  // of the server
	StorageVersion string `json:"storageVersion,omitempty"` // of its database; etcd 3.6 and later
}

// ErrLaterVersion is a manifest whose format this version of the program does not know.
var ErrLaterVersion = errors.New("was written by a later version of nodeagent")

// ManifestName is the name of the manifest of an object.
func ManifestName(object string) string { return object + manifestExt }

// DecodeManifest reads a manifest and checks it against itself.
func DecodeManifest(data []byte) (Manifest, error) {
	if len(data) > maxManifest {
		return Manifest{}, errors.New("decode manifest: it is too large to be one")
	}
	var format struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &format); err != nil {
		return Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	if format.Version > manifestVersion {
		return Manifest{}, fmt.Errorf("decode manifest: version %d: %w", format.Version, ErrLaterVersion)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	return m, nil
}

func (m Manifest) check() error {
	name, err := ParseName(m.Object.Name)
	switch {
	case err != nil:
		return err
	case m.Version != manifestVersion:
		return fmt.Errorf("version is %d", m.Version)
	case !name.Time.Equal(m.Time), name.Host != HostInName(m.Host), name.Revision != m.Snapshot.Revision:
		return fmt.Errorf("time, host or revision is not that of its object %s", m.Object.Name)
	case m.Object.Size <= 0 || m.Snapshot.Size <= 0:
		return errors.New("a size is missing")
	case !isSHA256(m.Object.SHA256) || !isSHA256(m.Snapshot.SHA256):
		return errors.New("a sha256 is missing")
	}
	return nil
}

func isSHA256(s string) bool {
	sum, err := hex.DecodeString(s)
	return err == nil && len(sum) == 32
}

func (m Manifest) encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}
