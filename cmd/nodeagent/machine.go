package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// machine is a host and what is wanted of it: the one place where the domains are put together.
type machine struct {
	host     *host.Host
	cfg      config.Config
	hostname string
	steps    []step.Step
	partial  bool // some steps are left out, by --only or --skip
	// unit asks systemd for the state of a unit.
	unit func(ctx context.Context, name string) (systemd.State, error)
	// transient runs a program in a unit of its own.
	transient func(ctx context.Context, t systemd.Transient) (systemd.Result, error)
	// synced says whether something keeps the clock right.
	synced func() (bool, error)
	// patience is how long a lock is waited for; waiting is told who holds it.
	patience time.Duration
	waiting  func(holder string)
	// remember changes the state. It feeds status only: that it cannot be written is told, no more.
	remember func(change func(*agent.State))

	remotes []*remote
}

func newMachine(h *host.Host, cfg config.Config) (*machine, error) {
	hostname, err := hostnameOf(h)
	if err != nil {
		return nil, err
	}
	units := &systemd.Conn{}
	m := &machine{
		host: h, cfg: cfg, hostname: hostname, unit: units.State, transient: units.RunTransient, synced: bootstrap.ClockSynced,
		patience: lockPatience, waiting: func(string) {},
	}
	m.steps, err = bootstrap.Steps(stepsConfig(cfg), bootstrap.Deps{
		Host: h, Systemd: units, Hostname: hostname, EUID: os.Geteuid(), Env: os.Environ(),
		Building: func() (bool, error) { return agent.Building(h, bootstrap.MemberFiles) },
		Whole:    func() bool { return !m.partial },
	})
	if err != nil {
		return nil, err
	}
	m.remember = func(change func(*agent.State)) {
		_ = agent.UpdateState(context.Background(), h, change) // whoever wants it told sets another
	}
	m.remotes = m.newRemotes()
	return m, nil
}

func stepsConfig(c config.Config) bootstrap.Config {
	return bootstrap.Config{
		Role: c.Role, Node: c.Node, Network: c.Network, Preflight: c.Preflight, Kernel: c.Kernel,
		Packages: c.Packages, Containerd: c.Containerd, Images: c.Images, Kubeadm: c.Kubeadm, Addons: c.Addons, Timeouts: c.Timeouts,
	}
}

// wanted is a fingerprint of what the steps are to make of the host: this agent's version and
// the configuration, defaults included, as far as the steps are concerned.
func (m *machine) wanted() (string, error) {
	data, err := yaml.Marshal(stepsConfig(m.cfg))
	if err != nil {
		return "", fmt.Errorf("fingerprint configuration: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(append([]byte(thisBuild().Version+"\n"), data...))), nil
}

func (m *machine) nodeName() string { return stepsConfig(m.cfg).NodeName(m.hostname) }

// hostnameOf is the running kernel's, or that of the image's /etc/hostname.
func hostnameOf(h *host.Host) (string, error) {
	if !h.Offline {
		name, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("read host name: %w", err)
		}
		return name, nil
	}
	data, err := h.ReadFile("/etc/hostname")
	if errors.Is(err, fs.ErrNotExist) {
		return "localhost", nil
	}
	return strings.TrimSpace(string(data)), err
}

// lockPatience is how long a lock is waited for unless --lock-timeout says otherwise: a look
// for drift and a save are over by then, an apply may not be.
const lockPatience = 2 * time.Minute

// lock takes a lock of the host, waiting a while for whoever holds it, whom it names.
func (m *machine) lock(ctx context.Context, name, purpose string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, m.patience)
	defer cancel()
	return m.host.Lock(ctx, name, purpose, m.waiting)
}
