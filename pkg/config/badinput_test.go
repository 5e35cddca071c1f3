package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bomb is a mapping of aliases of aliases that stands for 10^9 values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]")
	for i := range 9 {
		c, n := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString(", a" + n + ": &a" + n + " [" + strings.Repeat("*a"+c+", ", 9) + "*a" + c + "]")
	}
	return "{" + b.String() + "}"
}

// What an editor, a copy that was cut short or another program may leave is refused in one line
// that says where.
func TestBadText(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"tab":              {"role: worker\nlog:\n\tlevel: info\n", "f:3: is not YAML: found character that cannot start any token; is it a tab? Only blanks may indent"},
		"open quote":       {"role: \"worker\n", "f:2: is not YAML: found unexpected end of stream"},
		"cut off":          {"role: worker\nlog: {level: in", "f:1: is not YAML: did not find expected ',' or '}'"},
		"bad indentation":  {"role: worker\n  log: {}\n", "f:2: is not YAML: mapping values are not allowed in this context"},
		"binary":           {"\x7fELF\x02\x01\x01\x00\x00\x00\x90\xff", "f:1: is not a text in UTF-8"},
		"zeros":            {strings.Repeat("\x00", 4096), "f:1: holds the control character U+0000"},
		"not UTF-8":        {"role: worker\nnode: {name: m\xfcnchen}\n", "f:2: is not a text in UTF-8"},
		"UTF-16":           {"\xff\xfer\x00o\x00", "f:1: is not a text in UTF-8"},
		"escape":           {"role: worker\x1b[31m\n", "f:1: holds the control character U+001B"},
		"deep":             {"role: " + strings.Repeat("[", 100_000), "f: is not YAML: exceeded max depth of 10000"},
		"no such anchor":   {"role: *worker\n", "f: is not YAML: unknown anchor referenced; a value that begins with * needs quotes"},
		"too large":        {"role: worker\n" + strings.Repeat("# ten bytes\n", 10<<20/12), "f: has 10485769 bytes: a configuration has at most 1048576"},
		"bomb":             {"role: worker\nkubeadm:\n  clusterConfiguration: " + bomb() + "\n", "f:3: kubeadm.clusterConfiguration: the aliases stand for too much"},
		"bomb in a list":   {"role: worker\naddons: [" + bomb() + "]\n", "f:2: addons[0]: must be a single value"},
		"bomb elsewhere":   {"role: worker\nbomb: " + bomb() + "\n", "f:2: bomb: unknown key; known here: "},
		"alias of itself":  {"role: worker\nkubeadm:\n  clusterConfiguration: &x\n    a: *x\n", "f:4: kubeadm.clusterConfiguration: *x holds itself"},
		"list in itself":   {"role: worker\naddons: &x [*x]\n", "f:2: addons[0]: must be a single value"},
		"twice, deep":      {"role: worker\nkernel:\n  sysctls:\n  - name: a.b\n    value: x\n    name: c.d\n", "f:6: kernel.sysctls[0].name: is there twice"},
		"twice, passed on": {"role: worker\nkubeadm:\n  initConfiguration:\n    patches: {directory: /a}\n    patches: {directory: /b}\n", `f:5: kubeadm.initConfiguration: "patches" is there twice`},
		"own key": {"role: worker\nkubeadm:\n  clusterConfiguration:\n    networking:\n      dnsDomain: a.example\n      podSubnet: 10.0.0.0/8\n",
			"f:6: kubeadm.clusterConfiguration.networking.podSubnet: is set by the agent: give network.podSubnet instead"},
		"own key behind an alias": {"role: worker\nkubeadm:\n  initConfiguration: {x: &n {podSubnet: 10.0.0.0/8}}\n  clusterConfiguration:\n    networking: *n\n",
			"f:5: kubeadm.clusterConfiguration.networking.podSubnet: is set by the agent: give network.podSubnet instead"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte(test.text))
			if err == nil {
				t.Fatal("it is accepted")
			}
			got := err.Error()
			if strings.HasSuffix(test.want, ": ") { // the rest is a library's, or long
				got = got[:min(len(got), len(test.want))]
			}
			if got != test.want {
				t.Errorf("got\n%.300s\nwant\n%s", got, test.want)
			}
		})
	}
}

// What is only another way to write the same text is read.
func TestOddText(t *testing.T) {
	const plain = "role: worker\nlog:\n  level: debug\naddons:\n- /a.yaml\n"
	want := mustParse(t, plain)
	for name, text := range map[string]string{
		"CRLF":           strings.ReplaceAll(plain, "\n", "\r\n"),
		"no end":         strings.TrimSuffix(plain, "\n"),
		"BOM":            "\ufeff" + plain,
		"BOM and CRLF":   "\ufeff" + strings.ReplaceAll(plain, "\n", "\r\n"),
		"blanks at ends": strings.ReplaceAll(plain, "\n", "  \t\n"),
		"JSON":           `{"role": "worker", "log": {"level": "debug"}, "addons": ["/a.yaml"]}`,
		"document marks": "---\n" + plain + "...\n",
		"comment at end": plain + "# the end",
	} {
		if diff := cmp.Diff(want, mustParse(t, text), same); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// What is wrong in one way hides nothing that is wrong in another, and nothing is told twice.
func TestAllAtOnce(t *testing.T) {
	_, err := Parse("f", []byte(`rol: worker
network: {podSubnet: 10.244.0.0, cni: [bridge]}
backup: {retention: {keepLast: many}, stores: {}}
kubeadm: {controlPlaneEndpoint: "https://a", clusterConfiguration: {kubernetesVersion: v1}}
drift: {interval: 5, mode: stop}
addons: [b.yaml, 5]
log: {level: loud}
`))
	const want = `f: role: is missing: control-plane, worker or etcd
f:1: rol: unknown key; did you mean "role"?
f:2: network.cni: must be a single value
f:2: network.podSubnet: "10.244.0.0" is not a subnet like 10.244.0.0/16
f:3: backup.retention.keepLast: "many" is not a whole number
f:3: backup.stores: must be a list
f:4: kubeadm.controlPlaneEndpoint: "https://a" is not host or host:port
f:4: kubeadm.clusterConfiguration.kubernetesVersion: is set by the agent: give packages.kubernetesVersion instead
f:5: drift.interval: "5" is not a duration: it needs a unit, as in 30s, 10m or 6h
f:5: drift.mode: "stop" is neither mend nor report
f:6: addons[1]: must be a string: write "5" in quotes
f:7: log.level: "loud" is none of debug, info, warn, error`
	if err == nil {
		t.Fatal("it is accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}
