package bootstrap

import (
	"errors"
	"fmt"
	"time"
)

// TimeoutsConfig is the section "timeouts": how long a step that runs nothing waits, before the
// bootstrap counts as failed and is tried again. kubeadm has its own, which are passed through:
// kubeadm.initConfiguration.timeouts.
type TimeoutsConfig struct {
	// ControlPlane to start, and to answer after a boot.
	ControlPlane time.Duration `yaml:"controlPlane"`
	// NodeReady from the end of the bootstrap's other steps.
	NodeReady time.Duration `yaml:"nodeReady"`
	// AddonsReady from the end of all other steps: the add-ons' images are pulled, their pods run.
	AddonsReady time.Duration `yaml:"addonsReady"`
}

// DefaultTimeouts are for machines that pull their images over a slow line.
func DefaultTimeouts() TimeoutsConfig {
	return TimeoutsConfig{ControlPlane: 10 * time.Minute, NodeReady: 10 * time.Minute, AddonsReady: 10 * time.Minute}
}

// Validate says what is wrong with the section.
func (c TimeoutsConfig) Validate() error {
	var errs []error
	for _, t := range []struct {
		key  string
		wait time.Duration
	}{{"controlPlane", c.ControlPlane}, {"nodeReady", c.NodeReady}, {"addonsReady", c.AddonsReady}} {
		if t.wait < time.Second {
			errs = append(errs, fmt.Errorf("%s: %s is shorter than a second", t.key, t.wait))
		}
	}
	return errors.Join(errs...)
}
