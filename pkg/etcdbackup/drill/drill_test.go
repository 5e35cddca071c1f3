package drill_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup/drill"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// What is saved in any wrapping is proven to restore to what the member it was taken from says of
// itself, and the proof can be read back. A second drill adds a second proof.
func TestDrill(t *testing.T) {
	c := member(t)
	to, with := pair(t)
	for name, tt := range map[string]struct {
		change func(*etcdbackup.Request)
		with   etcdbackup.Identities
	}{
		"plain":      {},
		"compressed": {change: func(r *etcdbackup.Request) { r.Compress = true }},
		"encrypted":  {change: func(r *etcdbackup.Request) { r.Recipients = to }, with: with},
		"both, with files": {change: func(r *etcdbackup.Request) {
			r.Compress, r.Recipients = true, to
			r.Files = []etcdbackup.File{{Path: "/etc/kubernetes/pki/ca.key", Mode: 0o600, Data: []byte("secret")}}
		}, with: with},
	} {
		t.Run(name, func(t *testing.T) {
			h, s := newStore(t)
			m := save(t, c, s, tt.change)
			before := content(t, h)
			proof, err := drill.Run(t.Context(), s, m.Object.Name, options(t, tt.with))
			if err != nil {
				t.Fatal(err)
			}
			hash, err := c.HashKV(t.Context(), c.Endpoints()[0], m.Snapshot.Revision)
			if err != nil {
				t.Fatal(err)
			}
			want := etcdbackup.Proof{
				Version: 1, Proven: etcdbackup.ProvenRestored, Object: m.Object, Host: "bastion", Agent: "test",
				Time: proof.Time, Seconds: proof.Seconds,
				Restored: &etcdbackup.Restored{
					Etcd: version.Version, Seconds: proof.Restored.Seconds, Revision: m.Snapshot.Revision,
					CompactRevision: hash.CompactRevision, Keys: m.Snapshot.Keys, KVHash: hash.Hash,
				},
			}
			if diff := cmp.Diff(want, proof); diff != "" {
				t.Error(diff)
			}
			if age := time.Since(proof.Time); age < 0 || age > time.Minute || proof.Seconds <= 0 || proof.Restored.Seconds <= 0 || proof.Seconds < proof.Restored.Seconds {
				t.Errorf("the proof is of %s, %g s for all, %g s to restore", proof.Time, proof.Seconds, proof.Restored.Seconds)
			}
			if _, err := drill.Run(t.Context(), s, m.Object.Name, options(t, tt.with)); err != nil {
				t.Fatal(err)
			}
			if got := proofs(t, s, m.Object.Name); len(got) != 2 || !cmp.Equal(got[1], proof) || !got[0].Time.After(proof.Time) {
				t.Errorf("read back: %+v", got)
			}
			if !maps.Equal(before, content(t, h)) {
				t.Error("a drill has changed what is stored")
			}
		})
	}
}

// A host without the identity proves the object, says so, and needs no room.
func TestObjectOnly(t *testing.T) {
	c := member(t)
	to, _ := pair(t)
	h, s := newStore(t)
	m := save(t, c, s, func(r *etcdbackup.Request) {
		r.Compress, r.Recipients = true, to
		r.Files = []etcdbackup.File{{Path: "/etc/a", Mode: 0o600, Data: []byte("secret")}}
	})
	o := options(t, etcdbackup.Identities{})
	o.Scratch, o.Free = "/nonexistent", nil
	proof, err := drill.Run(t.Context(), s, m.Object.Name, o)
	if err != nil || proof.Proven != etcdbackup.ProvenObject || proof.Restored != nil || drill.Reason(proof, err) != drill.ReasonObject {
		t.Fatalf("%+v, %v", proof, err)
	}
	if want := "the object is the one that was made from a verified snapshot; it was not opened"; proof.Proven.String() != want {
		t.Errorf("it says %q", proof.Proven)
	}
	for _, name := range []string{m.Object.Name, m.Files.Name} {
		flip(t, h, name)
		proof, err = drill.Run(t.Context(), s, m.Object.Name, o)
		if drill.Reason(proof, err) != drill.ReasonDamaged || !strings.Contains(err.Error(), name) {
			t.Errorf("%s damaged: %v", name, err)
		}
		flip(t, h, name)
	}
	if got := proofs(t, s, m.Object.Name); len(got) != 1 {
		t.Errorf("%d proofs, want that of the first", len(got))
	}
}

