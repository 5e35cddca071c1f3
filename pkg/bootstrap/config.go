package bootstrap

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Role is what a host is to its cluster.
type Role string

// The roles of a host.
const (
	ControlPlane Role = "control-plane"
	Worker       Role = "worker"
	Etcd         Role = "etcd"
)

// Validate says whether the role is one of the three.
func (r Role) Validate() error {
	switch r {
	case ControlPlane, Worker, Etcd:
		return nil
	case "":
		return errors.New("role: is missing: control-plane, worker or etcd")
	}
	return fmt.Errorf("role: %q is none of control-plane, worker, etcd", r)
}

// NodeConfig is the section "node": who this host is.
type NodeConfig struct {
	// Name of the Node object; the host name in lower case when empty.
	Name string `yaml:"name"`
	// Address the control plane advertises and the kubelet registers; the source address of
	// the default route when empty.
	Address string `yaml:"address"`
	// AdminKubeconfigFor names users of this host's /etc/passwd who get a copy of
	// /etc/kubernetes/admin.conf as ~/.kube/config, mode 0600, which follows when that is renewed.
	// Whoever can become one of them administers the cluster. A file that is not such a copy is left
	// alone and reported; a user who is taken off the list loses the copy. Control planes only.
	AdminKubeconfigFor []string `yaml:"adminKubeconfigFor"`
}

// Validate says what is wrong with the section.
func (c NodeConfig) Validate() error {
	var errs []error
	if c.Name != "" && !dnsSubdomain.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name: %q is not a DNS name in lower case", c.Name))
	}
	if c.Address != "" {
		if addr, err := netip.ParseAddr(c.Address); err != nil || addr.IsLoopback() || addr.IsUnspecified() {
			errs = append(errs, fmt.Errorf("address: %q is not an address that other hosts can reach", c.Address))
		}
	}
	for i, name := range c.AdminKubeconfigFor {
		if !userName.MatchString(name) || name == "." || name == ".." {
			errs = append(errs, fmt.Errorf("adminKubeconfigFor[%d]: %q is not the name of a user", i, name))
		}
		if slices.Contains(c.AdminKubeconfigFor[:i], name) {
			errs = append(errs, fmt.Errorf("adminKubeconfigFor[%d]: %q is there twice", i, name))
		}
	}
	return errors.Join(errs...)
}

// userName is what useradd(8) of Debian accepts, and no more than /etc/passwd can hold.
var userName = regexp.MustCompile(`^[A-Za-z0-9_.][-A-Za-z0-9_.@]*\$?$`)

// dnsSubdomain is RFC 1123 as Kubernetes reads it for the names of Nodes.
var dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// NetworkConfig is the section "network".
type NetworkConfig struct {
	// PodSubnet is a CIDR, or two of them with a comma for dual stack.
	PodSubnet string `yaml:"podSubnet"`
	// ServiceSubnet is a CIDR, or two of them with a comma for dual stack.
	ServiceSubnet string `yaml:"serviceSubnet"`
	// CNI is "bridge" for a single node that needs no add-on, or empty (or "none") where an
	// add-on brings the network: the bridge's file is then removed once the add-on's is there.
	CNI string `yaml:"cni"`
}

// Validate says what is wrong with the section.
func (c NetworkConfig) Validate() error {
	errs := []error{validateCIDRs("podSubnet", c.PodSubnet), validateCIDRs("serviceSubnet", c.ServiceSubnet)}
	if c.CNI != "" && c.CNI != "none" && c.CNI != "bridge" {
		errs = append(errs, fmt.Errorf("cni: %q is not known: bridge, or none and the add-on's manifests under addons", c.CNI))
	}
	return errors.Join(errs...)
}

func validateCIDRs(field, cidrs string) error {
	list := strings.Split(cidrs, ",")
	if len(list) > 2 {
		return fmt.Errorf("%s: %q has more than two subnets", field, cidrs)
	}
	for _, cidr := range list {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			return fmt.Errorf("%s: %q is not a subnet like 10.244.0.0/16", field, cidr)
		}
	}
	return nil
}

// PreflightConfig is the section "preflight".
type PreflightConfig struct {
	// Ignore names checks (kubeadm's names where the check is the same) whose findings are
	// reported and do not stop.
	Ignore []string `yaml:"ignore"`
}

