//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/vm"
)

// clockIsOff: a year ahead, and from the same saved state a year behind, the agent names clock and
// certificates, and removes, renews and rewrites nothing, though its jobs come due meanwhile. Once
// the clock is right, so is the node, and the next snapshot is taken when it is due.
func clockIsOff(ctx context.Context, t *testing.T, v *vm.VM) {
	v.Eventually(ctx, t, 3*time.Minute, "nodeagent status >/dev/null")
	if err := v.Save(ctx, "well"); err != nil {
		t.Fatal(err)
	}
	const year = 365 * 24 * time.Hour
	for _, off := range []struct {
		by   time.Duration
		says string
	}{
		{year + 24*time.Hour, "and nothing keeps it right: /"}, // kubeadm's certificates are for a year
		{-year, "is the clock behind?"},
	} {
		if err := v.Load(ctx, "well"); err != nil {
			t.Fatal(err)
		}
		was := v.MustRun(ctx, t, made)
		snapshots := v.MustRun(ctx, t, "ls "+store)
		setClock(ctx, t, v, off.by)
		// By then the job has come due by the wrong clock, and has ended.
		v.Eventually(ctx, t, 3*time.Minute, `
			last=$(nodeagent status -o json 2>/dev/null | jq -r '.jobs[] | select(.name == "snapshot") | .lastRun' || :)
			age=$(( $(date +%s) - $(date -d "$last" +%s) ))
			[ $age -ge 0 ] && [ $age -lt 3600 ]`)
		r, err := v.Run(ctx, "nodeagent status")
		if err != nil || r.Code != 2 {
			t.Fatalf("status: %v %v", r, err)
		}
		for _, want := range []string{"the clock says " + v.MustRun(ctx, t, "date -u +%Y-%m"), off.says, "type: timedatectl\n", "/etc/kubernetes/pki/apiserver.crt "} {
			if flat := strings.Join(strings.Fields(r.Stdout), " "); !strings.Contains(flat, strings.TrimSpace(want)) {
				t.Errorf("off by %s, status does not say %q:\n%s", off.by, want, r.Stdout)
			}
		}
		left := v.MustRun(ctx, t, "ls "+store)
		for name := range strings.FieldsSeq(snapshots) {
			if !strings.Contains(left, name) {
				t.Errorf("off by %s, %s was removed", off.by, name)
			}
		}
		setClock(ctx, t, v, -off.by)
		v.Eventually(ctx, t, 5*time.Minute, "nodeagent status >/dev/null")
		newestAfter(ctx, t, v, revisionNow(ctx, t, v))
		if after := v.MustRun(ctx, t, made); after != was {
			t.Errorf("off by %s, what was made is not as it was:\n%s\nbefore:\n%s", off.by, after, was)
		}
	}
	if err := v.Forget(ctx, "well"); err != nil {
		t.Error(err)
	}
}

// setClock sets the guest's clock by so much, as an operator's date or a broken host does.
func setClock(ctx context.Context, t *testing.T, v *vm.VM, by time.Duration) {
	t.Helper()
	v.MustRun(ctx, t, fmt.Sprintf("date -s @$(( $(date +%%s) + %d ))", int(by.Seconds())))
}

// revisionNow is etcd's.
func revisionNow(ctx context.Context, t *testing.T, v *vm.VM) int64 {
	t.Helper()
	out := v.MustRun(ctx, t, "kubectl get --raw /api/v1/namespaces?limit=1 | jq -r .metadata.resourceVersion")
	revision, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}
