package bootstrap

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Cluster is what the kubeadm steps are told: the operator's words with every default that
// only the host can give filled in.
type Cluster struct {
	NodeName          string
	Address           netip.Addr // advertised by the API server, registered by the kubelet
	KubernetesVersion string     // of the installed kubeadm: "v1.36.3"
	// Token is the bootstrap token that kubeadm makes: it would make a random one at each run.
	Token   string
	Network NetworkConfig
	Kubeadm KubeadmConfig
}

// criSocket is containerd's.
const criSocket = "unix:///run/containerd/containerd.sock"

// The configuration that kubeadm 1.36 reads: kubeadm.k8s.io/v1beta4, as far as we set it.
// Kubernetes publishes no importable package of these types.
type (
	initConfiguration struct {
		APIVersion       string           `yaml:"apiVersion"`
		Kind             string           `yaml:"kind"`
		BootstrapTokens  []bootstrapToken `yaml:"bootstrapTokens"`
		LocalAPIEndpoint localAPIEndpoint `yaml:"localAPIEndpoint"`
		NodeRegistration nodeRegistration `yaml:"nodeRegistration"`
		Patches          patches          `yaml:"patches,omitempty"`
	}
	patches struct {
		Directory string `yaml:"directory,omitempty"`
	}
	bootstrapToken struct {
		Token string `yaml:"token"`
		TTL   string `yaml:"ttl"`
	}
	localAPIEndpoint struct {
		AdvertiseAddress string `yaml:"advertiseAddress"`
	}
	nodeRegistration struct {
		Name             string     `yaml:"name"`
		CRISocket        string     `yaml:"criSocket"`
		KubeletExtraArgs []extraArg `yaml:"kubeletExtraArgs"`
	}
	extraArg struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	}
	clusterConfiguration struct {
		APIVersion           string     `yaml:"apiVersion"`
		Kind                 string     `yaml:"kind"`
		KubernetesVersion    string     `yaml:"kubernetesVersion"`
		ControlPlaneEndpoint string     `yaml:"controlPlaneEndpoint,omitempty"`
		Networking           networking `yaml:"networking"`
		APIServer            component  `yaml:"apiServer,omitempty"`
		ControllerManager    component  `yaml:"controllerManager,omitempty"`
		Scheduler            component  `yaml:"scheduler,omitempty"`
	}
	networking struct {
		PodSubnet     string `yaml:"podSubnet"`
		ServiceSubnet string `yaml:"serviceSubnet"`
	}
	component struct {
		CertSANs     []string      `yaml:"certSANs,omitempty"` // the API server's
		ExtraArgs    []extraArg    `yaml:"extraArgs,omitempty"`
		ExtraVolumes []extraVolume `yaml:"extraVolumes,omitempty"`
	}
	extraVolume struct {
		Name      string `yaml:"name"`
		HostPath  string `yaml:"hostPath"`
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly,omitempty"`
		PathType  string `yaml:"pathType"`
	}
	kubeletConfiguration struct {
		APIVersion   string `yaml:"apiVersion"`
		Kind         string `yaml:"kind"`
		CgroupDriver string `yaml:"cgroupDriver"`

		StreamingConnectionIdleTimeout string   `yaml:"streamingConnectionIdleTimeout,omitempty"`
		TLSCipherSuites                []string `yaml:"tlsCipherSuites,omitempty"`
		PodPidsLimit                   int      `yaml:"podPidsLimit,omitempty"`
		SeccompDefault                 bool     `yaml:"seccompDefault,omitempty"`
		ProtectKernelDefaults          bool     `yaml:"protectKernelDefaults,omitempty"`
		ServerTLSBootstrap             bool     `yaml:"serverTLSBootstrap,omitempty"`
	}
	kubeProxyConfiguration struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
)

const (
	kubeadmAPI   = "kubeadm.k8s.io/v1beta4"
	kubeletAPI   = "kubelet.config.k8s.io/v1beta1"
	kubeProxyAPI = "kubeproxy.config.k8s.io/v1alpha1"
	cgroupDriver = "systemd" // containerd is configured so too
)

// tokenTTL is short: nobody is told of this token, and a host that joins gets one of its own.
const tokenTTL = "15m0s"

