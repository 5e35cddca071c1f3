package etcdbackup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// manifestVersion is the version of the format that this code writes. Fields may be added to
// a version; one whose meaning changes makes a new version. docs/backup-format.md has it whole.
const manifestVersion = 1

// maxManifest is more than a manifest ever takes, so that a hostile store cannot fill memory.
const maxManifest = 1 << 20

// Manifest is the commit record of a backup, the JSON beside its object. The file's name is
// the object's with ".json" added.
type Manifest struct {
	Version int       `json:"version"`
	Host    string    `json:"host"`  // the node's name, as it calls itself
	Time    time.Time `json:"time"`  // when the save began, in whole seconds; a later one where that name was taken
	Agent   string    `json:"agent"` // the version of nodeagent that made it

	// Cluster is whose backup this is. A restore gives etcd a new id of its own; this one stays.
	Cluster Cluster `json:"cluster"`
	// Object is what lies in the store.
	Object StoredObject `json:"object"`
	// Snapshot is etcd's snapshot inside it: what `etcdutl snapshot restore` takes.
	Snapshot Snapshot `json:"snapshot"`
	// Etcd is where the snapshot came from.
	Etcd Member `json:"etcd"`
	// Recipients are the fingerprints of those who can decrypt it; none where it is not encrypted.
	Recipients []string `json:"recipients,omitempty"`
	// Files is the archive of what a snapshot alone cannot bring back; nil where there is none.
	Files *Files `json:"files,omitempty"`
	// WithoutQuorum says that the member knew no leader when the save began, or got no agreement of the
	// others: what they agreed upon meanwhile is not in it, and they may have saved the same slot.
	WithoutQuorum bool `json:"withoutQuorum,omitempty"`
}

// Cluster identifies a cluster across restores and rebuilt hosts.
type Cluster struct {
	// Kind is KubeSystem, where ID is the UID of the namespace kube-system, or CertificateAuthority,
	// where it is the sha256 of the certificate that the etcd server's is verified against; or
	// empty, where neither could be had.
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// The kinds of Cluster.
const (
	KubeSystem           = "kube-system"
	CertificateAuthority = "ca"
)

// StoredObject is an object as its bytes lie in the store.
type StoredObject struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // of all its bytes, hexadecimal
}

// Snapshot is the plain snapshot, as etcd sent it.
type Snapshot struct {
	Size     int64  `json:"size"`   // with the trailer
	SHA256   string `json:"sha256"` // of the whole file, its 32-byte trailer included, hexadecimal
	Revision int64  `json:"revision"`
	// CompactRevision is the one that was compacted last; -1: none.
	CompactRevision int64 `json:"compactRevision"`
	Keys            int   `json:"keys"` // live ones
	// KVHash is what etcd's HashKV tells of this content, of any member and after any restore.
	KVHash uint32 `json:"kvHash"`
}

// Member is the etcd member a snapshot is taken from, as far as it tells. The ids are
// hexadecimal, as etcdctl prints them.
type Member struct {
	ClusterID      string `json:"clusterID"`
	MemberID       string `json:"memberID"`
	Version        string `json:"version"`                  // of the server
	StorageVersion string `json:"storageVersion,omitempty"` // of its database; etcd 3.6 and later
	Members        []Peer `json:"members,omitempty"`        // of the cluster, this one among them
}

// Peer is a member of an etcd cluster.
type Peer struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peerURLs"`
	Learner  bool     `json:"learner,omitempty"`
}

// Files is an archive, encrypted like the object, and what is in it.
type Files struct {
	StoredObject
	Paths []string `json:"paths"` // absolute ones on the host; in the archive without their first slash
}

// ErrLaterVersion is a manifest whose format this version of the program does not know.
var ErrLaterVersion = errors.New("was written by a later version of nodeagent")

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
	case !name.Compressed && !name.Encrypted && (m.Object.SHA256 != m.Snapshot.SHA256 || m.Object.Size != m.Snapshot.Size):
		return errors.New("the object is the snapshot itself, and their sizes or hashes differ")
	case name.Encrypted != (len(m.Recipients) > 0):
		return errors.New("its object is encrypted and it names no recipients, or the other way round")
	}
	if m.Files != nil && (m.Files.Name != name.FilesName() || m.Files.Size <= 0 || !isSHA256(m.Files.SHA256)) {
		return errors.New("what it says of its files is not complete")
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

// size is what a backup takes of its store.
func (m Manifest) size() int64 {
	if m.Files == nil {
		return m.Object.Size
	}
	return m.Object.Size + m.Files.Size
}

// objects are the names of everything a backup has beside its manifest.
func (m Manifest) objects() []string {
	names := []string{m.Object.Name}
	if m.Files != nil {
		names = append(names, m.Files.Name)
	}
	return names
}
