package etcdbackup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

func pruneRequest(now time.Time, last int) etcdbackup.PruneRequest {
	return etcdbackup.PruneRequest{
		Host: "cp1", Now: now, Retention: etcdbackup.Retention{KeepLast: last},
		Mine: func(m etcdbackup.Manifest) bool { return m.Host == "cp1" },
	}
}

// hourly saves so many backups, the newest at noon.
func hourly(t *testing.T, s etcdbackup.Local, n int) (times []time.Time) {
	t.Helper()
	for i := range n {
		times = append(times, noon.Add(-time.Duration(i)*time.Hour))
	}
	for _, at := range slices.Backward(times) {
		req := request(at)
		req.Retention.KeepLast = n
		if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req); err != nil {
			t.Fatal(err)
		}
	}
	return times
}

func TestPrune(t *testing.T) {
	_, s := newStore(t)
	times := hourly(t, s, 4)
	req := pruneRequest(noon, 2)
	req.DryRun = true
	req.Check = func(etcdbackup.Manifest) error { t.Error("a dry run reads backups"); return nil }
	would, err := etcdbackup.Prune(t.Context(), s, req)
	if err != nil || len(would.Kept) != 2 || len(would.Removed) != 2 {
		t.Fatalf("%+v, %v", would, err)
	}
	wantBackups(t, s, times...)

	// The newest is read first, and where it is not good nothing goes.
	bad := errors.New("not good")
	req.DryRun, req.Check = false, func(m etcdbackup.Manifest) error {
		if !m.Time.Equal(noon) {
			t.Errorf("%s is read, not the newest", m.Object.Name)
		}
		return bad
	}
	if done, err := etcdbackup.Prune(t.Context(), s, req); !errors.Is(err, bad) || len(done.Removed) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	wantBackups(t, s, times...)

	req.Check = func(etcdbackup.Manifest) error { return nil }
	done, err := etcdbackup.Prune(t.Context(), s, req)
	if err != nil || !slices.Equal(names(done.Removed), names(would.Removed)) {
		t.Errorf("%+v, %v, want what the dry run said", done, err)
	}
	wantBackups(t, s, times[:2]...)
	req.Check = func(etcdbackup.Manifest) error { t.Error("there is nothing to remove"); return nil }
	if done, err := etcdbackup.Prune(t.Context(), s, req); err != nil || len(done.Removed) != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
}

// kubespray#6621: backups took half of the root filesystem. What a smaller budget has no room for goes by hand
// too, the oldest first, and a dry run says so of each.
func TestPruneOverBudget(t *testing.T) {
	_, s := newStore(t)
	times := hourly(t, s, 4)
	one := list(t, s).Backups[0].Object.Size
	req := pruneRequest(noon, 3)
	req.Room, req.MaxDiskPercent = sized{s, one * 100}.Room, 2
	for _, dry := range []bool{true, false} {
		req.DryRun = dry
		done, err := etcdbackup.Prune(t.Context(), s, req)
		if err != nil {
			t.Fatal(err)
		}
		reasons := map[time.Time]string{}
		for _, d := range done.Removed {
			reasons[d.Manifest.Time] = d.Reason
		}
		if len(reasons) != 2 || reasons[times[3]] != "no rule keeps it" || !strings.HasPrefix(reasons[times[2]], "over maxDiskPercent, ") || len(done.Kept) != 2 {
			t.Errorf("dry run %v: kept %+v, removed %v", dry, done.Kept, reasons)
		}
		if dry {
			wantBackups(t, s, times...)
		}
	}
	wantBackups(t, s, times[:2]...)
}

// Saves in quick succession take the seconds to come: they are no backups of the future, which
// retention would not touch.
func TestPruneAfterQuickSaves(t *testing.T) {
	_, s := newStore(t)
	for range 3 {
		save(t, s, noon)
	}
	if _, err := etcdbackup.Prune(t.Context(), s, pruneRequest(noon, 1)); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, s, noon.Add(2*time.Second))
}

// Another host's backups in the directory are neither counted nor removed.
func TestPruneLeavesOthers(t *testing.T) {
	h, s := newStore(t)
	times := hourly(t, s, 2)
	foreign := request(noon.Add(30 * time.Minute))
	foreign.Host = "cp2"
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{file.New(h, dir, "cp2")}, foreign); err != nil {
		t.Fatal(err)
	}
	if _, err := etcdbackup.Prune(t.Context(), s, pruneRequest(noon, 1)); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, s, noon.Add(30*time.Minute), times[0])
}

