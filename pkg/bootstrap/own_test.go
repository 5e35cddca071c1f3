package bootstrap

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Every key that the agent renders is its own, but for the kubelet's arguments.
func TestOwnKeysAreThoseRendered(t *testing.T) {
	c := exampleCluster()
	c.Kubeadm = KubeadmConfig{ControlPlaneEndpoint: "api.example.com:6443", CertSANs: []string{"api.example.com"}, Patches: "/p"}
	rendered, err := RenderKubeadm(c)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for dec := yaml.NewDecoder(bytes.NewReader(rendered)); ; {
		var node yaml.Node
		if err := dec.Decode(&node); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		doc := node.Content[0]
		kind := doc.Content[indexOf(doc, "kind")].Value
		for _, path := range paths(doc, "") {
			want[strings.ToLower(kind[:1])+kind[1:]+"."+path] = true
		}
	}
	delete(want, "initConfiguration.nodeRegistration.kubeletExtraArgs")
	delete(want, "initConfiguration.bootstrapTokens")
	have := map[string]bool{}
	for _, key := range OwnKeys() {
		have[key.Document+"."+key.Path] = true
		if (key.Instead == "") == (key.Always == "") {
			t.Errorf("%+v says neither or both", key)
		}
	}
	for path := range want {
		if !have[path] {
			t.Errorf("%s is rendered, and may be contradicted", path)
		}
	}
	for path := range have {
		if !want[path] {
			t.Errorf("%s is refused, and not rendered", path)
		}
	}
}

func paths(node *yaml.Node, above string) []string {
	if node.Kind != yaml.MappingNode {
		return []string{strings.TrimSuffix(above, ".")}
	}
	var out []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		out = append(out, paths(node.Content[i+1], above+node.Content[i].Value+".")...)
	}
	return out
}

func TestOwnKeysAreRefused(t *testing.T) {
	c := KubeadmConfig{
		InitConfiguration:    passthrough(t, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {bindPort: 7443, advertiseAddress: 192.0.2.1}\npatches: {directory: /p}\n"),
		ClusterConfiguration: passthrough(t, "kubernetesVersion: v1.36.3\nnetworking: {dnsDomain: a.example, podSubnet: null}\n"),
		KubeletConfiguration: passthrough(t, "cgroupDriver: cgroupfs\nkind: [a]\n"),
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("they are accepted")
	}
	const want = `initConfiguration.localAPIEndpoint.advertiseAddress: is set by the agent: give node.address instead
initConfiguration.patches.directory: is set by the agent: give kubeadm.patches instead
clusterConfiguration.kubernetesVersion: is set by the agent: give packages.kubernetesVersion instead
clusterConfiguration.networking.podSubnet: is set by the agent: give network.podSubnet instead
kubeletConfiguration.kind: is always KubeletConfiguration here: leave it out
kubeletConfiguration.cgroupDriver: is always systemd here: leave it out`
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	allowed := KubeadmConfig{
		InitConfiguration:    passthrough(t, "nodeRegistration: {criSocket: unix:///run/containerd/containerd.sock, kubeletExtraArgs: [{name: node-ip, value: '192.0.2.1,2001:db8::1'}]}"),
		ClusterConfiguration: passthrough(t, "clusterName: blue\nnetworking: {dnsDomain: a.example}"),
	}
	if err := allowed.Validate(); err != nil {
		t.Error(err)
	}
}

// A token of the operator's takes the place of the agent's; one without its text would be
// another one each time.
func TestBootstrapTokens(t *testing.T) {
	c := exampleCluster()
	c.Kubeadm.InitConfiguration = passthrough(t, "bootstrapTokens: [{token: zzzzzz.0123456789abcdef, ttl: 24h}]")
	rendered, err := RenderKubeadm(c)
	if err != nil || strings.Contains(string(rendered), c.Token) || tokenIn(rendered) != "" && tokenIn(rendered) != "zzzzzz.0123456789abcdef" {
		t.Errorf("%v\n%s", err, rendered)
	}
	if err := c.Kubeadm.Validate(); err != nil {
		t.Error(err)
	}
	c.Kubeadm.InitConfiguration = passthrough(t, "bootstrapTokens: [{ttl: 24h}]")
	wantError(t, c.Kubeadm.Validate(), "initConfiguration.bootstrapTokens[0].token: is missing")
}
