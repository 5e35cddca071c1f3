// Package drill proves a backup: it is fetched back from its store, restored into a scratch
// directory, and opened there by a real etcd, whose content is compared with the manifest. It is
// apart from package etcdbackup since etcd's server, which it embeds, is larger than all the rest.
//
// Nothing that the embedded etcd has opened may ever become a member's data: it marks what it
// opens with its own version, which an older etcd then refuses.
package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// Options say how to drill.
type Options struct {
	Host  string // the node's name, or another one that the proof is to bear
	Agent string // the version of this program
	// Identities open backups that are encrypted. Where there are none, of such a backup only the
	// objects are compared with their hashes.
	Identities etcdbackup.Identities
	// Scratch is a directory that is there. What a drill puts into it is gone when Run returns,
	// and what one that was killed has left when the next begins.
	Scratch string
	// Free is how many bytes may be taken of the directory's filesystem.
	Free func(context.Context) (int64, error)
	Now  func() time.Time
	// Progress, unless it is nil, is told what is being done, and of a fetch how far it is.
	Progress func(doing string, done, total int64)
}

// ErrNotRecorded is a drill that succeeded, and whose proof could not be written.
var ErrNotRecorded = errors.New("the drill succeeded, and there is no record of it")

// Run drills one backup and writes the proof beside it. It needs no lock: what is published does
// not change, and a backup that is pruned meanwhile is an error, fs.ErrNotExist, and not proven.
// When ctx is done it ends as soon as etcd's libraries return.
func Run(ctx context.Context, store etcdbackup.Store, object string, o Options) (etcdbackup.Proof, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	proof, err := run(ctx, store, object, o)
	if err != nil {
		return etcdbackup.Proof{}, fmt.Errorf("drill %s in %s: %w", object, store, err)
	}
	proof, err = etcdbackup.Prove(ctx, store, proof, o.Now())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return etcdbackup.Proof{}, fmt.Errorf("drill %s in %s: %w", object, store, err)
	case err != nil:
		return proof, fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	return proof, nil
}

func run(ctx context.Context, store etcdbackup.Store, object string, o Options) (proof etcdbackup.Proof, err error) {
	began := o.Now()
	m, err := etcdbackup.ReadManifest(ctx, store, object)
	if err != nil {
		return proof, err
	}
	proof = etcdbackup.Proof{Proven: etcdbackup.ProvenObject, Object: m.Object, Host: o.Host, Agent: o.Agent}
	if !m.Openable(o.Identities) {
		err := etcdbackup.Fetch(ctx, store, m, o.Identities, nil, o.fetching())
		proof.Seconds = o.since(began)
		return proof, err
	}
	dir, err := o.open(ctx, m.Snapshot.Size)
	if err != nil {
		return proof, err
	}
	defer func() { err = errors.Join(err, dir.remove()) }()
	plain, err := dir.nameless()
	if err != nil {
		return proof, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	if err := etcdbackup.Fetch(ctx, store, m, o.Identities, plain, o.fetching()); err != nil {
		return proof, err
	}
	restored, err := o.restore(ctx, plain, dir.path+"/etcd")
	if err != nil {
		return proof, err
	}
	if err := restored.Differences(m.Snapshot); err != nil {
		return proof, err
	}
	proof.Proven, proof.Restored, proof.Seconds = etcdbackup.ProvenRestored, &restored, o.since(began)
	return proof, nil
}

// open makes the scratch directory for a backup of a snapshot of so many bytes.
func (o Options) open(ctx context.Context, size int64) (*scratch, error) {
	if err := Sweep(o.Scratch); err != nil {
		return nil, err
	}
	free, err := o.Free(ctx)
	if err != nil {
		return nil, err
	}
	if need := Space(size); free < need {
		return nil, fmt.Errorf("restore into %s: %w: %d MiB are needed, %d MiB are free beside what is reserved", o.Scratch, etcdbackup.ErrNoSpace, need>>20, max(free, 0)>>20)
	}
	return newScratch(o.Scratch)
}

// restore makes a data directory of a snapshot and has an etcd serve it.
func (o Options) restore(ctx context.Context, plain *os.File, dir string) (etcdbackup.Restored, error) {
	began := o.Now()
	o.Progress("restoring", 0, 0)
	if err := restore(ctx, plain, dir); err != nil {
		return etcdbackup.Restored{}, err
	}
	// The file has no name: this gives its space back, and the etcd may need it.
	if err := plain.Truncate(0); err != nil {
		return etcdbackup.Restored{}, err
	}
	o.Progress("opening with etcd "+version.Version, 0, 0)
	found, err := serve(ctx, dir)
	found.Etcd, found.Seconds = version.Version, o.since(began)
	return found, err
}

func (o Options) fetching() func(done, total int64) {
	return func(done, total int64) { o.Progress("fetching", done, total) }
}

func (o Options) since(began time.Time) float64 {
	return o.Now().Sub(began).Round(time.Millisecond).Seconds()
}

// The reasons of Reason.
const (
	ReasonRestored    = "restored"
	ReasonObject      = "object"
	ReasonSpace       = "space"
	ReasonMemory      = "memory"
	ReasonIdentity    = "identity"
	ReasonDamaged     = "damaged"
	ReasonDiffers     = "differs"
	ReasonGone        = "gone"
	ReasonInterrupted = "interrupted"
	ReasonKilled      = "killed"
	ReasonError       = "error"
)

// Reasons are how a drill can end, the good ends first: the first two are what a proof says.
// ReasonMemory and ReasonKilled are those of a drill that was not begun, or did not live to tell.
func Reasons() []string {
	return []string{
		ReasonRestored, ReasonObject, ReasonSpace, ReasonMemory, ReasonIdentity, ReasonDamaged,
		ReasonDiffers, ReasonGone, ReasonInterrupted, ReasonKilled, ReasonError,
	}
}

// Reason is how a drill ended by what Run returned, in a word.
func Reason(p etcdbackup.Proof, err error) string {
	switch {
	case err == nil || errors.Is(err, ErrNotRecorded):
		return string(p.Proven)
	case errors.Is(err, context.Canceled):
		return ReasonInterrupted
	case errors.Is(err, etcdbackup.ErrNoSpace), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return ReasonSpace
	case errors.Is(err, etcdbackup.ErrNoIdentity):
		return ReasonIdentity
	case errors.Is(err, etcdbackup.ErrDamaged):
		return ReasonDamaged
	case errors.Is(err, etcdbackup.ErrDiffers):
		return ReasonDiffers
	case errors.Is(err, fs.ErrNotExist):
		return ReasonGone
	}
	return ReasonError
}
