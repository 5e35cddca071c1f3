package main

import (
	"context"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

// clusterFiles are what a restore on a new host needs beside the snapshot: the authorities, which
// every other certificate can be made anew with, the key that service accounts' tokens are signed
// with, and how the control plane was configured.
var clusterFiles = []string{
	"/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key",
	"/etc/kubernetes/pki/front-proxy-ca.crt", "/etc/kubernetes/pki/front-proxy-ca.key",
	"/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.key",
	"/etc/kubernetes/pki/sa.pub", "/etc/kubernetes/pki/sa.key",
	"/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf",
	bootstrap.ManifestDir, "/etc/nodeagent", "/var/lib/nodeagent/kubeadm.yaml",
}

// apiServerFlags name further files, wherever they lie: the encryption at rest, and what an external etcd is
// reached with, whose authority's key lies elsewhere.
var apiServerFlags = []string{"encryption-provider-config", "etcd-cafile", "etcd-certfile", "etcd-keyfile"}

// memberFiles are where a member that is a unit of its own finds its settings: Debian's package, Red Hat's, and
// kubespray. What its command line names is found by itself.
var memberFiles = []string{"/etc/default/etcd", "/etc/etcd/etcd.conf", "/etc/etcd.env"}

// filesBeside are what goes with the snapshot, encrypted, of the cluster and of the member on this host.
// What is not there is left out.
func (m *machine) filesBeside(ctx context.Context) ([]etcdbackup.File, error) {
	paths := slices.Clone(clusterFiles)
	member := m.cfg.Backup.Member()
	paths = append(paths, member.CAFile, member.CertFile, member.KeyFile)
	for _, flag := range apiServerFlags {
		file, err := kube.StaticPodFile(m.host, bootstrap.ManifestDir+"/kube-apiserver.yaml", flag)
		if err != nil {
			return nil, err
		}
		paths = append(paths, file)
	}
	local, missing := etcd.Find(ctx, m.host, member) // whoever connects to it says what is wrong with that
	if unit, is := strings.CutPrefix(local.Runs, "unit "); missing == nil && is {
		paths = append(append(paths, memberFiles...), "/etc/systemd/system/"+unit, "/etc/systemd/system/"+unit+".d")
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "" })
	files, err := etcdbackup.CollectFiles(m.host, paths)
	if err != nil || missing != nil {
		return onceEach(files), err
	}
	own, err := local.Files(m.host)
	if err != nil {
		return nil, err
	}
	for _, f := range own {
		files = append(files, etcdbackup.File(f))
	}
	return onceEach(files), nil
}

// onceEach are the first files of each path.
func onceEach(files []etcdbackup.File) []etcdbackup.File {
	seen := map[string]bool{}
	return slices.DeleteFunc(files, func(f etcdbackup.File) bool {
		was := seen[f.Path]
		seen[f.Path] = true
		return was
	})
}
