// Package standing writes the mark of a host whose bootstrap is complete, for tests whose machine
// cannot be bootstrapped whole.
package standing

import (
	"crypto/sha256"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/config"
)

// Fingerprint is what apply leaves of a configuration in the mark, behind the machine-id, when it has
// ended: only then is drift mended. version is the program's.
func Fingerprint(version, text string) ([]byte, error) {
	c, err := config.Parse("config.yaml", []byte(text))
	if err != nil {
		return nil, fmt.Errorf("fingerprint: %w", err)
	}
	data, err := yaml.Marshal(bootstrap.Config{
		Role: c.Role, Node: c.Node, Network: c.Network, Preflight: c.Preflight, Kernel: c.Kernel, Packages: c.Packages,
		Containerd: c.Containerd, Images: c.Images, Kubeadm: c.Kubeadm, Addons: c.Addons, Timeouts: c.Timeouts,
	})
	if err != nil {
		return nil, fmt.Errorf("fingerprint: %w", err)
	}
	return fmt.Appendf(nil, "%x\n", sha256.Sum256(append([]byte(version+"\n"), data...))), nil
}