// flip changes a byte in the middle of an object, or changes it back.
func flip(t *testing.T, h *host.Host, name string) {
	t.Helper()
	data, err := h.ReadFile(filepath.Join(dir, name))
	if err == nil {
		data[len(data)/2] ^= 1
		err = h.WriteFile(filepath.Join(dir, name), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What is not good is named, is not proven, leaves nothing in the scratch directory and the
// store as it was.
func TestFaults(t *testing.T) {
	c := member(t)
	to, with := pair(t)
	_, strangers := pair(t)
	good := func(t *testing.T) etcdbackup.Snapshot {
		hash, err := c.HashKV(t.Context(), c.Endpoints()[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		return etcdbackup.Snapshot{KVHash: hash.Hash, CompactRevision: hash.CompactRevision}
	}
	for name, tt := range map[string]struct {
		spoil  func(*testing.T, *host.Host, etcdbackup.Manifest)
		change func(*drill.Options)
		reason string
		says   string
	}{
		"nothing": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				m.Snapshot.KVHash, m.Snapshot.CompactRevision = good(t).KVHash, good(t).CompactRevision
				rewrite(t, h, m)
			},
			reason: drill.ReasonRestored,
		},
		"damaged object": {
			spoil:  func(t *testing.T, h *host.Host, m etcdbackup.Manifest) { flip(t, h, m.Object.Name) },
			reason: drill.ReasonDamaged, says: "of its manifest",
		},
		"truncated object": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				path := filepath.Join(dir, m.Object.Name)
				data, err := h.ReadFile(path)
				if err := errors.Join(err, h.WriteFile(path, data[:len(data)-1000], 0o600)); err != nil {
					t.Fatal(err)
				}
			},
			reason: drill.ReasonDamaged, says: "of its manifest",
		},
		"damaged files": {
			spoil:  func(t *testing.T, h *host.Host, m etcdbackup.Manifest) { flip(t, h, m.Files.Name) },
			reason: drill.ReasonDamaged, says: ".files.tar.zst.age",
		},
		"wrong identity": {
			change: func(o *drill.Options) { o.Identities = strangers },
			reason: drill.ReasonIdentity, says: "no identity that is given decrypts it",
		},
		"lies about the keys": {
			spoil:  func(t *testing.T, h *host.Host, m etcdbackup.Manifest) { m.Snapshot.Keys--; rewrite(t, h, m) },
			reason: drill.ReasonDiffers, says: "number of keys is 191, not 190",
		},
		"lies about the hash": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				m.Snapshot.KVHash, m.Snapshot.CompactRevision = good(t).KVHash^1, good(t).CompactRevision
				rewrite(t, h, m)
			},
			reason: drill.ReasonDiffers, says: "KV hash is",
		},
		"lies about the compaction": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				m.Snapshot.KVHash, m.Snapshot.CompactRevision = good(t).KVHash, 1
				rewrite(t, h, m)
			},
			reason: drill.ReasonDiffers, says: "compact revision is",
		},
		"lies about the snapshot": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				m.Snapshot.SHA256 = strings.Repeat("0", 64)
				rewrite(t, h, m)
			},
			reason: drill.ReasonDiffers, says: "sha256",
		},
		"lies about the files": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				m.Files.Paths = append(m.Files.Paths, "/etc/kubernetes/pki/ca.crt")
				rewrite(t, h, m)
			},
			reason: drill.ReasonDiffers, says: "the archive holds 1 files, which are not the 2",
		},
		"pruned before it begins": {
			spoil: func(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
				if err := h.Remove(filepath.Join(dir, etcdbackup.ManifestName(m.Object.Name))); err != nil {
					t.Fatal(err)
				}
			},
			reason: drill.ReasonGone, says: "read manifest",
		},
		"no room": {
			change: func(o *drill.Options) {
				o.Free = func(context.Context) (int64, error) { return 100 << 20, nil }
			},
			reason: drill.ReasonSpace, says: "100 MiB are free",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, s := newStore(t)
			m := save(t, c, s, func(r *etcdbackup.Request) {
				r.Compress, r.Recipients = true, to
				r.Files = []etcdbackup.File{{Path: "/etc/a", Mode: 0o600, Data: []byte("secret")}}
			})
			if tt.spoil != nil {
				tt.spoil(t, h, m)
			}
			before := content(t, h)
			o := options(t, with)
			if tt.change != nil {
				tt.change(&o)
			}
			proof, err := drill.Run(t.Context(), s, m.Object.Name, o)
			if got := drill.Reason(proof, err); got != tt.reason || tt.says != "" && !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("reason %s: %v; want %s, and %q said", got, err, tt.reason, tt.says)
			}
			wantProofs := 0
			if tt.reason == drill.ReasonRestored {
				wantProofs = 1
			}
			if got := proofs(t, s, m.Object.Name); len(got) != wantProofs {
				t.Errorf("%d proofs, want %d", len(got), wantProofs)
			}
			if diff := cmp.Diff(before, content(t, h)); diff != "" {
				t.Error("a drill has changed what is stored:", diff)
			}
		})
	}
}

