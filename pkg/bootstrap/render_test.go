package bootstrap

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func exampleCluster() Cluster {
	return Cluster{
		NodeName: "node-1", Address: netip.MustParseAddr("192.0.2.10"), KubernetesVersion: "v1.36.3", Token: "abcdef.0123456789abcdef",
		Network: NetworkConfig{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"},
		Kubeadm: KubeadmConfig{Hardening: DefaultHardening()},
	}
}

func TestRenderKubeadm(t *testing.T) {
	tests := map[string]func(*Cluster){
		"defaults": func(*Cluster) {},
		"dual-stack": func(c *Cluster) {
			c.Address = netip.MustParseAddr("2001:db8::10")
			c.Network = NetworkConfig{PodSubnet: "10.244.0.0/16,fd00:1::/56", ServiceSubnet: "10.96.0.0/16,fd00:2::/112"}
		},
		"soft": func(c *Cluster) { c.Kubeadm.Hardening = HardeningConfig{} },
		"hardest": func(c *Cluster) {
			c.Kubeadm.Hardening.ProtectKernelDefaults = true
			c.Kubeadm.Hardening.ServerTLSBootstrap = true
			c.Kubeadm.Hardening.AuditPolicyFile = "/etc/nodeagent/audit.yaml"
		},
		"external-etcd": func(c *Cluster) {
			c.Kubeadm.ClusterConfiguration = passthrough(t, "etcd: {external: {endpoints: ['https://192.0.2.20:2379'], caFile: /etc/etcd/ca.crt, certFile: /etc/etcd/client.crt, keyFile: /etc/etcd/client.key}}\n")
		},
		"passed-through": func(c *Cluster) {
			c.Kubeadm = KubeadmConfig{
				Hardening:            DefaultHardening(),
				Patches:              "/etc/nodeagent/patches",
				ControlPlaneEndpoint: "api.example.com:6443",
				CertSANs:             []string{"api.example.com", "192.0.2.1"},
				ClusterConfiguration: passthrough(t, `
networking: {dnsDomain: cluster.example.com}
apiServer:
  extraArgs: [{name: audit-log-maxage, value: "30"}, {name: profiling, value: "true"}]
encryptionAlgorithm: ECDSA-P256
imageRepository: registry.example.com/k8s
`),
				InitConfiguration: passthrough(t, `
nodeRegistration:
  taints: []
  kubeletExtraArgs: [{name: v, value: "2"}]
skipPhases: [addon/kube-proxy]
`),
				KubeletConfiguration:   passthrough(t, "failSwapOn: false\nseccompDefault: false\npodPidsLimit: 16384\ntlsCipherSuites: [TLS_AES_128_GCM_SHA256]\n"),
				KubeProxyConfiguration: passthrough(t, "mode: nftables\n"),
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			c := exampleCluster()
			change(&c)
			got, err := RenderKubeadm(c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "kubeadm-"+name+".yaml"), got)
			again, err := RenderKubeadm(c)
			if err != nil || !bytes.Equal(got, again) {
				t.Errorf("rendered twice, it differs (%v):\n%s", err, cmp.Diff(string(got), string(again)))
			}
			if kinds := kindsOf(t, got); kinds != "InitConfiguration ClusterConfiguration KubeletConfiguration KubeProxyConfiguration" {
				t.Errorf("the documents are %s", kinds)
			}
		})
	}
}

func kindsOf(t *testing.T, data []byte) string {
	t.Helper()
	var kinds []string
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var d struct{ Kind string }
		err := dec.Decode(&d)
		if errors.Is(err, io.EOF) {
			return strings.Join(kinds, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, d.Kind)
	}
}

// What the operator wrote is left as it is, however often it is merged into something.
func TestRenderLeavesPassthroughAlone(t *testing.T) {
	c := exampleCluster()
	c.Kubeadm.ClusterConfiguration = passthrough(t, "networking: {dnsDomain: a}\n")
	before, err := yaml.Marshal(c.Kubeadm.ClusterConfiguration)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RenderKubeadm(c); err != nil {
		t.Fatal(err)
	}
	after, err := yaml.Marshal(c.Kubeadm.ClusterConfiguration)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("%v: %s became %s", err, before, after)
	}
}

