//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"testing"

	"github.com/nodeagent/nodeagent/test/vm"
)

// seek looks for the secrets of a node wherever the agent may have told them.
//
//go:embed testdata/secrets.sh
var seek []byte

const seekPath = "/usr/lib/nodeagent-test/secrets.sh"

// seeksSecrets runs a part of seek, which exits 1 and names the places where a secret is told.
func seeksSecrets(ctx context.Context, t *testing.T, v *vm.VM, part string) {
	t.Helper()
	if err := v.WriteFile(ctx, seekPath, seek, 0o700); err != nil {
		t.Fatal(err)
	}
	if r, err := v.Run(ctx, seekPath+" "+part); err != nil || r.Code != 0 {
		t.Errorf("secrets: %v %v", r, err)
	}
}

// tellsNoSecret: keys, tokens and passwords that this node really has are in nothing that the
// agent has printed, logged, exported or remembered.
func tellsNoSecret(ctx context.Context, t *testing.T, v *vm.VM) {
	seeksSecrets(ctx, t, v, "told")
	seeksSecrets(ctx, t, v, "running")
}
