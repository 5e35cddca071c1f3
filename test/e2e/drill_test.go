//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"testing"

	"github.com/nodeagent/nodeagent/test/vm"
)

//go:embed testdata/drill.sh
var drillScript []byte

// drillIsBounded: what a drill writes to the disk is what backup.drill.diskRate allows, and with a rate
// that bounds nothing is notably more. The machine is put back to where it was.
func drillIsBounded(ctx context.Context, t *testing.T, v *vm.VM) {
	if err := v.Save(ctx, "undrilled"); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteFile(ctx, "/root/drill.sh", drillScript, 0o600); err != nil {
		t.Fatal(err)
	}
	v.MustRun(ctx, t, "bash /root/drill.sh noise")
	most := func(rate string) int {
		bytes, err := strconv.Atoi(v.MustRun(ctx, t, "timeout 240 bash /root/drill.sh most "+rate))
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	// What ext4 writes at a time, 8 MiB, waits until there is room for all of it and then counts at once.
	const allowed = 10*1_000_000 + 8<<20
	free, bounded := most("1000"), most("1")
	t.Logf("a drill writes up to %d bytes in ten seconds, and where %d are allowed %d", free, allowed, bounded)
	if bounded == 0 || bounded > allowed {
		t.Errorf("a drill that may write %d bytes in ten seconds has written %d", allowed, bounded)
	}
	if free < allowed*5/4 {
		t.Errorf("a drill that nothing bounds writes %d bytes in ten seconds: too few to tell", free)
	}
	if err := errors.Join(v.Load(ctx, "undrilled"), v.Forget(ctx, "undrilled")); err != nil {
		t.Fatal(err)
	}
}