func TestPauseImage(t *testing.T) {
	for name, test := range map[string]struct{ minor, cluster, want, err string }{
		"default":    {"1.36", "", "registry.k8s.io/pause:3.10.2", ""},
		"repository": {"1.36", "imageRepository: registry.example.com/k8s", "registry.example.com/k8s/pause:3.10.2", ""},
		"no scalar":  {"1.36", "imageRepository: {a: b}", "registry.k8s.io/pause:3.10.2", ""},
		"before":     {"1.35", "", "registry.k8s.io/pause:3.10.1", ""},
		"after":      {"1.37", "", "registry.k8s.io/pause:3.10.2", ""},
		"unknown":    {"1.34", "", "", "no known one for Kubernetes 1.34"},
	} {
		t.Run(name, func(t *testing.T) {
			kubeadm := KubeadmConfig{}
			if test.cluster != "" {
				kubeadm.ClusterConfiguration = passthrough(t, test.cluster)
			}
			got, err := PauseImage(test.minor, kubeadm)
			if test.err != "" {
				wantError(t, err, test.err)
			} else if err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]string{
		"v1.36.3\n": "v1.36.3 1.36", "v1.37.0-rc.1": "v1.37.0-rc.1 1.37", "v1.36.3+build\n": "v1.36.3+build 1.36",
		"": "", "1.36.3": "", "v1.36": "", "kubeadm version: v1": "",
	} {
		version, minor, err := parseVersion([]byte(out))
		if got := strings.TrimSpace(version + " " + minor); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %q, %v, want %q", out, got, err, want)
		}
	}
}

func TestNewPassthrough(t *testing.T) {
	for _, text := range []string{"[a]", "a", "a: b\na: c", "{", "a: {<<: {b: c}}", "? [a]\n: b"} {
		if _, err := NewPassthrough(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if p := passthrough(t, "{}"); !p.IsZero() {
		t.Error("an empty mapping is something")
	}
	// A mapping of aliases of aliases must not grow without an end.
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		c, n := string(rune('0'+i)), string(rune('1'+i))
		bomb.WriteString("a" + n + ": &a" + n + " [" + strings.Repeat("*a"+c+", ", 10) + "]\n")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(bomb.String()), &doc); err != nil {
		t.Fatal(err)
	}
	var p Passthrough
	wantError(t, p.UnmarshalYAML(doc.Content[0]), "too much")
}

func TestNodeName(t *testing.T) {
	for _, test := range []struct{ configured, host, want string }{
		{"", "Node-1\n", "node-1"}, {"", "node-1.example.com", "node-1.example.com"}, {"given", "Node-1", "given"},
	} {
		if got := (Config{Node: NodeConfig{Name: test.configured}}).NodeName(test.host); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

func TestKubeadmValidate(t *testing.T) {
	for _, endpoint := range []string{"", "api", "api.example.com:6443", "[2001:db8::1]:6443", "192.0.2.1"} {
		if err := (KubeadmConfig{ControlPlaneEndpoint: endpoint}).Validate(); err != nil {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
	for _, endpoint := range []string{"https://api", "api:6443/x", "a b"} {
		wantError(t, KubeadmConfig{ControlPlaneEndpoint: endpoint}.Validate(), "controlPlaneEndpoint: ", "is not host or host:port")
	}
	good := KubeadmConfig{
		CertSANs: []string{"api.example.com", "*.example.com", "192.0.2.1", "2001:db8::1"}, Patches: "/etc/nodeagent/patches",
		Hardening: HardeningConfig{AuditPolicyFile: "/etc/nodeagent/audit.yaml"},
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	bad := KubeadmConfig{CertSANs: []string{"a", "https://api", "api:6443", ""}, Patches: "patches", Hardening: HardeningConfig{AuditPolicyFile: "audit.yaml"}}
	wantError(t, bad.Validate(), `certSANs[1]: "https://api" is neither`, `certSANs[2]: "api:6443" is`, `certSANs[3]: "" is`,
		`patches: "patches" is not an absolute path`, `hardening.auditPolicyFile: "audit.yaml" is not an absolute path`)
	wantError(t, KubeadmConfig{Hardening: HardeningConfig{AuditPolicyFile: "//"}}.Validate(), "/ is no file")
}
