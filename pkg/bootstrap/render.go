package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
		APIServer            apiServer  `yaml:"apiServer,omitempty"`
	}
	networking struct {
		PodSubnet     string `yaml:"podSubnet"`
		ServiceSubnet string `yaml:"serviceSubnet"`
	}
	apiServer struct {
		CertSANs []string `yaml:"certSANs,omitempty"`
	}
	kubeletConfiguration struct {
		APIVersion   string `yaml:"apiVersion"`
		Kind         string `yaml:"kind"`
		CgroupDriver string `yaml:"cgroupDriver"`
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
		}, c.Kubeadm.InitConfiguration},
		{clusterConfiguration{
			APIVersion: kubeadmAPI, Kind: "ClusterConfiguration",
			KubernetesVersion: c.KubernetesVersion, ControlPlaneEndpoint: c.Kubeadm.ControlPlaneEndpoint,
			Networking: networking{PodSubnet: c.Network.PodSubnet, ServiceSubnet: c.Network.ServiceSubnet},
			APIServer:  apiServer{CertSANs: c.Kubeadm.CertSANs},
		}, c.Kubeadm.ClusterConfiguration},
		{kubeletConfiguration{
			APIVersion: kubeletAPI, Kind: "KubeletConfiguration", CgroupDriver: cgroupDriver,
		}, c.Kubeadm.KubeletConfiguration},
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
	if p.node == nil {
		return false
	}
	at := indexOf(p.node, key)
	if at < 0 {
		return false
	}
	for _, item := range p.node.Content[at].Content {
		if slices.Contains(words, item.Value) {
			return true
		}
	}
	return false
}

// pauseTags are the tags of the sandbox image that each minor's kubeadm names: a containerd
// that runs another one pulls an image that nobody has checked, and fails where there is none.
var pauseTags = map[string]string{"1.36": "3.10.2"}

// PauseImage is the sandbox image that goes with a minor ("1.36") of Kubernetes.
func PauseImage(minor string, kubeadm KubeadmConfig) (string, error) {
	tag, ok := pauseTags[minor]
	if !ok {
		return "", fmt.Errorf("find sandbox image: no known one for Kubernetes %s", minor)
	}
	repository := kubeadm.ClusterConfiguration.lookup("imageRepository")
	if repository == "" {
		repository = "registry.k8s.io"
	}
	return repository + "/pause:" + tag, nil
}

// parseVersion reads what `kubeadm version -o short` prints.
func parseVersion(out []byte) (version, minor string, err error) {
	version = strings.TrimSpace(string(out))
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) != 3 || !strings.HasPrefix(version, "v") {
		return "", "", errors.New("read kubeadm's version: it prints " + version)
	}
	return version, parts[0] + "." + parts[1], nil
}
