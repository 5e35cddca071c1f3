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
	pair := []string{"--cert-file=/p/server.crt", "--key-file=/p/server.key", "--trusted-ca-file=/p/ca.crt"}
	tls := Local{CAFile: "/p/ca.crt", CertFile: "/p/server.crt", KeyFile: "/p/server.key"}
	at := func(l Local, endpoint string) Local { l.Endpoint = endpoint; return l }
	with := func(flags ...string) string {
		return manifestOf(append(append([]string{"etcd"}, pair...), flags...)...)
	}
	for name, tt := range map[string]struct {
		manifest string
		want     Local
		wantErr  string
	}{
		"kubeadm's order of URLs": {
			manifest: with("--name=cp1", "--data-dir=/var/lib/etcd", "--listen-client-urls=https://192.0.2.1:2379,https://127.0.0.1:2379"),
			want:     Local{Name: "cp1", DataDir: "/var/lib/etcd", Endpoint: "https://127.0.0.1:2379", CAFile: "/p/ca.crt", CertFile: "/p/server.crt", KeyFile: "/p/server.key"},
		},
		"flag and value apart, one dash": {
			manifest: manifestOf("/usr/local/bin/etcd", "-cert-file", "/p/server.crt", "--client-cert-auth", "--key-file", "/p/server.key", "-trusted-ca-file=/p/ca.crt", "--listen-client-urls", "https://[::1]:2379"),
			want:     at(tls, "https://[::1]:2379"),
		},
		"arguments beside the command": {
			manifest: "kind: Pod\nspec:\n  containers:\n  - command: [etcd]\n    args: ['--listen-client-urls=http://localhost:2379']\n",
			want:     Local{Endpoint: "http://localhost:2379"},
		},
		"the second container": {
			manifest: "kind: Pod\nspec:\n  containers:\n  - command: [sidecar]\n  - {}\n  - command: [etcd, '--listen-client-urls=http://127.0.0.1:2379']\n",
			want:     Local{Endpoint: "http://127.0.0.1:2379"},
		},
		"no loopback":                    {with("--listen-client-urls=https://192.0.2.1:2379"), at(tls, "https://192.0.2.1:2379"), ""},
		"everywhere: as advertised":      {with("--listen-client-urls=https://0.0.0.0:2379", "--advertise-client-urls=https://cp1.example:2379"), at(tls, "https://cp1.example:2379"), ""},
		"everywhere, nothing advertised": {with("--listen-client-urls=https://[::]:2379"), at(tls, "https://[::1]:2379"), ""},
		"a unix socket is passed over":   {with("--listen-client-urls=unix://localhost:1,https://192.0.2.1:2379"), at(tls, "https://192.0.2.1:2379"), ""},
		"the last of several wins":       {with("--listen-client-urls=https://192.0.2.1:1", "--listen-client-urls=https://192.0.2.1:2"), at(tls, "https://192.0.2.1:2"), ""},
		"http needs no certificates":     {with("--listen-client-urls=http://127.0.0.1:2379"), Local{Endpoint: "http://127.0.0.1:2379"}, ""},
		"https without a certificate":    {manifestOf("etcd", "--listen-client-urls=https://127.0.0.1:2379"), Local{}, "not both given"},
		"a relative certificate":         {manifestOf("etcd", "--cert-file=a", "--key-file=/b", "--listen-client-urls=https://127.0.0.1:2379"), Local{}, "not an absolute path"},
		"no URL":                         {with(), Local{}, "no client URL"},
		"a configuration file":           {manifestOf("etcd", "--config-file=/etc/etcd.yaml"), Local{}, "--config-file=/etc/etcd.yaml"},
		"a shell":                        {manifestOf("sh", "-c", "exec etcd"), Local{}, "no container"},
		"not a pod":                      {"kind: ConfigMap\n", Local{}, "not Pod"},
		"no YAML":                        {"kind: [Pod", Local{}, "yaml"},
		"empty":                          {"", Local{}, "not Pod"},
		"a command that is no list":      {"kind: Pod\nspec: {containers: [{command: etcd}]}\n", Local{}, "unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseManifest([]byte(tt.manifest))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifestOf("etcd", "--listen-client-urls=https://127.0.0.1:2379", "--cert-file", "/a", "--key-file", "/b")))
	f.Add([]byte(manifestOf("etcd", "--listen-client-urls=http://[::]:1,http://:2,://", "-", "--", "---x")))
	f.Add([]byte("kind: Pod\nspec: {containers: [{command: [etcd, &a [*a]]}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseManifest(data)
		if err != nil {
			if l != (Local{}) {
				t.Errorf("an error and a result: %+v", l)
			}
			return
		}
		secure := strings.HasPrefix(l.Endpoint, "https://")
		if !secure && !strings.HasPrefix(l.Endpoint, "http://") {
			t.Errorf("endpoint %q", l.Endpoint)
		}
		if secure != (l.CertFile != "" && l.KeyFile != "") {
			t.Errorf("endpoint %q, certificate %q, key %q", l.Endpoint, l.CertFile, l.KeyFile)
		}
	})
}
