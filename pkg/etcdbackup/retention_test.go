package etcdbackup_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

func at(hours ...int) (backups []etcdbackup.Manifest) {
	for _, h := range hours {
		backups = append(backups, etcdbackup.Manifest{Time: noon.Add(time.Duration(h) * time.Hour)})
	}
	return backups
}

func show(decisions []etcdbackup.Decision) string {
	var s []string
	for _, d := range decisions {
		s = append(s, fmt.Sprintf("%d %s", int(d.Manifest.Time.Sub(noon)/time.Hour), d.Reason))
	}
	return strings.Join(s, "; ")
}

func TestRetain(t *testing.T) {
	for name, tt := range map[string]struct {
		backups      []etcdbackup.Manifest
		last         int
		keep, remove string
	}{
		"none":           {nil, 2, "", ""},
		"fewer":          {at(-1), 2, "-1 keepLast", ""},
		"in any order":   {at(-3, -1, -2), 2, "-1 keepLast; -2 keepLast", "-3 older than keepLast"},
		"now counts":     {at(0, -1), 1, "0 keepLast", "-1 older than keepLast"},
		"the future":     {at(9, 8, 0, -1, -2), 2, "9 dated in the future; 8 dated in the future; 0 keepLast; -1 keepLast", "-2 older than keepLast"},
		"only future":    {at(9, 8), 1, "9 dated in the future; 8 dated in the future", ""},
		"a bad policy":   {at(-1, -2), 0, "-1 keepLast", "-2 older than keepLast"},
		"future and bad": {at(1, -1, -2), -1, "1 dated in the future; -1 keepLast", "-2 older than keepLast"},
	} {
		t.Run(name, func(t *testing.T) {
			keep, remove := etcdbackup.Retain(tt.backups, etcdbackup.Retention{KeepLast: tt.last}, noon)
			if show(keep) != tt.keep || show(remove) != tt.remove {
				t.Errorf("keeps %q and removes %q, want %q and %q", show(keep), show(remove), tt.keep, tt.remove)
			}
		})
	}
}

// Whatever the input, each backup is decided on once and the newest that is not of the future
// stays.
func TestRetainProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var backups []etcdbackup.Manifest
		for range random.IntN(12) {
			backups = append(backups, at(random.IntN(20)-15)...)
		}
		before := slices.Clone(backups)
		keep, remove := etcdbackup.Retain(backups, etcdbackup.Retention{KeepLast: random.IntN(6) - 1}, noon)
		if !reflect.DeepEqual(before, backups) {
			t.Fatal("it reordered its input")
		}
		if len(keep)+len(remove) != len(backups) {
			t.Fatalf("%d of %d decided", len(keep)+len(remove), len(backups))
		}
		for _, r := range remove {
			if r.Manifest.Time.After(noon) || !slices.ContainsFunc(keep, func(k etcdbackup.Decision) bool {
				return !k.Manifest.Time.After(noon) && !k.Manifest.Time.Before(r.Manifest.Time)
			}) {
				t.Fatalf("removes %s, keeps %s", show(remove), show(keep))
			}
		}
	}
}

// The newest is the one that the schedule goes on from: never one of the future.
func TestNewest(t *testing.T) {
	for _, tt := range []struct {
		backups []etcdbackup.Manifest
		want    string
	}{{nil, "none"}, {at(9, 8), "none"}, {at(9, 0, -1), "0"}, {at(9, -1, -2), "-1"}} {
		got := "none"
		if m, there := (etcdbackup.Catalog{Backups: tt.backups}).Newest(noon); there {
			got = fmt.Sprint(int(m.Time.Sub(noon) / time.Hour))
		}
		if got != tt.want {
			t.Errorf("of %d: %s, want %s", len(tt.backups), got, tt.want)
		}
	}
}
