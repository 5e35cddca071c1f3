package config

import (
	_ "embed"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
)

// reference is every key with its default and its help. `make generate` writes it from the types
// of this package, as it does config.md and the manual page.
//
//go:embed reference.yaml
var reference string

// First is a first configuration of a host with that role: every key with its help, commented
// out. A control plane gets the network that needs no add-on: without any it would not be Ready.
func First(role bootstrap.Role) []byte {
	text := strings.Replace(reference, "\nrole: control-plane\n", "\nrole: "+string(role)+"\n", 1)
	if role == bootstrap.ControlPlane {
		text = strings.Replace(text, "\n  #cni: \"\"\n", "\n  cni: bridge\n", 1)
	}
	return []byte(text)
}
