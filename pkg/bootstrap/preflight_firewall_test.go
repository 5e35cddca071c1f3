package bootstrap

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// ufwRules is /etc/ufw/user.rules as `ufw` writes it: the comments are what it reads again.
func ufwRules(tuples ...string) string {
	var out strings.Builder
	out.WriteString("*filter\n:ufw-user-input - [0:0]\n### RULES ###\n")
	for _, t := range tuples {
		fmt.Fprintf(&out, "\n### tuple ### %s\n-A ufw-user-input -j ACCEPT\n", t)
	}
	return out.String() + "\n### END RULES ###\nCOMMIT\n"
}

func TestFirewalls(t *testing.T) {
	const any4 = " 0.0.0.0/0 any 0.0.0.0/0 in"
	ufw := func(forward string, tuples ...string) map[string]string {
		return map[string]string{
			"/etc/ufw/ufw.conf": "# comment\nENABLED=yes\nLOGLEVEL=low\n", "/etc/ufw/user.rules": ufwRules(tuples...),
			"/etc/default/ufw": "IPV6=yes\nDEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_FORWARD_POLICY=\"" + forward + "\"\n",
		}
	}
	const service = `<?xml version="1.0" encoding="utf-8"?><service><short>x</short>%s</service>`
	zone := func(attributes, inside string) map[string]string {
		return map[string]string{
			"/etc/firewalld/firewalld.conf":                      "# the default\nDefaultZone=mine\nLockdown=no\n",
			"/etc/firewalld/zones/mine.xml":                      "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone" + attributes + ">\n  <short>Mine</short>\n" + inside + "\n  <forward/>\n</zone>\n",
			"/usr/lib/firewalld/services/all":                    "",
			"/usr/lib/firewalld/services/kube-control-plane.xml": fmt.Sprintf(service, `<include service="etcd"/><include service="api"/><include service="kube-control-plane"/>`),
			"/usr/lib/firewalld/services/etcd.xml":               fmt.Sprintf(service, `<port protocol="tcp" port="2379-2380"/>`),
			"/usr/lib/firewalld/services/api.xml":                fmt.Sprintf(service, `<port protocol="tcp" port="6443"/><port protocol="udp" port="10250"/>`),
		}
	}
	for name, test := range map[string]struct {
		role  Role
		files map[string]string
		want  []string // what is found, in parts
	}{
		"ufw off":        {files: map[string]string{"/etc/ufw/ufw.conf": "ENABLED=no\n"}},
		"ufw, no rules":  {files: ufw("DROP"), want: []string{"Firewall: \"ufw is enabled and lets no one reach 2379, 2380, 6443, 10250, 10256\" → \"these ports open: ufw allow PORT/tcp for each\"", "drops what is forwarded"}},
		"ufw alone":      {role: Etcd, files: map[string]string{"/etc/ufw/ufw.conf": "ENABLED=YES\n"}, want: []string{"reach 2379, 2380\""}},
		"ufw, some open": {files: ufw("ACCEPT", "allow tcp 6443"+any4, "limit any 10250"+any4, "allow udp 2379"+any4), want: []string{"reach 2379, 2380, 10256\""}},
		"ufw, all open": {files: ufw("ACCEPT", "allow tcp 2379:2380"+any4, "allow any 6443,10256 10.0.0.0/8 any 0.0.0.0/0 in_eth0", "allow_log tcp 10250"+any4+" comment=6b7562656c6574",
			"deny tcp 6443"+any4)},
		"ufw, denied first":   {role: Worker, files: ufw("ACCEPT", "deny tcp 10250"+any4, "allow any any"+any4), want: []string{"reach 10250\""}},
		"ufw, outwards":       {role: Worker, files: ufw("ACCEPT", "allow tcp 10250 0.0.0.0/0 any 0.0.0.0/0 out", "route:allow tcp 10250"+any4, "allow tcp 10256"+any4), want: []string{"reach 10250\""}},
		"ufw, an application": {role: Worker, files: ufw("ACCEPT", "allow tcp 10250,10256 0.0.0.0/0 any 0.0.0.0/0 Kubelet - in")},
		"firewalld":           {files: zone("", `<service name="ssh"/>`), want: []string{`Firewalld: "firewalld is active and its zone mine lets no one reach 2379, 2380, 6443, 10250, 10256" → `}},
		"firewalld, services": {files: zone("", `<service name="kube-control-plane"/><port port="10200-10300" protocol="tcp"/>`)},
		"firewalld, part":     {files: zone("", `<service name="kube-control-plane"/><service name="../../x"/>`), want: []string{"reach 10250, 10256\""}},
		"firewalld, accepts":  {files: zone(` target="ACCEPT"`, "")},
		"firewalld, no zone":  {role: Worker, files: map[string]string{"/etc/firewalld/firewalld.conf": "DefaultZone=gone\n"}, want: []string{"zone gone lets"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &host.Host{Root: tree(t, goodHost, test.files)}
			deps := goodDeps()
			deps.State = func(_ context.Context, unit string) (systemd.State, error) {
				state := systemd.State{ActiveState: "inactive"}
				if unit == "firewalld.service" && strings.HasPrefix(name, "firewalld") {
					state.ActiveState = "active"
				}
				return state, nil
			}
			if test.role == "" {
				test.role = ControlPlane
			}
			changes, err := preflight{PreflightDeps: deps, host: h, role: test.role}.firewall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(changes) != len(test.want) {
				t.Fatalf("found %v, want %q", changes, test.want)
			}
			for i, c := range changes {
				if !c.Manual || !strings.Contains(c.String(), test.want[i]) {
					t.Errorf("found %s, want a finding with %q", c, test.want[i])
				}
			}
		})
	}
	t.Run("a zone that is no XML", func(t *testing.T) {
		files := zone("", "<service")
		_, err := preflight{PreflightDeps: goodDeps(), host: &host.Host{Root: tree(t, goodHost, files)}, role: Worker}.firewalld()
		wantError(t, err, "/etc/firewalld/zones/mine.xml: ", "syntax")
	})
}