// A host without an identity proves no more than hashes. What somebody has restored, on a bastion
// that has one, is what stays.
func TestPruneSparesWhatWasRestored(t *testing.T) {
	_, s := newStore(t)
	times := hourly(t, s, 4)
	c := list(t, s)
	for i, p := range map[int]etcdbackup.Proof{
		1: {Proven: etcdbackup.ProvenObject},
		2: {Proven: etcdbackup.ProvenRestored, Restored: &etcdbackup.Restored{}},
	} {
		p.Object = c.Backups[i].Object
		if _, err := etcdbackup.Prove(t.Context(), s, p, noon); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := etcdbackup.Prune(t.Context(), s, pruneRequest(noon, 1)); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, s, times[0], times[2])
}

// unreachable is a store whose server is gone when an object is read.
type unreachable struct {
	etcdbackup.Store
	object string
	why    error
}

func (u unreachable) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.HasPrefix(name, u.object) {
		return nil, fmt.Errorf("read %s: %w", name, u.why)
	}
	return u.Store.Open(ctx, name)
}

// What cannot be read since the store's server is gone for a moment is not taken for what is not there: what
// was restored would be removed else, since nobody knows.
func TestPruneWhileTheStoreGoes(t *testing.T) {
	_, s := newStore(t)
	times := hourly(t, s, 4)
	c := list(t, s)
	for i, p := range map[int]etcdbackup.Proof{
		1: {Proven: etcdbackup.ProvenObject},
		2: {Proven: etcdbackup.ProvenRestored, Restored: &etcdbackup.Restored{}},
	} {
		p.Object = c.Backups[i].Object
		if _, err := etcdbackup.Prove(t.Context(), s, p, noon); err != nil {
			t.Fatal(err)
		}
	}
	proof := list(t, s).Proofs[c.Backups[2].Object.Name][0]
	for _, gone := range []string{proof, etcdbackup.ManifestName(c.Backups[0].Object.Name)} {
		for _, why := range []error{syscall.ECONNREFUSED, etcdbackup.ErrNoAnswer, etcdbackup.ErrDenied} {
			if _, err := etcdbackup.Prune(t.Context(), unreachable{s, gone, why}, pruneRequest(noon, 1)); !errors.Is(err, why) {
				t.Errorf("%s, %v: %v", gone, why, err)
			}
		}
	}
	wantBackups(t, s, times...)
}

// What a drill has proven stays while nothing newer is proven, and a backup takes its proofs
// with it.
func TestPruneAndProofs(t *testing.T) {
	h, s := newStore(t)
	times := hourly(t, s, 5)
	prove := func(m etcdbackup.Manifest) string {
		name := etcdbackup.ProofName(m.Object.Name, noon)
		if err := h.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	c := list(t, s)
	newer, older := prove(c.Backups[2]), prove(c.Backups[3])
	foreign := []string{"x.proof-20261121T120000Z.json", c.Backups[0].Object.Name + ".proof-today.json", c.Backups[0].Object.Name + ".proof-20261121T120000Z"}
	for _, name := range foreign {
		if err := h.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c = list(t, s); !c.Proven(c.Backups[2].Object.Name) || c.Proven(c.Backups[0].Object.Name) || len(c.Ignored) != len(foreign) {
		t.Errorf("proofs %v, ignored %v", c.Proofs, c.Ignored)
	}
	if _, err := etcdbackup.Prune(t.Context(), s, pruneRequest(noon, 1)); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, s, times[0], times[2])
	if got := files(t, h); !slices.Contains(got, newer) || slices.Contains(got, older) {
		t.Errorf("the directory holds %q", got)
	}
	// The save after next finds the proof of a backup whose removal was cut short, or that
	// somebody has removed.
	for _, name := range []string{c.Backups[2].Object.Name, c.Backups[2].Object.Name + ".json"} {
		if err := h.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	save(t, s, noon.Add(time.Hour))
	if got := files(t, h); slices.Contains(got, newer) || !slices.Contains(got, foreign[0]) {
		t.Errorf("the directory holds %q", got)
	}
}
