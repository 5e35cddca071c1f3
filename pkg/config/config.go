// Package config is what the operator asked for: one YAML file, read strictly, filled up with
// defaults and validated. Every complaint names the file, the line and the key.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/certs"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kernel"
)

// DefaultPath is where the configuration lies unless --config says otherwise.
const DefaultPath = "/etc/nodeagent/config.yaml"

// Config is the file. Each section is the Config of the package that owns it.
type Config struct {
	// Role is what the host is to its cluster: control-plane, worker or etcd.
	Role bootstrap.Role `yaml:"role"`
	// Node is who this host is.
	Node bootstrap.NodeConfig `yaml:"node"`
	// Network is that of the cluster's pods and services.
	Network bootstrap.NetworkConfig `yaml:"network"`
	// Preflight is what is looked at before anything is changed.
	Preflight bootstrap.PreflightConfig `yaml:"preflight"`
	// Kernel is swap, modules and sysctls.
	Kernel kernel.Config `yaml:"kernel"`
	// Packages is which Kubernetes the host has.
	Packages bootstrap.PackagesConfig `yaml:"packages"`
	// Containerd is where images come from: mirrors, and a proxy.
	Containerd bootstrap.ContainerdConfig `yaml:"containerd"`
	// Images are those that are brought along, for a cluster that reaches no registry.
	Images bootstrap.ImagesConfig `yaml:"images"`
	// Kubeadm is what `kubeadm init` is given.
	Kubeadm bootstrap.KubeadmConfig `yaml:"kubeadm"`
	// Addons are files of manifests, or directories of them (their .yaml, .yml and .json files
	// by name), that are applied in this order once the API answers. They are refused when
	// others than root can change them.
	Addons []string `yaml:"addons"`
	// Timeouts are how long the bootstrap waits for what happens by itself.
	Timeouts bootstrap.TimeoutsConfig `yaml:"timeouts"`
	// Backup is when etcd snapshots are taken and where they are kept.
	Backup etcdbackup.Config `yaml:"backup"`
	// Certs is what is done about certificates beyond watching them.
	Certs certs.Config `yaml:"certs"`
	// Drift is how the host is held against its configuration once it is made.
	Drift DriftConfig `yaml:"drift"`
	// Metrics is how the agent is scraped.
	Metrics MetricsConfig `yaml:"metrics"`
	// Log is what the agent logs.
	Log LogConfig `yaml:"log"`
}

// DriftConfig is the section "drift".
type DriftConfig struct {
	// Interval between two looks at the host.
	Interval time.Duration `yaml:"interval"`
	// Mode is "mend", which applies what disturbs nothing (modules, sysctls, swap, the agent's
	// own files) and reports the rest, or "report", which changes nothing.
	Mode string `yaml:"mode"`
}

// Validate says what is wrong with the section.
func (c DriftConfig) Validate() error {
	var errs []error
	if c.Interval < time.Second {
		errs = append(errs, fmt.Errorf("interval: %s is shorter than a second", c.Interval))
	}
	if c.Mode != "mend" && c.Mode != "report" {
		errs = append(errs, fmt.Errorf("mode: %q is neither mend nor report", c.Mode))
	}
	return errors.Join(errs...)
}

// MetricsConfig is the section "metrics": how the agent is scraped.
type MetricsConfig struct {
	// Listen is the address of /metrics, /healthz, /readyz and the page; nothing listens when
	// it is empty.
	Listen string `yaml:"listen"`
	// WebConfigFile is an exporter-toolkit file with TLS, client certificates, basic auth: an
	// absolute path, or "credential:NAME" for a systemd credential. Its hashes of passwords are
	// secrets, so that the file is refused when others can read it.
	WebConfigFile string `yaml:"webConfigFile"`
	// Textfile is a file for node_exporter's textfile collector, which gets the agent's own metrics
	// whenever they have changed, looked at every 15 seconds: an absolute path that ends in .prom,
	// in a directory that is there. Nothing is written when it is empty.
	Textfile string `yaml:"textfile"`
}

// Validate says what is wrong with the section.
func (c MetricsConfig) Validate() error {
	var errs []error
	if _, port, err := net.SplitHostPort(c.Listen); c.Listen != "" && (err != nil || port == "") {
		errs = append(errs, fmt.Errorf("listen: %q is not an address and port like 127.0.0.1:10980", c.Listen))
	}
	if c.WebConfigFile != "" {
		if err := host.ValidateSecret(c.WebConfigFile); err != nil {
			errs = append(errs, fmt.Errorf("webConfigFile: %w", err))
		}
	}
	if c.Textfile != "" && (!filepath.IsAbs(c.Textfile) || filepath.Ext(c.Textfile) != ".prom") {
		errs = append(errs, fmt.Errorf("textfile: %q is no absolute path that ends in .prom: node_exporter reads no others", c.Textfile))
	}
	return errors.Join(errs...)
}

