package etcd

import (
	"context"
	"strings"
	"testing"
)

// rke2#6281: a snapshot alone does not do on a new node. What a member was started with is read where its
// process sees it, and what is not there is left out.
func TestFiles(t *testing.T) {
	config := "name: m1\nlisten-client-urls: https://127.0.0.1:2379\nclient-transport-security: {cert-file: s.pem, key-file: s-key.pem, trusted-ca-file: ca.pem}\npeer-transport-security: {trusted-ca-file: peers.crt}\n"
	for name, tt := range map[string]struct {
		args  []string
		files string
		want  string
	}{
		"flags": {
			append(securely, "--peer-cert-file=/q/p.crt", "--peer-key-file=/q/p.key", "--peer-trusted-ca-file=/q/ca.crt"),
			"/p/ca.crt /p/ca.key /p/s.crt /p/s.key /q/ca.crt /q/ca.key /q/p.crt /q/p.key /p/other.key",
			"/p/ca.crt /p/ca.key /q/ca.crt /q/ca.key /p/s.crt /p/s.key /q/p.crt /q/p.key",
		},
		"no key of the authority's": {securely, "/p/ca.crt /p/s.crt /p/s.key", "/p/ca.crt /p/s.crt /p/s.key"},
		"a configuration file":      {[]string{"etcd", "--config-file=conf/etcd.yaml"}, "/srv/ca.pem /srv/ca-key.pem /srv/peers.crt /srv/peers.key", "/srv/conf/etcd.yaml /srv/ca.pem /srv/ca-key.pem /srv/peers.crt /srv/peers.key"},
		"nothing":                   {[]string{"etcd"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/srv/conf/etcd.yaml": config}
			for path := range strings.FieldsSeq(tt.files) {
				files[path] = "of " + path
			}
			h := running(t, proc{args: tt.args, cwd: "/srv", files: files})
			local, err := find(context.Background(), h, Choice{}, lan)
			if err != nil {
				t.Fatal(err)
			}
			got, err := local.Files(h)
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, f := range got {
				paths = append(paths, f.Path)
				if string(f.Data) != files[f.Path] || f.Mode != 0o600 {
					t.Errorf("%s is %o %q", f.Path, f.Mode, f.Data)
				}
			}
			if strings.Join(paths, " ") != tt.want {
				t.Errorf("found %q, want %s", paths, tt.want)
			}
		})
	}
}
