package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// The archives that Images makes. The whole is smaller than its parts together: a layer is in
// an archive once.
const (
	ControlPlaneImages = "control-plane.tar"
	AddonImages        = "addons.tar"
	AllImages          = "all.tar"
)

// imagesFormat is raised when the code below makes something else of the same inputs.
const imagesFormat = "images 2"

// images is the docker archives of what kubeadm wants, with the references kubeadm names.
func images() artefact {
	return artefact{
		name:   "images",
		needs:  []string{"kubernetes", "etcd", "coredns", "pause", "proxybase"},
		inputs: func(_ *lab, w io.Writer) error { _, err := fmt.Fprintln(w, imagesFormat); return err },
		make: func(ctx context.Context, l *lab, dir string, needs map[string]string) error {
			refs, err := l.imageRefs(ctx, needs["kubernetes"])
			if err != nil {
				return err
			}
			scratch, err := os.MkdirTemp(l.cache, ".layers-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			archives, err := layOut(scratch, refs, needs)
			if err != nil {
				return err
			}
			for name, images := range archives {
				if err := writeArchive(filepath.Join(dir, name), images); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// imageRefs asks kubeadm which images it wants; an explicit version keeps it off the network.
func (l *lab) imageRefs(ctx context.Context, kubernetes string) ([]string, error) {
	var out bytes.Buffer
	err := l.run(ctx, "", &out, nil, filepath.Join(kubernetes, "kubeadm"), "config", "images", "list", "--kubernetes-version", KubernetesVersion)
	return strings.Fields(out.String()), err
}

// layOut writes the layers into scratch and says which image goes into which archive. The
// programs of Kubernetes are one layer that four images have: imported and unpacked once.
func layOut(scratch string, refs []string, needs map[string]string) (map[string][]image, error) {
	layers := map[string]layer{}
	for name, entries := range map[string][]entry{
		"kubernetes": {
			{path: "usr/local/bin/kubernetes", source: filepath.Join(needs["kubernetes"], "kubernetes")},
			{path: "usr/local/bin/kube-apiserver", target: "kubernetes"},
			{path: "usr/local/bin/kube-controller-manager", target: "kubernetes"},
			{path: "usr/local/bin/kube-scheduler", target: "kubernetes"},
			{path: "usr/local/bin/kube-proxy", target: "kubernetes"},
		},
		"etcd": {
			{path: "usr/local/bin/etcd", source: filepath.Join(needs["etcd"], "etcd")},
			{path: "usr/local/bin/etcdctl", source: filepath.Join(needs["etcd"], "etcdctl")},
			{path: "usr/local/bin/etcdutl", source: filepath.Join(needs["etcd"], "etcdutl")},
		},
		"coredns": {{path: "coredns", source: filepath.Join(needs["coredns"], "coredns")}},
		"pause":   {{path: "pause", source: filepath.Join(needs["pause"], "pause")}},
	} {
		l, err := writeLayer(filepath.Join(scratch, name), entries)
		if err != nil {
			return nil, err
		}
		layers[name] = l
	}
	base, err := copyLayer(filepath.Join(scratch, "proxybase"), filepath.Join(needs["proxybase"], "rootfs.tar"))
	if err != nil {
		return nil, err
	}
	archives := map[string][]image{}
	for _, ref := range refs {
		name, _, _ := strings.Cut(path.Base(ref), ":")
		im, archive := image{ref: ref}, ControlPlaneImages
		switch name {
		case "kube-apiserver", "kube-controller-manager", "kube-scheduler":
			im.layers = []layer{layers["kubernetes"]}
		case "kube-proxy":
			im.layers, archive = []layer{base, layers["kubernetes"]}, AddonImages
		case "etcd":
			im.layers = []layer{layers["etcd"]}
		case "coredns":
			im.layers, im.entrypoint, archive = []layer{layers["coredns"]}, []string{"/coredns"}, AddonImages
		case "pause":
			im.layers, im.entrypoint, im.user = []layer{layers["pause"]}, []string{"/pause"}, "65535:65535"
		default:
			return nil, fmt.Errorf("kubeadm wants an image that the lab cannot make: %s", ref)
		}
		im.labels = map[string]string{"org.opencontainers.image.title": name}
		archives[archive] = append(archives[archive], im)
		archives[AllImages] = append(archives[AllImages], im)
	}
	return archives, nil
}

func copyLayer(file, source string) (layer, error) {
	in, err := os.Open(source)
	if err != nil {
		return layer{}, err
	}
	defer in.Close()
	return newLayer(file, func(w io.Writer) error { _, err := io.Copy(w, in); return err })
}