// Warning is what is allowed and yet is to be told, beginning with the field; "" when there is
// nothing.
func (c MetricsConfig) Warning() string {
	name, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(name); err != nil || name == "localhost" || ip.IsLoopback() || c.WebConfigFile != "" {
		return ""
	}
	return fmt.Sprintf("listen: %s can be reached from other hosts, and everybody there may read it: give metrics.webConfigFile, with TLS and a password", c.Listen)
}

// LogConfig is the section "log".
type LogConfig struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is auto (the journal's own fields under systemd, text elsewhere), text or json.
	Format string `yaml:"format"`
}

// Validate says what is wrong with the section.
func (c LogConfig) Validate() error {
	var errs []error
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		errs = append(errs, fmt.Errorf("level: %q is none of debug, info, warn, error", c.Level))
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.Format) {
		errs = append(errs, fmt.Errorf("format: %q is none of auto, text, json", c.Format))
	}
	return errors.Join(errs...)
}

// Default is the configuration of an empty file, but for role, which has no default.
func Default() Config {
	return Config{
		Network:  bootstrap.NetworkConfig{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"},
		Kernel:   kernel.DefaultConfig(),
		Packages: bootstrap.PackagesConfig{Manage: true, KubernetesVersion: "1.36"},
		Kubeadm:  bootstrap.KubeadmConfig{Hardening: bootstrap.DefaultHardening()},
		Timeouts: bootstrap.DefaultTimeouts(),
		Backup:   etcdbackup.DefaultConfig(),
		Certs:    certs.DefaultConfig(),
		Drift:    DriftConfig{Interval: 10 * time.Minute, Mode: "mend"},
		Metrics:  MetricsConfig{Listen: "127.0.0.1:10980"},
		Log:      LogConfig{Level: "info", Format: "auto"},
	}
}

// Validate says everything that is wrong, each complaint beginning with the key's path.
func (c Config) Validate() error {
	return errors.Join(
		c.Role.Validate(),
		prefix("node", c.Node.Validate()),
		c.validateKubeconfigs(),
		prefix("network", c.Network.Validate()),
		prefix("preflight", c.Preflight.Validate()),
		prefix("kernel", c.Kernel.Validate()),
		prefix("packages", c.Packages.Validate()),
		prefix("containerd", c.Containerd.Validate()),
		prefix("images", c.Images.Validate()),
		prefix("kubeadm", c.Kubeadm.Validate()),
		c.protects(),
		bootstrap.ValidateAddons(c.Addons),
		prefix("timeouts", c.Timeouts.Validate()),
		prefix("backup", c.Backup.Validate()),
		prefix("certs", c.Certs.Validate()),
		prefix("drift", c.Drift.Validate()),
		prefix("metrics", c.Metrics.Validate()),
		prefix("log", c.Log.Validate()),
	)
}

func (c Config) validateKubeconfigs() error {
	if len(c.Node.AdminKubeconfigFor) > 0 && (c.Role == bootstrap.Worker || c.Role == bootstrap.Etcd) {
		return fmt.Errorf("node.adminKubeconfigFor: only a control plane has the administrator's kubeconfig, and role is %s", c.Role)
	}
	return nil
}

// protects says which sysctls of the operator's a kubelet that protects the kernel's defaults
// would not start with.
func (c Config) protects() error {
	if !c.Kubeadm.Hardening.ProtectKernelDefaults {
		return nil
	}
	var errs []error
	for i, s := range c.Kernel.Sysctls {
		if want, is := kernel.KubeletSysctl(s.Name); is && s.Value != want {
			errs = append(errs, fmt.Errorf("kernel.sysctls[%d].value: with kubeadm.hardening.protectKernelDefaults the kubelet starts only where %s is %s", i, s.Name, want))
		}
	}
	return errors.Join(errs...)
}

// prefix puts the section's name before each complaint about it.
func prefix(section string, err error) error {
	var errs []error
	for _, e := range flatten(err) {
		errs = append(errs, fmt.Errorf("%s.%w", section, e))
	}
	return errors.Join(errs...)
}

// flatten takes apart what errors.Join has joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}
