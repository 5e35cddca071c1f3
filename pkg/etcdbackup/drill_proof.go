package etcdbackup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// proofVersion is the version of the proofs that this code writes, by the rules of manifests.
const proofVersion = 1

// Proof is what a drill has found of a backup: an object beside it. There is none of a
// drill that failed.
type Proof struct {
	Version int    `json:"version"`
	Proven  Proven `json:"proven"`
	// Object is what was fetched from the store and found to be what its manifest says.
	Object StoredObject `json:"object"`
	Host   string       `json:"host"`  // that proved it
	Agent  string       `json:"agent"` // the version of nodeagent that did
	Time   time.Time    `json:"time"`  // when the drill ended, in whole seconds
	// Seconds is how long the drill took, from the first byte that was fetched.
	Seconds float64 `json:"seconds"`

	// Restored is what was found in the etcd that the backup was restored to; nil where it
	// was not opened.
	Restored *Restored `json:"restored,omitempty"`
}

// Proven is how far a proof goes.
type Proven string

const (
	// ProvenRestored is a backup that an etcd was restored from, which has served its content.
	ProvenRestored Proven = "restored"
	// ProvenObject is an object that is, by its hash, the one that was made of a verified
	// snapshot. It is encrypted, and was not opened.
	ProvenObject Proven = "object"
)

// String says it in a sentence.
func (p Proven) String() string {
	switch p {
	case ProvenRestored:
		return "it was restored, and an etcd served from it what its manifest says"
	case ProvenObject:
		return "the object is the one that was made from a verified snapshot; it was not opened"
	}
	return string(p)
}

// Restored is what a restored etcd has served.
type Restored struct {
	Etcd string `json:"etcd"` // the version of etcd's libraries that restored and opened it
	// Seconds is how long it took from the plain snapshot on disk to an etcd that serves it.
	Seconds         float64 `json:"seconds"`
	Revision        int64   `json:"revision"`
	CompactRevision int64   `json:"compactRevision"`
	Keys            int     `json:"keys"`   // live ones
	KVHash          uint32  `json:"kvHash"` // at Revision
	// Alarms are those that a restored cluster would raise again, such as NOSPACE, under which
	// it takes no writes until they are disarmed.
	Alarms []string `json:"alarms,omitempty"`
}

// Differences is an error, ErrDiffers, that names what of a restored etcd is not as the manifest
// says, nil where all of it is. A hash that the manifest does not give is not compared.
func (r Restored) Differences(want Snapshot) error {
	var errs []error
	differ := func(what string, got, want int64) {
		if got != want {
			errs = append(errs, fmt.Errorf("%w: %s is %d, not %d", ErrDiffers, what, got, want))
		}
	}
	differ("revision", r.Revision, want.Revision)
	differ("number of keys", int64(r.Keys), int64(want.Keys))
	if want.KVHash != 0 {
		differ("KV hash", int64(r.KVHash), int64(want.KVHash))
		differ("compact revision", r.CompactRevision, want.CompactRevision)
	}
	return errors.Join(errs...)
}

// ErrDiffers is a backup whose content is not what its manifest says.
var ErrDiffers = errors.New("the backup is not what its manifest says")

// DecodeProof reads a proof.
func DecodeProof(data []byte) (Proof, error) {
	var p Proof
	if err := json.Unmarshal(data, &p); err != nil {
		return Proof{}, fmt.Errorf("decode proof: %w", err)
	}
	if p.Version > proofVersion {
		return Proof{}, fmt.Errorf("decode proof: version %d: %w", p.Version, ErrLaterVersion)
	}
	_, err := ParseName(p.Object.Name)
	if p.Version != proofVersion || err != nil || p.Time.IsZero() || p.Proven == ProvenRestored && p.Restored == nil {
		return Proof{}, errors.New("decode proof: it is not complete")
	}
	return p, nil
}

// Prove writes a proof beside its object, and gives it its version and its time: the end of the
// drill, or a second after it where another proof has that name. A backup that has been pruned
// meanwhile is fs.ErrNotExist, and nothing is written. Nobody's lock is needed.
func Prove(ctx context.Context, store Store, p Proof, now time.Time) (Proof, error) {
	p.Version, p.Time = proofVersion, now.UTC().Truncate(time.Second)
	fail := func(err error) (Proof, error) { return p, fmt.Errorf("write proof of %s: %w", p.Object.Name, err) }
	objects, err := store.List(ctx)
	if err != nil {
		return fail(err)
	}
	there := map[string]bool{}
	for _, o := range objects {
		there[o.Name] = true
	}
	if !there[ManifestName(p.Object.Name)] {
		return fail(fmt.Errorf("it was pruned meanwhile: %w", fs.ErrNotExist))
	}
	for there[ProofName(p.Object.Name, p.Time)] {
		p.Time = p.Time.Add(time.Second)
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fail(err)
	}
	if err := put(ctx, store, ProofName(p.Object.Name, p.Time), append(data, '\n')); err != nil {
		return fail(err)
	}
	return p, nil
}

// Proofs reads every proof in a store, by the name of the object, the newest first. What cannot
// be read as a proof, or is one of a later version, is none.
func Proofs(ctx context.Context, store Store) (map[string][]Proof, error) {
	objects, err := store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("read proofs in %s: %w", store, err)
	}
	proofs := map[string][]Proof{}
	for _, o := range objects {
		kind, name := classify(o.Name)
		if kind != proofObject || o.Size > maxManifest {
			continue
		}
		p, err := readProof(ctx, store, o.Name)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read proofs in %s: %w", store, context.Cause(ctx))
		}
		if err == nil && p.Object.Name == name.String() && ProofName(p.Object.Name, p.Time) == o.Name {
			proofs[p.Object.Name] = append(proofs[p.Object.Name], p)
		}
	}
	for _, list := range proofs {
		slices.SortFunc(list, func(a, b Proof) int { return b.Time.Compare(a.Time) })
	}
	return proofs, nil
}

// NewestProof is the newest of all that is not dated after now, of one kind or, where that is "",
// of any; false when there is none.
func NewestProof(proofs map[string][]Proof, of Proven, now time.Time) (newest Proof, found bool) {
	for _, list := range proofs {
		for _, p := range list {
			if (of == "" || p.Proven == of) && p.Time.After(newest.Time) && !p.Time.After(now) {
				newest, found = p, true
			}
		}
	}
	return newest, found
}

func readProof(ctx context.Context, store Store, name string) (Proof, error) {
	data, err := readSmall(ctx, store, name)
	if err != nil {
		return Proof{}, err
	}
	return DecodeProof(data)
}