// rewrite puts another manifest in the place of a backup's.
func rewrite(t *testing.T, h *host.Host, m etcdbackup.Manifest) {
	t.Helper()
	data, err := json.Marshal(m)
	if err == nil {
		err = h.WriteFile(filepath.Join(dir, etcdbackup.ManifestName(m.Object.Name)), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A backup whose name and manifest agree on a revision that is not the snapshot's.
func TestManifestLiesAboutTheRevision(t *testing.T) {
	h, s := newStore(t)
	m := save(t, member(t), s, nil)
	was := m
	m.Snapshot.Revision++
	m.Object.Name = etcdbackup.Name{Time: m.Time, Host: "cp1", Revision: m.Snapshot.Revision}.String()
	data, err := h.ReadFile(filepath.Join(dir, was.Object.Name))
	if err := errors.Join(err, h.WriteFile(filepath.Join(dir, m.Object.Name), data, 0o600)); err != nil {
		t.Fatal(err)
	}
	rewrite(t, h, m)
	proof, err := drill.Run(t.Context(), s, m.Object.Name, options(t, etcdbackup.Identities{}))
	if drill.Reason(proof, err) != drill.ReasonDiffers || !strings.Contains(err.Error(), fmt.Sprintf("revision is %d, not %d", was.Snapshot.Revision, m.Snapshot.Revision)) {
		t.Errorf("got %v", err)
	}
}

// A backup that retention takes while it is being drilled is no longer there to be proven, and
// leaves no proof without a backup behind.
func TestPrunedMeanwhile(t *testing.T) {
	h, s := newStore(t)
	m := save(t, member(t), s, nil)
	o := options(t, etcdbackup.Identities{})
	o.Progress = func(doing string, _, _ int64) {
		if doing == "restoring" {
			for _, name := range []string{etcdbackup.ManifestName(m.Object.Name), m.Object.Name} {
				if err := h.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		}
	}
	proof, err := drill.Run(t.Context(), s, m.Object.Name, o)
	if drill.Reason(proof, err) != drill.ReasonGone || !strings.Contains(err.Error(), "pruned meanwhile") {
		t.Errorf("got %v", err)
	}
	if got := content(t, h); len(got) > 0 || len(proofs(t, s, m.Object.Name)) > 0 {
		t.Errorf("left: %v", got)
	}
}

// One that is interrupted ends, and leaves nothing.
func TestInterrupted(t *testing.T) {
	_, s := newStore(t)
	m := save(t, member(t), s, nil)
	for _, at := range []string{"fetching", "restoring", "opening"} {
		ctx, cancel := context.WithCancel(t.Context())
		o := options(t, etcdbackup.Identities{})
		o.Progress = func(doing string, _, _ int64) {
			if strings.HasPrefix(doing, at) {
				cancel()
			}
		}
		proof, err := drill.Run(ctx, s, m.Object.Name, o)
		if drill.Reason(proof, err) != drill.ReasonInterrupted {
			t.Errorf("%s: got %v", at, err)
		}
		cancel()
	}
	if got := proofs(t, s, m.Object.Name); len(got) > 0 {
		t.Errorf("proofs: %+v", got)
	}
}

// A cluster that asks its users who they are is proven by somebody who is none of them.
func TestWithUsers(t *testing.T) {
	c := member(t)
	const self = "kube-etcd-healthcheck-client" // by its certificate
	_, err := c.RoleAdd(t.Context(), "root")
	for _, user := range []string{"root", self} {
		_, added := c.UserAddWithOptions(t.Context(), user, "", &clientv3.UserAddOptions{NoPassword: true})
		_, granted := c.UserGrantRole(t.Context(), user, "root")
		err = errors.Join(err, added, granted)
	}
	_, enabled := c.AuthEnable(t.Context())
	if err := errors.Join(err, enabled); err != nil {
		t.Fatal(err)
	}
	_, s := newStore(t)
	m := save(t, c, s, nil)
	proof, err := drill.Run(t.Context(), s, m.Object.Name, options(t, etcdbackup.Identities{}))
	if err != nil || proof.Proven != etcdbackup.ProvenRestored {
		t.Errorf("%+v, %v", proof, err)
	}
}

// The alarm of a cluster that had run out of its quota comes back with it, and the proof says so.
// One that had found its members to differ is served by no etcd.
func TestAlarms(t *testing.T) {
	c := member(t)
	_, s := newStore(t)
	raise(t, c, pb.AlarmType_NOSPACE)
	m := save(t, c, s, nil)
	proof, err := drill.Run(t.Context(), s, m.Object.Name, options(t, etcdbackup.Identities{}))
	if err != nil || !cmp.Equal(proof.Restored.Alarms, []string{"NOSPACE"}) {
		t.Errorf("%+v, %v", proof.Restored, err)
	}
	raise(t, c, pb.AlarmType_CORRUPT)
	m = save(t, c, s, nil)
	proof, err = drill.Run(t.Context(), s, m.Object.Name, options(t, etcdbackup.Identities{}))
	if drill.Reason(proof, err) != drill.ReasonError || !strings.Contains(fmt.Sprint(err), "CORRUPT") {
		t.Errorf("%+v, %v", proof.Restored, err)
	}
}

func raise(t *testing.T, c *clientv3.Client, alarm pb.AlarmType) {
	t.Helper()
	status, err := c.Status(t.Context(), c.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: alarm,
	})
	if err != nil {
		t.Fatal(err)
	}
}
