// Package lab builds what the tests run: the real Kubernetes, etcd and CoreDNS programs,
// container images of them, and a Debian root file system and VM image.
//
// Everything lies in a cache outside the checkout, in directories named by a hash of what they
// were made from. A function returns the directory of one artefact and builds it first if it
// is absent; it never returns one that is incomplete. It needs root only for what Debian's
// tools need root for (Rootfs, VMImage, Images, Labnet, Repository).
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// What the lab runs. The modules under test/artifacts name the same versions.
const (
	KubernetesVersion   = "v1.36.3"
	Containerd2Version  = "v2.4.2"
	Containerd17Version = "v1.7.35"
	CRIToolsVersion     = "v1.36.0"
)

// Kubernetes is the directory of kubeadm, kubelet, kubectl, kube-apiserver,
// kube-controller-manager, kube-scheduler and kube-proxy: links to one static binary.
func Kubernetes(ctx context.Context) (string, error) { return Build(ctx, "kubernetes") }

// Etcd is the directory of etcd, etcdctl and etcdutl.
func Etcd(ctx context.Context) (string, error) { return Build(ctx, "etcd") }

// Containerd2 is the directory of containerd, containerd-shim-runc-v2 and ctr of the newest
// series. There is no runc among them.
func Containerd2(ctx context.Context) (string, error) { return Build(ctx, "containerd2") }

// Containerd17 is Containerd2 of the last 1.x series.
func Containerd17(ctx context.Context) (string, error) { return Build(ctx, "containerd17") }

// Versitygw is the directory of versitygw, an S3 server whose objects are files in a directory.
func Versitygw(ctx context.Context) (string, error) { return Build(ctx, "versitygw") }

// Images is the directory of control-plane.tar (kube-apiserver, kube-controller-manager,
// kube-scheduler, etcd, pause), addons.tar (kube-proxy, coredns) and all.tar: docker archives
// of the images that `kubeadm config images list` names.
func Images(ctx context.Context) (string, error) { return Build(ctx, "images") }

// Labnet is the directory of labnet.tar, a docker archive of a network add-on's image.
func Labnet(ctx context.Context) (string, error) { return Build(ctx, "labnet") }

// Repository is a directory with two signed flat apt repositories, to be used as
// "file:DIR/kubernetes /" or served by any file server. kubernetes has kubeadm, kubelet and
// kubectl in KubernetesVersion and OlderKubernetesVersion, kubernetes-cni and cri-tools;
// debian has containerd.io and what the root file system lacks of Debian's. Their packages lie
// in amd64, their public keys in Release.key, and RepositoryKey reads the private ones.
func Repository(ctx context.Context) (string, error) { return Build(ctx, "repository") }

// Rootfs is a directory whose "rootfs" is the Debian system of the VM image, as a plain
// directory tree. Boot it under an overlay: it is shared and must not be written to.
func Rootfs(ctx context.Context) (string, error) { return Build(ctx, "rootfs") }

// VMImage is the directory of root.ext4, swap.img, vmlinuz and initrd.img. Boot it under
// overlays: it is shared and must not be written to.
func VMImage(ctx context.Context) (string, error) { return Build(ctx, "vm") }

// Names lists the artefacts in an order in which each comes after what it is made of.
func Names() []string {
	var names []string
	for _, a := range artefacts() {
		names = append(names, a.name)
	}
	return names
}

// Build returns the directory of the named artefact, and builds it if it is absent.
func Build(ctx context.Context, name string) (string, error) {
	all := artefacts()
	i := slices.IndexFunc(all, func(a artefact) bool { return a.name == name })
	if i < 0 {
		return "", fmt.Errorf("build artefact %q: no such artefact, one of %q", name, Names())
	}
	l, err := open(ctx)
	if err != nil {
		return "", fmt.Errorf("build artefact %q: %w", name, err)
	}
	return l.build(ctx, all[i])
}

// checkout finds the root of the project's source tree from the working directory, which
// for a test is the directory of its package.
func checkout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, "test", "lab", "lab.go"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the checkout: no test/lab/lab.go above %s", start)
		}
	}
}

func cacheDir() (string, error) {
	if dir := os.Getenv("NODEAGENT_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir() // XDG_CACHE_HOME or ~/.cache
	if err != nil {
		return "", fmt.Errorf("find the cache: %w: set NODEAGENT_LAB_CACHE", err)
	}
	return filepath.Join(dir, "nodeagent-lab"), nil
}
