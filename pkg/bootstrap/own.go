package bootstrap

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// OwnKey is a key of kubeadm's configuration that the agent sets itself. Given in what is
// passed through it would contradict the agent's own keys, and the rest of the agent goes by those.
type OwnKey struct {
	Document string // the key of the section "kubeadm" that it would be given in
	Path     string // in the document, with dots
	Instead  string // the agent's key that it is made of
	Always   string // or the only value that it has, which may be given too
}

// OwnKeys are all of them. The kubelet's argument node-ip is none: two addresses need it. Nor are
// the bootstrap tokens: an operator may have given them to the hosts that are to join. Nor is
// what HardeningConfig sets: nothing else goes by it.
func OwnKeys() []OwnKey {
	const initialize, cluster, kubelet, proxy = "initConfiguration", "clusterConfiguration", "kubeletConfiguration", "kubeProxyConfiguration"
	return []OwnKey{
		{initialize, "apiVersion", "", kubeadmAPI},
		{initialize, "kind", "", "InitConfiguration"},
		{initialize, "localAPIEndpoint.advertiseAddress", "node.address", ""},
		{initialize, "nodeRegistration.name", "node.name", ""},
		{initialize, "nodeRegistration.criSocket", "", criSocket},
		{initialize, "patches.directory", "kubeadm.patches", ""},
		{cluster, "apiVersion", "", kubeadmAPI},
		{cluster, "kind", "", "ClusterConfiguration"},
		{cluster, "kubernetesVersion", "packages.kubernetesVersion", ""},
		{cluster, "controlPlaneEndpoint", "kubeadm.controlPlaneEndpoint", ""},
		{cluster, "networking.podSubnet", "network.podSubnet", ""},
		{cluster, "networking.serviceSubnet", "network.serviceSubnet", ""},
		{cluster, "apiServer.certSANs", "kubeadm.certSANs", ""},
		{kubelet, "apiVersion", "", kubeletAPI},
		{kubelet, "kind", "", "KubeletConfiguration"},
		{kubelet, "cgroupDriver", "", cgroupDriver},
		{proxy, "apiVersion", "", kubeProxyAPI},
		{proxy, "kind", "", "KubeProxyConfiguration"},
	}
}

// validateOwn says which keys of what is passed through are the agent's to set.
func (c KubeadmConfig) validateOwn() error {
	documents := map[string]Passthrough{
		"initConfiguration": c.InitConfiguration, "clusterConfiguration": c.ClusterConfiguration,
		"kubeletConfiguration": c.KubeletConfiguration, "kubeProxyConfiguration": c.KubeProxyConfiguration,
	}
	var errs []error
	for _, key := range OwnKeys() {
		node := documents[key.Document].at(strings.Split(key.Path, ".")...)
		path := key.Document + "." + key.Path
		switch {
		case node == nil:
		case key.Instead != "":
			errs = append(errs, fmt.Errorf("%s: is set by the agent: give %s instead", path, key.Instead))
		case node.Kind != yaml.ScalarNode || node.Value != key.Always:
			errs = append(errs, fmt.Errorf("%s: is always %s here: leave it out", path, key.Always))
		}
	}
	return errors.Join(errs...)
}
