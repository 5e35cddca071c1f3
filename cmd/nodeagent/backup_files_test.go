package main

import (
	"slices"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
)

// rke2#6281: a snapshot alone does not do on a new node. What kube-apiserver reaches an external etcd with goes
// with it, wherever that lies, and so do the member's own files; without recipients nothing does.
func TestFilesOfAnExternalEtcd(t *testing.T) {
	const key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	for text, encrypted := range map[string]bool{
		"backup: {recipients: [" + key + "], caFile: /o/ca.crt}\n": true,
		"backup: {caFile: /o/ca.crt}\n":                            false,
	} {
		h := scratch(t, "role: control-plane\n"+text)
		member, err := etcdtest.Start(h, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = member.Close() }()
		write(t, h, "/etc/kubernetes/manifests/kube-apiserver.yaml", `
spec:
  containers:
  - command: [kube-apiserver, --etcd-cafile=/in/ca.crt, --etcd-certfile=/in/client.crt, --etcd-keyfile=/srv/client.key]
    volumeMounts: [{name: etcd, mountPath: /in}]
  volumes: [{name: etcd, hostPath: {path: /srv/etcd}}]
`)
		want := []string{"/srv/etcd/ca.crt", "/srv/etcd/client.crt", "/srv/client.key", "/o/ca.crt"}
		for _, path := range want {
			write(t, h, path, "of "+path)
		}
		cfg, err := (&app{configPath: config.DefaultPath, root: h.Root}).loadConfig(h)
		if err != nil {
			t.Fatal(err)
		}
		m, err := newMachine(h, cfg)
		if err != nil {
			t.Fatal(err)
		}
		req, err := m.backupRequest(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range req.Files {
			got = append(got, f.Path)
		}
		for _, path := range append(want, "/etc/kubernetes/pki/etcd/ca.crt") {
			if slices.Contains(got, path) != encrypted {
				t.Errorf("%s: %s is not as it should be among %q", text, path, got)
			}
		}
	}
}
