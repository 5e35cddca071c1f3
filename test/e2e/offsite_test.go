//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/nodeagent/nodeagent/test/vm"
)

//go:embed testdata/offsite.sh
var offsite []byte

const rulesFile = "../../deploy/prometheus/nodeagent.rules.yaml"

// goesOffHost: by the schedule, encrypted, to a disk and to a real S3 server; the drill restores what
// lies there, status says so with its dates, a real Prometheus scrapes it and is silent. Then the
// server is gone for thirteen hours: the saves go on, and the alert names the store. Then the schedule
// stops. The machine is put back to where it was.
func goesOffHost(ctx context.Context, t *testing.T, v *vm.VM) {
	if err := v.Save(ctx, "on-host"); err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"/etc/nodeagent/identity.txt": identity.String() + "\n",
		"/root/recipient":             identity.Recipient().String(),
		"/root/nodeagent.rules.yaml":  string(rules),
		"/root/offsite.sh":            string(offsite),
	} {
		if err := v.WriteFile(ctx, path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v.MustRun(ctx, t, "bash /root/offsite.sh begin")
	// Manifest and proof are there last: the object was uploaded, fetched back, opened and restored.
	object := v.Eventually(ctx, t, 5*time.Minute, `
		proof=$(ls /srv/s3/backups/node1/*.db.zst.age.proof-*.json | tail -n 1)
		jq -e '.proven == "restored"' <"$proof" >/dev/null
		jq -r .object.name <"$proof"`)
	v.MustRun(ctx, t, `
		cd /srv/s3/backups/node1
		[ "$(sha256sum <`+object+` | cut -d' ' -f1)" = "$(jq -r .object.sha256 <`+object+`.json)" ]
		jq -e '.recipients | length == 1' <`+object+`.json >/dev/null
		head -c 22 `+object+` | grep -Fx >/dev/null age-encryption.org/v1`)
	// The first one is the new store's alone, since the disk had its backup of that minute.
	v.Eventually(ctx, t, 4*time.Minute, `
		cd /srv/s3/backups/node1
		newest=$(ls -- *.db.zst.age.json | tail -n 1)
		newest=${newest%.json}
		cmp "$newest" "`+store+`$newest"`)
	status := v.Eventually(ctx, t, 2*time.Minute, "nodeagent status")
	for _, want := range []string{"s3 https://127.0.0.1:7070/backups/node1", object, "restored in"} {
		if !strings.Contains(status, want) {
			t.Errorf("status does not say %q:\n%s", want, status)
		}
	}
	v.Eventually(ctx, t, 2*time.Minute, `
		newest=$( (nodeagent status -o json || :) | jq -c '.remoteStores[0].newest')
		[ "$(sha256sum </srv/s3/backups/node1/"$(jq -r .name <<<"$newest")" | cut -d' ' -f1)" = "$(jq -r .sha256 <<<"$newest")" ]`)
	v.MustRun(ctx, t, "bash /root/offsite.sh scrape")
	v.Eventually(ctx, t, time.Minute, `bash /root/offsite.sh query 'nodeagent_etcd_snapshot_last_success_timestamp_seconds{store=~"s3 .*"} > 0' | grep >/dev/null node1`)
	if firing := v.MustRun(ctx, t, "bash /root/offsite.sh firing"); strings.Contains(firing, "Snapshot") || strings.Contains(firing, "Upload") {
		t.Errorf("all is well, and what fires is %s", firing)
	}

	v.MustRun(ctx, t, "systemctl stop s3")
	setClock(ctx, t, v, 13*time.Hour)
	// What lies on the disk is as old for a moment, until the next save.
	v.Eventually(ctx, t, 5*time.Minute, `
		newest=$( (nodeagent snapshot list -o json 2>/dev/null || :) | jq -r '[.[].time] | max')
		[ $(( $(date +%s) - $(date -d "$newest" +%s) )) -lt 300 ]
		firing=$(bash /root/offsite.sh firing)
		grep -Fx >/dev/null 'NodeagentSnapshotTooOld s3 https://127.0.0.1:7070/backups/node1' <<<"$firing"
		not grep '^NodeagentSnapshotTooOld file' <<<"$firing"`)
	scheduleStops(ctx, t, v)
	if err := errors.Join(v.Load(ctx, "on-host"), v.Forget(ctx, "on-host")); err != nil {
		t.Fatal(err)
	}
}

// scheduleStops: what holds the lock of backups, such as a save by hand that hangs, stops the schedule,
// and the alert names the host's own store; the daemon is stopped, and so does another.
func scheduleStops(ctx context.Context, t *testing.T, v *vm.VM) {
	t.Helper()
	v.MustRun(ctx, t, `systemd-run --quiet --unit hangs flock /run/nodeagent/backup.lock sleep infinity
		until not flock --nonblock /run/nodeagent/backup.lock true; do sleep 0.1; done`)
	setClock(ctx, t, v, 13*time.Hour)
	v.Eventually(ctx, t, 5*time.Minute, "bash /root/offsite.sh firing | grep -Fx >/dev/null 'NodeagentSnapshotTooOld file "+strings.TrimSuffix(store, "/")+"'")
	v.MustRun(ctx, t, "systemctl stop nodeagent")
	v.Eventually(ctx, t, 2*time.Minute, "bash /root/offsite.sh firing | grep >/dev/null '^NodeagentDown '")
}
