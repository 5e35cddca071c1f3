package etcdbackup_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
)

// small is a store on a filesystem of so many bytes, of which it may use all.
type small struct {
	*file.Store
	size int64
}

func (s small) Room(ctx context.Context) (etcdbackup.Room, error) {
	c, err := etcdbackup.List(ctx, s.Store)
	free := s.size
	for _, b := range c.Backups {
		free -= b.Object.Size
	}
	return etcdbackup.Room{Size: s.size, Free: free}, err
}

// sized is a store on a filesystem of so many bytes, all of them free.
type sized struct {
	*file.Store
	size int64
}

func (s sized) Room(context.Context) (etcdbackup.Room, error) {
	return etcdbackup.Room{Size: s.size, Free: 1 << 40}, nil
}

// kubespray#6621: backups took half of the root filesystem.
func TestRoom(t *testing.T) {
	_, s := newStore(t)
	var one int64
	for hour := range 3 {
		one = save(t, s, noon.Add(time.Duration(hour)*time.Hour)).Object.Size
	}
	at := func(hour int) time.Time { return noon.Add(time.Duration(hour) * time.Hour) }
	attempt := func(size int64, hour int) ([]etcdbackup.Decision, error) {
		report, err := etcdbackup.Save(t.Context(), fakeSource{size: one, stream: sends(genuine(t)).stream},
			[]etcdbackup.Local{small{s, size}}, request(at(hour)))
		return report.Stores[0].Removed, err
	}
	const margin = 64 << 20
	// There is room for one more when the oldest two go.
	removed, err := attempt(one*2+margin, 3)
	if err != nil || len(removed) != 2 || removed[0].Reason != "room for the next" {
		t.Errorf("removed %+v, %v, want the oldest two, to make room", removed, err)
	}
	wantBackups(t, s, at(3), at(2))
	// There is no room even when all but the newest go: then none goes.
	if removed, err = attempt(one+margin, 4); !errors.Is(err, etcdbackup.ErrNoSpace) || len(removed) != 0 {
		t.Errorf("removed %+v, %v, want ErrNoSpace and nothing removed", removed, err)
	}
	wantBackups(t, s, at(3), at(2))
}

// What is over the budget goes, the oldest first; the newest stays even where it alone is over.
func TestMaxDiskPercent(t *testing.T) {
	_, s := newStore(t)
	var one int64
	for hour := range 3 {
		one = save(t, s, noon.Add(time.Duration(hour)*time.Hour)).Object.Size
	}
	at := func(hour int) time.Time { return noon.Add(time.Duration(hour) * time.Hour) }
	for i, tt := range []struct {
		percent int
		want    []time.Time
	}{
		{2, []time.Time{at(3), at(2), at(1)}},
		{2, []time.Time{at(4), at(3), at(2)}},
		{1, []time.Time{at(5)}},
	} {
		req := request(at(3 + i))
		req.MaxDiskPercent = tt.percent
		size := one * 160 // two hundredths are three backups
		if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{sized{s, size}}, req); err != nil {
			t.Fatal(err)
		}
		wantBackups(t, s, tt.want...)
	}
	req := request(at(6))
	req.MaxDiskPercent = 1
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{sized{s, one * 20}}, req); err != nil {
		t.Fatal(err)
	}
	wantBackups(t, s, at(6))
}

// joint is a store on a filesystem of so many bytes that it has together with others.
type joint struct {
	*file.Store
	size int64
	all  []*file.Store
}

func (j joint) Room(ctx context.Context) (etcdbackup.Room, error) {
	free := j.size
	for _, s := range j.all {
		c, err := etcdbackup.List(ctx, s)
		if err != nil {
			return etcdbackup.Room{}, err
		}
		for _, b := range c.Backups {
			free -= b.Object.Size
		}
	}
	return etcdbackup.Room{Size: j.size, Free: free}, nil
}

// What waits for a store that is gone for long does not stop the saves to the host's own: the oldest of it
// make room, no more of them than are needed, and never the newest; and none on another filesystem.
func TestSpoolMakesRoom(t *testing.T) {
	h, local := newStore(t)
	spool := file.New(h, etcdbackup.SpoolDir+"/x", "cp1")
	var one int64
	for hour := range 4 {
		one = save(t, spool, noon.Add(time.Duration(hour)*time.Hour)).Object.Size
	}
	at := func(hour int) time.Time { return noon.Add(time.Duration(hour) * time.Hour) }
	const margin = 64 << 20
	attempt := func(size, spoolSize int64, hour int) (etcdbackup.Report, error) {
		all := []*file.Store{local, spool}
		waits := joint{spool, spoolSize, all}
		req := request(at(hour))
		req.Spools = []etcdbackup.Local{waits}
		return etcdbackup.Save(t.Context(), fakeSource{size: one, stream: sends(genuine(t)).stream}, []etcdbackup.Local{joint{local, size, all}, waits}, req)
	}
	// The request of save keeps three.
	wantBackups(t, spool, at(3), at(2), at(1))
	size := 3*one + margin
	if _, err := attempt(size, size+1, 4); !errors.Is(err, etcdbackup.ErrNoSpace) {
		t.Errorf("on another filesystem: %v", err)
	}
	if got := len(list(t, local).Backups); got != 0 {
		t.Errorf("%d are on the host", got)
	}
	before := list(t, spool).Backups
	report, err := attempt(3*one+margin, 3*one+margin, 5)
	if !report.Saved() {
		t.Fatal(err)
	}
	wantBackups(t, local, at(5))
	if left := list(t, spool).Backups; len(left) == 0 || left[len(left)-1].Time.Equal(before[len(before)-1].Time) {
		t.Errorf("before %d waited, now %d", len(before), len(left))
	}
}
