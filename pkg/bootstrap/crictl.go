package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	crictlConfig   = "/etc/crictl.yaml"
	crictlEndpoint = "unix://" + containerdSocket
	newCrictl      = "# Written by nodeagent, which found none. It is yours to add to.\nruntime-endpoint: " + crictlEndpoint + "\nimage-endpoint: " + crictlEndpoint + "\n"

	// CrictlStep is the name of the step that tells crictl where containerd is.
	CrictlStep = "containerd/crictl"
)

// Crictl makes the step "containerd/crictl": /etc/crictl.yaml, without which crictl guesses
// and warns, leads to containerd. A file that is there is the operator's: one that leads
// elsewhere is a finding.
func Crictl(h *host.Host) step.Step {
	check := func(context.Context) ([]step.Change, error) {
		data, err := h.ReadFile(crictlConfig)
		if errors.Is(err, fs.ErrNotExist) {
			return []step.Change{{Subject: crictlConfig, Have: "absent", Want: "runtime-endpoint " + crictlEndpoint}}, nil
		}
		if err != nil {
			return nil, err
		}
		var file struct {
			Endpoint string `yaml:"runtime-endpoint"`
		}
		change := step.Change{Subject: crictlConfig + " runtime-endpoint", Want: crictlEndpoint, Manual: true}
		if err := yaml.Unmarshal(data, &file); err != nil {
			change.Have = "not to be read: the file is no YAML"
			return []step.Change{change}, nil
		}
		switch file.Endpoint {
		case crictlEndpoint, containerdSocket, "unix:///var" + containerdSocket: // /var/run is a link to /run
			return nil, nil
		}
		change.Have = fmt.Sprintf("%q", file.Endpoint)
		return []step.Change{change}, nil
	}
	apply := func(context.Context) error {
		there, err := h.Exists(crictlConfig)
		if err != nil || there {
			return err
		}
		return h.WriteFile(crictlConfig, []byte(newCrictl), 0o644)
	}
	return step.Step{Name: CrictlStep, Check: check, Apply: apply}
}