// Validate says what is wrong with the section: a name that is no check's would ignore nothing.
func (c PreflightConfig) Validate() error {
	var errs []error
	for i, name := range c.Ignore {
		if !knownCheck(name) {
			errs = append(errs, fmt.Errorf("ignore[%d]: %q is no check: %s, Port-N", i, name, strings.Join(checkNames, ", ")))
		}
	}
	return errors.Join(errs...)
}

// KubeadmConfig is the section "kubeadm". What kubeadm knows and we do not is passed through.
type KubeadmConfig struct {
	// ControlPlaneEndpoint is the "host:port" that the cluster is reached by; this host's
	// own address when empty.
	ControlPlaneEndpoint string `yaml:"controlPlaneEndpoint"`
	// CertSANs are added to the API server's certificate.
	CertSANs []string `yaml:"certSANs"`
	// Patches is a directory of root's with patches that kubeadm applies to what it makes, named
	// TARGET[SUFFIX][+TYPE].yaml or .json as kubeadm's documentation has it:
	// kube-apiserver+merge.yaml, kubeletconfiguration0+json.yaml.
	Patches string `yaml:"patches"`
	// Hardening is what the CIS benchmark asks for beyond kubeadm's defaults.
	Hardening HardeningConfig `yaml:"hardening"`
	// Join makes the host join a cluster. Not in this version.
	Join Passthrough `yaml:"join"`
	// ClusterConfiguration is merged over what the agent renders; kubeadm itself validates it.
	// Keys that the agent makes of its own (subnets, addresses, names, versions) are refused.
	ClusterConfiguration Passthrough `yaml:"clusterConfiguration"`
	// InitConfiguration is merged in the same way.
	InitConfiguration Passthrough `yaml:"initConfiguration"`
	// KubeletConfiguration is merged in the same way.
	KubeletConfiguration Passthrough `yaml:"kubeletConfiguration"`
	// KubeProxyConfiguration is merged in the same way.
	KubeProxyConfiguration Passthrough `yaml:"kubeProxyConfiguration"`
}

// Validate says what is wrong with the section.
func (c KubeadmConfig) Validate() error {
	var errs []error
	if !c.Join.IsZero() {
		errs = append(errs, errors.New("join: not in this version"))
	}
	if c.ControlPlaneEndpoint != "" && strings.ContainsAny(c.ControlPlaneEndpoint, "/ ") {
		errs = append(errs, fmt.Errorf("controlPlaneEndpoint: %q is not host or host:port", c.ControlPlaneEndpoint))
	}
	for i, san := range c.CertSANs {
		if san == "" || strings.ContainsAny(san, "/ :") && !isAddress(san) {
			errs = append(errs, fmt.Errorf("certSANs[%d]: %q is neither an address nor a DNS name", i, san))
		}
	}
	if c.Patches != "" && !filepath.IsAbs(c.Patches) {
		errs = append(errs, fmt.Errorf("patches: %q is not an absolute path", c.Patches))
	}
	if err := c.Hardening.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("hardening.%w", err))
	}
	errs = append(errs, c.validateOwn(), c.validateTokens())
	return errors.Join(errs...)
}

// validateTokens: kubeadm makes another random token for one without, each time it is run.
func (c KubeadmConfig) validateTokens() error {
	tokens := c.InitConfiguration.at("bootstrapTokens")
	if tokens == nil || tokens.Kind != yaml.SequenceNode {
		return nil // a mistake is for kubeadm to tell
	}
	var errs []error
	for i, t := range tokens.Content {
		if indexOf(t, "token") < 0 {
			errs = append(errs, fmt.Errorf("initConfiguration.bootstrapTokens[%d].token: is missing: `kubeadm token generate` makes one", i))
		}
	}
	return errors.Join(errs...)
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// ValidateAddons says what is wrong with the list "addons": files or directories of manifests.
func ValidateAddons(addons []string) error {
	var errs []error
	for i, path := range addons {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("addons[%d]: %q is not an absolute path", i, path))
		}
	}
	return errors.Join(errs...)
}

// NodeName is the name of the Node object: the operator's, or the host's in lower case, as
// kubeadm takes it.
func (c Config) NodeName(hostname string) string {
	if c.Node.Name != "" {
		return c.Node.Name
	}
	return strings.ToLower(strings.TrimSpace(hostname))
}