// The API server's port is the one that the operator has given it.
func TestAPIPort(t *testing.T) {
	h := goodMachine(t)
	put(t, h, "/proc/net/tcp", tcpHeader+listener(6443, "0A", 1)+listener(8443, "0A", 2), 0o444)
	process(t, h, 10, "haproxy", 1, 2)
	for port, want := range map[uint16]string{0: "Port-6443", 6443: "Port-6443", 8443: "Port-8443"} {
		deps := goodDeps()
		deps.APIPort = port
		changes, err := Preflight(h, ControlPlane, nil, deps).Check(t.Context())
		if err != nil || len(changes) != 1 || changes[0].Subject != want {
			t.Errorf("%d: %v, %v, want %s", port, changes, err, want)
		}
	}
	for text, want := range map[string]uint16{"localAPIEndpoint: {bindPort: 8443}": 8443, "localAPIEndpoint: {bindPort: x}": 0, "{}": 0} {
		init, err := NewPassthrough(text)
		if err != nil {
			t.Fatal(err)
		}
		if have := (Config{Kubeadm: KubeadmConfig{InitConfiguration: init}}).apiPort(); have != want {
			t.Errorf("%s: port %d", text, have)
		}
	}
}

func FuzzFirewall(f *testing.F) {
	f.Add(ufwRules("allow tcp 6443,1:2 0.0.0.0/0 any 0.0.0.0/0 in"))
	f.Add(`<zone target="ACCEPT"><port port="1-65535" protocol="tcp"/><service name="a"/></zone>`)
	f.Add("### tuple ### allow any any a a a in_x\r\n")
	f.Fuzz(func(t *testing.T, data string) {
		for _, tuple := range parseUFW([]byte(data)) {
			for _, r := range tuple.ports {
				if r.first > r.last {
					t.Errorf("ports %v of %q", r, data)
				}
			}
		}
		if x, err := parseFirewalld([]byte(data)); err == nil {
			for _, p := range x.Ports {
				if slices.ContainsFunc(parsePorts(p.Port), func(r portRange) bool { return r.first > r.last }) {
					t.Errorf("ports %q", p.Port)
				}
			}
		}
	})
}
