package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

// same compares configurations; what is passed through is compared as YAML, and no list is an
// empty list.
var same = cmp.Options{cmpopts.EquateEmpty(), cmp.Transformer("yaml", func(p bootstrap.Passthrough) string {
	text, err := yaml.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(text)
})}

// An address of loopback, or a file that protects the page, needs no warning.
func TestMetricsWarning(t *testing.T) {
	for listen, want := range map[string]bool{
		"": false, "127.0.0.1:10980": false, "127.8.8.8:1": false, "localhost:10980": false, "[::1]:10980": false,
		":10980": true, "0.0.0.0:10980": true, "[::]:10980": true, "192.0.2.1:10980": true, "node-1:10980": true,
	} {
		if got := (MetricsConfig{Listen: listen}).Warning(); (got != "") != want || want && !strings.Contains(got, listen) {
			t.Errorf("%q: %q", listen, got)
		}
		if got := (MetricsConfig{Listen: listen, WebConfigFile: "/etc/nodeagent/web.yaml"}).Warning(); got != "" {
			t.Errorf("%q with a web.yaml: %q", listen, got)
		}
	}
}

func mustParse(t *testing.T, text string) Config {
	t.Helper()
	cfg, err := Parse("config.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func mustPrint(t testing.TB, cfg Config) string {
	t.Helper()
	text, err := yaml.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each bad file gets exactly these complaints.
func TestComplaints(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty":              {"", "config.yaml: role: is missing: control-plane, worker or etcd"},
		"comments only":      {"# nothing\n---\n", "config.yaml: role: is missing: control-plane, worker or etcd"},
		"null role":          {"role:\n", "config.yaml:1: role: is missing: control-plane, worker or etcd"},
		"unknown role":       {"\nrole: master\n", `config.yaml:2: role: "master" is none of control-plane, worker, etcd`},
		"no mapping":         {"- role\n", "config.yaml:1: the file must be a mapping of keys to values"},
		"text":               {"\n\nworker\n", "config.yaml:3: the file must be a mapping of keys to values"},
		"not YAML":           {"role: [worker\n", "config.yaml:1: is not YAML: did not find expected ',' or ']'"},
		"unknown key":        {"role: worker\nbackups: {}\n", `config.yaml:2: backups: unknown key; did you mean "backup"?`},
		"case matters":       {"role: worker\nkernel: {Swap: disable}\n", `config.yaml:2: kernel.Swap: unknown key; did you mean "swap"?`},
		"deep unknown key":   {"role: worker\nkernel:\n  sysctls:\n  - name: vm.swappiness\n    vaule: \"1\"\n", `config.yaml:5: kernel.sysctls[0].vaule: unknown key; did you mean "value"?`},
		"far-off key":        {"role: worker\nnetwork: {clusterDomain: x}\n", "config.yaml:2: network.clusterDomain: unknown key; known here: podSubnet, serviceSubnet, cni"},
		"key twice":          {"role: worker\nlog: {level: info}\nlog: {level: debug}\n", "config.yaml:3: log: is there twice"},
		"inner key twice":    {"role: worker\nlog:\n  level: info\n  level: info\n", "config.yaml:4: log.level: is there twice"},
		"two documents":      {"role: worker\n---\nrole: etcd\n", "config.yaml:2: the file holds more than one YAML document"},
		"broken second":      {"role: worker\n---\n[\n", "config.yaml:3: is not YAML: did not find expected node content"},
		"merge key":          {"role: worker\nlog:\n  <<: {level: info}\n", "config.yaml:3: log.<<: unknown key; known here: level, format"},
		"duration":           {"role: worker\ndrift: {interval: 10}\n", `config.yaml:2: drift.interval: "10" is not a duration: it needs a unit, as in 30s, 10m or 6h`},
		"duration in quotes": {"role: worker\ndrift:\n  interval: \"600\"\n", `config.yaml:3: drift.interval: "600" is not a duration: it needs a unit, as in 30s, 10m or 6h`},
		"days":               {"role: worker\nbackup: {interval: 1d}\n", `config.yaml:2: backup.interval: "1d" is not a duration: it needs a unit, as in 30s, 10m or 6h`},
		"number for text":    {"role: worker\nkernel: {sysctls: [{name: net.ipv4.ip_forward, value: 1}]}\n", `config.yaml:2: kernel.sysctls[0].value: must be a string: write "1" in quotes`},
		"version":            {"role: worker\npackages: {kubernetesVersion: 1.36}\n", `config.yaml:2: packages.kubernetesVersion: must be a string: write "1.36" in quotes`},
		"old minor":          {"role: worker\npackages: {kubernetesVersion: \"1.34\"}\n", `config.yaml:2: packages.kubernetesVersion: "1.34" is not supported: this version is tested with 1.36, and takes 1.35 and 1.37 untested`},
		"kernel's defaults":  {"role: worker\nkubeadm: {hardening: {protectKernelDefaults: true}}\nkernel:\n  sysctls:\n  - {name: vm.swappiness, value: \"1\"}\n  - {name: vm/overcommit_memory, value: \"2\"}\n", `config.yaml:6: kernel.sysctls[1].value: with kubeadm.hardening.protectKernelDefaults the kubelet starts only where vm/overcommit_memory is 1`},
		"audit policy":       {"role: worker\nkubeadm:\n  hardening:\n    auditPolicyFile: a.yaml\n", `config.yaml:4: kubeadm.hardening.auditPolicyFile: "a.yaml" is not an absolute path`},
		"patches twice":      {"role: worker\nkubeadm: {initConfiguration: {patches: {directory: /p}}}\n", "config.yaml:2: kubeadm.initConfiguration.patches.directory: is set by the agent: give kubeadm.patches instead"},
		"switch":             {"role: worker\nkubeadm: {hardening: {limitPIDs: 4096}}\n", `config.yaml:2: kubeadm.hardening.limitPIDs: "4096" is neither true nor false`},
		"text for bool":      {"role: worker\npackages: {manage: maybe}\n", `config.yaml:2: packages.manage: "maybe" is neither true nor false`},
		"fraction":           {"role: worker\nbackup: {retention: {keepLast: 2.5}}\n", `config.yaml:2: backup.retention.keepLast: "2.5" is not a whole number`},
		"text for section":   {"role: worker\nlog: debug\n", "config.yaml:2: log: must be a mapping"},
		"list for section":   {"role: worker\nlog: [debug]\n", "config.yaml:2: log: must be a mapping"},
		"text for list":      {"role: worker\naddons: /a.yaml\n", "config.yaml:2: addons: must be a list"},
		"map for text":       {"role: {}\n", "config.yaml:1: role: must be a single value"},
		"passed through":     {"role: worker\nkubeadm: {clusterConfiguration: [a]}\n", "config.yaml:2: kubeadm.clusterConfiguration: must be a mapping"},
		"join":               {"role: worker\nkubeadm:\n  join: {endpoint: \"a:6443\"}\n", "config.yaml:3: kubeadm.join: not in this version"},
		"drift mode":         {"role: worker\ndrift: {mode: stop}\n", `config.yaml:2: drift.mode: "stop" is neither mend nor report`},
		"interval":           {"role: worker\ndrift: {interval: 1ms}\n", "config.yaml:2: drift.interval: 1ms is shorter than a second"},
		"check":              {"role: worker\npreflight: {ignore: [NumCPU, Swapp]}\n", `config.yaml:2: preflight.ignore[1]: "Swapp" is no check: `},
		"node":               {"role: worker\nnode: {name: Node_1, address: 127.0.0.1}\n", "config.yaml:2: node.name: \"Node_1\" is not a DNS name in lower case\nconfig.yaml:2: node.address: \"127.0.0.1\" is not an address that other hosts can reach"},
		"kubeconfigs": {"role: control-plane\nnode:\n  adminKubeconfigFor: [alice, \"a:b\", alice, ../x]\n", `config.yaml:3: node.adminKubeconfigFor[1]: "a:b" is not the name of a user` +
			"\nconfig.yaml:3: node.adminKubeconfigFor[2]: \"alice\" is there twice\nconfig.yaml:3: node.adminKubeconfigFor[3]: \"../x\" is not the name of a user"},
		"kubeconfigs of a worker": {"role: worker\nnode: {adminKubeconfigFor: [alice]}\n", "config.yaml:2: node.adminKubeconfigFor: only a control plane has the administrator's kubeconfig, and role is worker"},
		"subnets":                 {"role: worker\nnetwork:\n  podSubnet: 10.244.0.0\n  cni: calico\n", "config.yaml:3: network.podSubnet: \"10.244.0.0\" is not a subnet like 10.244.0.0/16\nconfig.yaml:4: network.cni: \"calico\" is not known: bridge, or none and the add-on's manifests under addons"},
		"three subnets":           {"role: worker\nnetwork: {podSubnet: \"10.0.0.0/16,fd00::/64,fd01::/64\"}\n", `config.yaml:2: network.podSubnet: "10.0.0.0/16,fd00::/64,fd01::/64" has more than two subnets`},
		"relative add-on":         {"role: worker\naddons:\n- /a.yaml\n- b.yaml\n", `config.yaml:4: addons[1]: "b.yaml" is not an absolute path`},
		"log":                     {"role: worker\nlog:\n  level: loud\n  format: xml\n", "config.yaml:3: log.level: \"loud\" is none of debug, info, warn, error\nconfig.yaml:4: log.format: \"xml\" is none of auto, text, json"},
		"metrics":                 {"role: worker\nmetrics:\n  listen: 10980\n  webConfigFile: web.yaml\n", "config.yaml:3: metrics.listen: must be a string: write \"10980\" in quotes\nconfig.yaml:4: metrics.webConfigFile: is neither an absolute path nor credential:NAME"},
		"textfile":                {"role: worker\nmetrics: {textfile: /var/lib/node-exporter/nodeagent.txt}\n", `config.yaml:2: metrics.textfile: "/var/lib/node-exporter/nodeagent.txt" is no absolute path that ends in .prom: node_exporter reads no others`},
		"textfile, relative":      {"role: worker\nmetrics: {textfile: nodeagent.prom}\n", `config.yaml:2: metrics.textfile: "nodeagent.prom" is no absolute path that ends in .prom: node_exporter reads no others`},
		"listen":                  {"role: worker\nmetrics: {listen: localhost}\n", `config.yaml:2: metrics.listen: "localhost" is not an address and port like 127.0.0.1:10980`},
		"no store":                {"role: worker\nbackup: {stores: []}\n", "config.yaml:2: backup.stores: none is given, so that backups would go nowhere"},
		"store of no kind":        {"role: worker\nbackup:\n  stores:\n  - file: {dir: /a}\n  - {}\n", "config.yaml:5: backup.stores[1]: no kind of store is given, such as file or s3"},
		"endpoints":               {"role: worker\nbackup:\n  endpoints:\n  - https://192.0.2.10:2379\n  - 192.0.2.11\n  keyFile: key\n", "config.yaml:2: backup.certFile: is missing beside keyFile\nconfig.yaml:5: backup.endpoints[1]: \"192.0.2.11\" is no URL of etcd's, as in https://192.0.2.10:2379 or unix:///run/etcd.sock\nconfig.yaml:6: backup.keyFile: \"key\" is not a plain absolute path"},
		"two at once":             {"rol: worker\nlog: {lavel: info}\nrole: worker\n", "config.yaml:1: rol: unknown key; did you mean \"role\"?\nconfig.yaml:2: log.lavel: unknown key; did you mean \"level\"?"},
		"default at fault":        {"role: worker\nbackup: {schedule: never}\n", "config.yaml:2: backup.schedule: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("config.yaml", []byte(test.text))
			if err == nil {
				t.Fatalf("%q is accepted", test.text)
			}
			got := err.Error()
			if strings.HasSuffix(test.want, ": ") { // the rest is a library's
				got = got[:min(len(got), len(test.want))]
			}
			if got != test.want {
				t.Errorf("%q\ngot  %s\nwant %s", test.text, got, test.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	got := mustPrint(t, mustParse(t, "role: control-plane\n"))
	golden := filepath.Join("testdata", "defaults.yaml")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// A section without a value is the section of a file that does not name it.
func TestNullsKeepDefaults(t *testing.T) {
	var text strings.Builder
	text.WriteString("role: worker\n")
	for _, key := range []string{"node", "network", "preflight", "kernel", "packages", "containerd", "images", "kubeadm", "addons", "backup", "certs", "drift", "metrics", "log"} {
		text.WriteString(key + ":\n")
	}
	want := mustParse(t, "role: worker\n")
	if diff := cmp.Diff(want, mustParse(t, text.String()), same); diff != "" {
		t.Error(diff)
	}
	inner := "role: worker\nnetwork: {podSubnet: null}\nbackup: {schedule: ~, stores: null, retention: {keepLast: null}}\ndrift: {interval: }\nmetrics: {listen: }\n"
	if diff := cmp.Diff(want, mustParse(t, inner), same); diff != "" {
		t.Error(diff)
	}
}

// What is given takes the place of the default: a list is not laid over it, and what is empty
// on purpose is empty.
func TestGivenReplacesDefault(t *testing.T) {
	cfg := mustParse(t, `
role: control-plane
network: {podSubnet: "10.0.0.0/16,fd00::/64"}
kernel: {modules: [ip_vs], sysctls: [{name: net.ipv4.conf.all.rp_filter, value: "0"}]}
backup:
  interval: 90m
  stores: [{file: {dir: /srv/a}}, {file: {dir: /srv/b}}]
metrics: {listen: ""}
addons: [/a.yaml, /b]
kubeadm: {patches: /p, hardening: {seccompDefault: false, serverTLSBootstrap: true}}
`)
	want := Default()
	want.Role = bootstrap.ControlPlane
	want.Network.PodSubnet = "10.0.0.0/16,fd00::/64"
	want.Kernel.Modules = []string{"ip_vs"}
	want.Kernel.Sysctls = []kernel.Sysctl{{Name: "net.ipv4.conf.all.rp_filter", Value: "0"}}
	want.Backup.Interval = 90 * time.Minute
	want.Backup.Stores = []etcdbackup.StoreConfig{{File: &etcdbackup.FileConfig{Dir: "/srv/a"}}, {File: &etcdbackup.FileConfig{Dir: "/srv/b"}}}
	want.Metrics.Listen = ""
	want.Kubeadm.Patches = "/p"
	want.Kubeadm.Hardening.SeccompDefault, want.Kubeadm.Hardening.ServerTLSBootstrap = false, true
	want.Addons = []string{"/a.yaml", "/b"}
	if diff := cmp.Diff(want, cfg, same); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]etcdbackup.StoreConfig{{File: &etcdbackup.FileConfig{Dir: "/var/lib/nodeagent/backups"}}}, Default().Backup.Stores); diff != "" {
		t.Errorf("reading a file changed the defaults: %s", diff)
	}
}

// What is passed through is kubeadm's: case, order and types stay.
func TestPassthroughKeepsCase(t *testing.T) {
	cfg := mustParse(t, `
role: control-plane
kubeadm:
  certSANs: [API.example.com]
  clusterConfiguration:
    imageRepository: registry.example.com/k8s
    apiServer:
      extraArgs: [{name: audit-log-maxage, value: "30"}]
  kubeletConfiguration:
    evictionHard: {imagefs.available: "10%"}
    featureGates: {NodeSwap: true}
`)
	printed := mustPrint(t, cfg)
	for _, want := range []string{"API.example.com", "imageRepository: registry.example.com/k8s", "extraArgs: [{name: audit-log-maxage, value: \"30\"}]", "imagefs.available: \"10%\"", "NodeSwap: true"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is not in:\n%s", want, printed)
		}
	}
	if diff := cmp.Diff(cfg, mustParse(t, printed), same); diff != "" {
		t.Errorf("printed and read again: %s", diff)
	}
}

// An alias is the value that it stands for, also inside what is passed through.
func TestAnchors(t *testing.T) {
	cfg := mustParse(t, `
role: control-plane
network: {podSubnet: 10.0.0.0/16, cni: &cni bridge}
kubeadm:
  certSANs: &names [a.example.com]
  clusterConfiguration: &extra
    certificatesDir: /etc/kubernetes/pki
    dns: {type: *cni, list: *names}
  initConfiguration: *extra
`)
	printed := mustPrint(t, cfg)
	if got := strings.Count(printed, "dns: {type: bridge, list: [a.example.com]}"); got != 2 {
		t.Errorf("aliases are not what they stand for:\n%s", printed)
	}
	if diff := cmp.Diff(cfg, mustParse(t, printed), same); diff != "" {
		t.Errorf("printed and read again: %s\n%s", diff, printed)
	}
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile(filepath.Join("..", "..", "deploy", "examples", "config.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	// The example with everything in it that is commented out.
	f.Add([]byte(strings.NewReplacer("\n#  ", "\n  ", "\n# ", "\n").Replace(string(example))))
	for _, seed := range []string{
		"", "role: worker", "role: etcd\nbackup: {stores: [{file: {dir: /a}}]}", "role: &a worker\nnode: {name: *a}",
		"role: worker\nkubeadm: {clusterConfiguration: &x {a: *x}}", "role: worker\nkubeadm: &k {certSANs: [a]}\nnode: *k",
		"role: worker\nlog: null", "!!str role: !!str worker", "role: worker\n? [a]\n: b", "role: worker\n? {a: b}\n: c",
		"role: worker\nkubeadm: {initConfiguration: {skipPhases: [addon], 1: 2, null: x, <<: {a: b}}}",
		"role: worker\nkubeadm: {initConfiguration: {a: 1, A: 2, a: 3}}",
		"role: worker\ndrift: {interval: 1h30m}\nbackup: {schedule: '@daily'}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("f", data)
		if err != nil {
			return
		}
		printed := mustPrint(t, cfg)
		again, err := Parse("f", []byte(printed))
		if err != nil {
			t.Fatalf("accepted, printed and refused: %v\n%s\nwhich was\n%s", err, printed, data)
		}
		if diff := cmp.Diff(cfg, again, same); diff != "" {
			t.Fatalf("printed and read again: %s", diff)
		}
	})
}

// A list that is given is not laid over the default one, whatever that is.
func TestListIsReplaced(t *testing.T) {
	cfg := Config{Addons: []string{"/default-1", "/default-2"}, Kernel: kernel.Config{Sysctls: []kernel.Sysctl{{Name: "a.b", Value: "1"}}}}
	var given yaml.Node
	if err := yaml.Unmarshal([]byte("addons: [/given]\nkernel: {sysctls: [{name: c.d}]}\n"), &given); err != nil {
		t.Fatal(err)
	}
	if err := decode(given.Content[0], &cfg); err != nil {
		t.Fatal(err)
	}
	want := Config{Addons: []string{"/given"}, Kernel: kernel.Config{Sysctls: []kernel.Sysctl{{Name: "c.d"}}}}
	if diff := cmp.Diff(want, cfg, same); diff != "" {
		t.Error(diff)
	}
}
