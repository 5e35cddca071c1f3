package etcdbackup_test

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
)

// What is no backup is not listed as one, and says why.
func TestListIgnores(t *testing.T) {
	h, s := newStore(t)
	good := save(t, s, noon)
	path := filepath.Join(dir, good.Object.Name)
	object, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := h.ReadFile(path + ".json")
	if err != nil {
		t.Fatal(err)
	}
	other := etcdbackup.Name{Time: noon.Add(time.Hour), Host: "cp1", Revision: good.Snapshot.Revision}.String()
	renamed := bytes.ReplaceAll(manifest, []byte(good.Object.Name), []byte(other))
	renamed = bytes.ReplaceAll(renamed, []byte("T12:00:00Z"), []byte("T13:00:00Z"))
	for name, tt := range map[string]struct {
		files map[string][]byte
		want  string // how the reason reads; "" is a backup
	}{
		"renamed":               {map[string][]byte{other: object, other + ".json": renamed}, ""},
		"truncated":             {map[string][]byte{other: object[:len(object)-4096], other + ".json": renamed}, "its object " + other + " has"},
		"without its object":    {map[string][]byte{other + ".json": renamed}, "its object " + other + " is gone"},
		"without its manifest":  {map[string][]byte{other: object}, "has no manifest"},
		"another's manifest":    {map[string][]byte{other: object, other + ".json": manifest}, "is the manifest of " + good.Object.Name},
		"half a manifest":       {map[string][]byte{other: object, other + ".json": renamed[:50]}, "decode manifest"},
		"of a later version":    {map[string][]byte{other: object, other + ".json": []byte(`{"version": 2}`)}, "later version"},
		"a manifest too large":  {map[string][]byte{other: object, other + ".json": bytes.Repeat([]byte{' '}, 2<<20)}, "too large"},
		"somebody's file":       {map[string][]byte{"etcd-snapshot.db": object}, "not named like a backup"},
		"a manifest of nothing": {map[string][]byte{"notes.json": manifest}, "not named like a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			for file, data := range tt.files {
				if err := h.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := h.Remove(filepath.Join(dir, file)); err != nil {
						t.Error(err)
					}
				})
			}
			c := list(t, s)
			if tt.want == "" {
				if len(c.Backups) != 2 || len(c.Ignored) != 0 || c.Backups[0].Object.Name != other {
					t.Errorf("listed %+v", c)
				}
				return
			}
			if len(c.Backups) != 1 || !reflect.DeepEqual(c.Backups[0], good) {
				t.Errorf("listed %+v, want only %s", c.Backups, good.Object.Name)
			}
			if len(c.Ignored) != 1 || !strings.Contains(c.Ignored[0].Reason, tt.want) {
				t.Errorf("ignored %+v, want one with %q", c.Ignored, tt.want)
			}
		})
	}
}
