package etcd

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func manifestOf(command ...string) string {
	return "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: ['" + strings.Join(command, "', '") + "']\n"
}

func TestParseManifest(t *testing.T) {
	const listen = "--listen-client-urls=http://127.0.0.1:2379"
	const listenSeen = "default in default.etcd by  at http://127.0.0.1:2379 bare"
	for name, tt := range map[string]struct{ manifest, want string }{
		"kubeadm's": {
			manifestOf("etcd", "--cert-file=/p/server.crt", "--key-file=/p/server.key", "--trusted-ca-file=/p/ca.crt", "--name=cp1", "--data-dir=/var/lib/etcd", "--listen-client-urls=https://192.0.2.10:2379,https://127.0.0.1:2379"),
			"cp1 in /var/lib/etcd by  at https://127.0.0.1:2379 https://192.0.2.10:2379 ca 0/p/ca.crt cert 0/p/server.crt",
		},
		"flag and value apart, one dash": {
			manifestOf("/usr/local/bin/etcd", "-cert-file", "/p/server.crt", "--client-cert-auth", "--key-file", "/p/server.key", "-trusted-ca-file=/p/ca.crt", "--listen-client-urls", "https://[::1]:2379"),
			"default in default.etcd by  at https://[::1]:2379 ca 0/p/ca.crt cert 0/p/server.crt",
		},
		"arguments beside the command": {"kind: Pod\nspec:\n  containers:\n  - command: [etcd]\n    args: ['" + listen + "']\n", listenSeen},
		"the second container":         {"kind: Pod\nspec:\n  containers:\n  - command: [sidecar]\n  - {}\n  - command: [etcd, '" + listen + "']\n", listenSeen},
		"its environment":              {"kind: Pod\nspec: {containers: [{command: [etcd], env: [{name: ETCD_LISTEN_CLIENT_URLS, value: 'http://127.0.0.1:2379'}]}]}\n", listenSeen},
		"the last of several wins":     {manifestOf("etcd", "--listen-client-urls=http://192.0.2.10:1", "--listen-client-urls=http://192.0.2.10:2"), "default in default.etcd by  at http://192.0.2.10:2 bare"},
		"nothing after two dashes":     {manifestOf("etcd", listen, "--", "--listen-client-urls=http://127.0.0.1:1"), listenSeen},
		"no URL":                       {manifestOf("etcd"), "default in default.etcd by  at http://localhost:2379 bare"},
		"a URL that is none":           {manifestOf("etcd", "--listen-client-urls=no"), "!no client URL"},
		"a relative certificate":       {manifestOf("etcd", "--cert-file=a", "--key-file=/b", listen), "!not an absolute path"},
		"a relative socket":            {manifestOf("etcd", "--listen-client-urls=unix://a"), "!not an absolute path"},
		"a working directory":          {"kind: Pod\nspec: {containers: [{command: [etcd, '" + listen + "', --data-dir=d], workingDir: /w}]}\n", "default in /w/d by  at http://127.0.0.1:2379 bare"},
		"a configuration file":         {manifestOf("etcd", "--config-file=/etc/etcd.yaml"), "!configuration file /etc/etcd.yaml"},
		"a shell":                      {manifestOf("sh", "-c", "exec etcd"), "!no container"},
		"not a pod":                    {"kind: ConfigMap\n", "!not Pod"},
		"no YAML":                      {"kind: [Pod", "!yaml"},
		"empty":                        {"", "!not Pod"},
		"a command that is no list":    {"kind: Pod\nspec: {containers: [{command: etcd}]}\n", "!unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parseManifest([]byte(tt.manifest))
			if want, is := strings.CutPrefix(tt.want, "!"); is {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("error %v, want one with %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p := process{settings: s}
			if diff := cmp.Diff(tt.want, seen(p.local(p.endpoints(t.Context(), lan), Choice{}, lan))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