// RenderKubeadm is the file that kubeadm init is given: four documents, the operator's own
// settings merged over ours.
func RenderKubeadm(c Cluster) ([]byte, error) {
	cluster := clusterConfiguration{
		APIVersion: kubeadmAPI, Kind: "ClusterConfiguration",
		KubernetesVersion: c.KubernetesVersion, ControlPlaneEndpoint: c.Kubeadm.ControlPlaneEndpoint,
		Networking: networking{PodSubnet: c.Network.PodSubnet, ServiceSubnet: c.Network.ServiceSubnet},
		APIServer:  component{CertSANs: c.Kubeadm.CertSANs},
	}
	kubelet := kubeletConfiguration{APIVersion: kubeletAPI, Kind: "KubeletConfiguration", CgroupDriver: cgroupDriver}
	c.Kubeadm.Hardening.cluster(&cluster)
	c.Kubeadm.Hardening.kubelet(&kubelet)
	documents := []struct {
		ours   any
		theirs Passthrough
	}{
		{initConfiguration{
			APIVersion: kubeadmAPI, Kind: "InitConfiguration",
			BootstrapTokens:  []bootstrapToken{{Token: c.Token, TTL: tokenTTL}},
			LocalAPIEndpoint: localAPIEndpoint{AdvertiseAddress: c.Address.String()},
			NodeRegistration: nodeRegistration{
				Name: c.NodeName, CRISocket: criSocket,
				KubeletExtraArgs: []extraArg{{Name: "node-ip", Value: c.Address.String()}},
			},
			Patches: patches{Directory: c.Kubeadm.Patches},
		}, c.Kubeadm.InitConfiguration},
		{cluster, c.Kubeadm.ClusterConfiguration},
		{kubelet, c.Kubeadm.KubeletConfiguration},
		{kubeProxyConfiguration{
			APIVersion: kubeProxyAPI, Kind: "KubeProxyConfiguration",
		}, c.Kubeadm.KubeProxyConfiguration},
	}
	var out bytes.Buffer
	out.WriteString("# Written by nodeagent from its configuration: edit that file, not this one.\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for _, d := range documents {
		var node yaml.Node
		if err := node.Encode(d.ours); err != nil {
			return nil, fmt.Errorf("render kubeadm configuration: %w", err)
		}
		merge(&node, d.theirs.node)
		if err := enc.Encode(&node); err != nil {
			return nil, fmt.Errorf("render kubeadm configuration: %w", err)
		}
	}
	return out.Bytes(), enc.Close()
}

// merge lays one mapping over another: mappings merge, lists of arguments merge by the
// argument's name, everything else is replaced.
func merge(into, over *yaml.Node) {
	if over == nil {
		return
	}
	for i := 0; i+1 < len(over.Content); i += 2 {
		key, value := over.Content[i], over.Content[i+1]
		at := indexOf(into, key.Value)
		switch {
		case at < 0:
			into.Content = append(into.Content, key, value)
		case into.Content[at].Kind == yaml.MappingNode && value.Kind == yaml.MappingNode:
			merge(into.Content[at], value)
		case isArguments(into.Content[at]) && isArguments(value):
			into.Content[at] = mergeArguments(into.Content[at], value)
		default:
			into.Content[at] = value
		}
	}
}

// isArguments says whether a list is one of extraArgs: mappings that have a name.
func isArguments(list *yaml.Node) bool {
	if list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return false
	}
	return !slices.ContainsFunc(list.Content, func(item *yaml.Node) bool { return argument(item) == "" })
}

// argument is the name of one of extraArgs, or "".
func argument(item *yaml.Node) string {
	if item.Kind != yaml.MappingNode {
		return ""
	}
	if at := indexOf(item, "name"); at >= 0 {
		return item.Content[at].Value
	}
	return ""
}

// mergeArguments is ours but for those that theirs has too, and then theirs.
func mergeArguments(ours, theirs *yaml.Node) *yaml.Node {
	merged := *theirs
	merged.Content = nil
	for _, item := range ours.Content {
		same := func(their *yaml.Node) bool { return argument(their) == argument(item) }
		if !slices.ContainsFunc(theirs.Content, same) {
			merged.Content = append(merged.Content, item)
		}
	}
	merged.Content = append(merged.Content, theirs.Content...)
	return &merged
}

// indexOf is where in a mapping's content the value of key is, or -1.
func indexOf(mapping *yaml.Node, key string) int {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return i + 1
		}
	}
	return -1
}

// at is what lies at a path of keys in what is passed through, nil where there is nothing.
func (p Passthrough) at(path ...string) *yaml.Node {
	node := p.node
	for _, key := range path {
		if node == nil || node.Kind != yaml.MappingNode {
			return nil
		}
		at := indexOf(node, key)
		if at < 0 {
			return nil
		}
		node = node.Content[at]
	}
	return node
}

// lookup is the scalar at a path of keys in what is passed through, "" where there is none.
func (p Passthrough) lookup(path ...string) string {
	node := p.at(path...)
	if node == nil || node.Kind != yaml.ScalarNode {
		return ""
	}
	return node.Value
}

// lists says whether the list at key in what is passed through holds one of words.
func (p Passthrough) lists(key string, words ...string) bool {
	return slices.ContainsFunc(p.list(key), func(item string) bool { return slices.Contains(words, item) })
}

// list is the list at key in what is passed through.
func (p Passthrough) list(key string) (items []string) {
	if p.node == nil {
		return nil
	}
	at := indexOf(p.node, key)
	if at < 0 {
		return nil
	}
	for _, item := range p.node.Content[at].Content {
		items = append(items, item.Value)
	}
	return items
}
