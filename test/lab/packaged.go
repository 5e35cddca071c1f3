package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// OlderKubernetesVersion is a second version in the repository, for pins and holds. Its
// packages hold the programs of KubernetesVersion, which say so when they are asked.
const OlderKubernetesVersion = "v1.36.2"

// minorVersion is "v1.36".
func minorVersion() string {
	return KubernetesVersion[:strings.LastIndex(KubernetesVersion, ".")]
}

const (
	kubernetesFields = "Maintainer: Kubernetes Authors <dev@kubernetes.io>\nHomepage: https://kubernetes.io\n"
	packedByLab      = "; packed by the test lab of nodeagent"
)

// kubernetesDebs are packages in the shape of the community's for this minor version: their
// Depends, files and scripts, as the specs in github.com/kubernetes/release make them. kubeadm
// depends on nothing any more, and the kubelet on few things.
func kubernetesDebs(needs, debian map[string]string) ([]Deb, error) {
	debs := []Deb{{
		Name: "cri-tools", Version: strings.TrimPrefix(CRIToolsVersion, "v") + "-1.1", Fields: "Section: admin\n" + kubernetesFields,
		Description: "Command-line utility for interacting with a container runtime" + packedByLab,
		Files:       []DebFile{program755("/usr/bin/crictl", needs["crictl"])},
	}}
	cni := Deb{
		Name: "kubernetes-cni", Version: "1.7.1-1.1", Fields: "Section: net\n" + kubernetesFields,
		Description: "Binaries required to provision kubernetes container networking; those of Debian's containernetworking-plugins" + packedByLab,
		Files:       []DebFile{{Path: "/etc/cni/net.d/.kubernetes-cni-keep"}},
	}
	const plugins = "usr/lib/cni"
	entries, err := os.ReadDir(filepath.Join(debian["containernetworking-plugins"], plugins))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		cni.Files = append(cni.Files, program755("/opt/cni/bin/"+e.Name(), filepath.Join(debian["containernetworking-plugins"], plugins)))
	}
	debs = append(debs, cni)
	for _, version := range []string{OlderKubernetesVersion, KubernetesVersion} {
		more, err := versionDebs(strings.TrimPrefix(version, "v")+"-1.1", needs["kubepackages"])
		if err != nil {
			return nil, err
		}
		debs = append(debs, more...)
	}
	return debs, nil
}

// versionDebs are the packages that each version has.
func versionDebs(version, programs string) ([]Deb, error) {
	unit, err := packageFile("kubelet.service")
	if err != nil {
		return nil, err
	}
	dropIn, err := packageFile("10-kubeadm.conf")
	if err != nil {
		return nil, err
	}
	content := "; holds " + KubernetesVersion + packedByLab
	return []Deb{{
		Name: "kubelet", Version: version,
		Fields:      "Section: net\nDepends: iptables (>= 1.4.21), kubernetes-cni (>= 1.2.0), mount, util-linux\n" + kubernetesFields,
		Description: "Node agent for Kubernetes clusters" + content,
		Files: []DebFile{
			program755("/usr/bin/kubelet", programs),
			{Path: "/usr/lib/systemd/system/kubelet.service", Content: unit},
			{Path: "/etc/default/kubelet", Content: "KUBELET_EXTRA_ARGS=\n", Config: true},
			{Path: "/etc/kubernetes/manifests/.kubelet-keep"},
			{Path: "/var/lib/kubelet/.kubelet-keep"},
		},
		// The preset, which on Debian enables what no file speaks of. Nothing is started.
		Scripts: map[string]string{
			"postinst": `if [ "$1" = configure ]; then systemctl preset kubelet.service >/dev/null 2>&1 || true; fi` + "\n",
			"prerm":    `if [ "$1" = remove ]; then systemctl --no-reload disable kubelet.service >/dev/null 2>&1 || true; systemctl stop kubelet.service >/dev/null 2>&1 || true; fi` + "\n",
			"postrm":   "systemctl daemon-reload >/dev/null 2>&1 || true\n",
		},
	}, {
		Name: "kubeadm", Version: version, Fields: "Section: admin\n" + kubernetesFields,
		Description: "Command-line utility for administering a Kubernetes cluster" + content,
		Files: []DebFile{
			program755("/usr/bin/kubeadm", programs),
			{Path: "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", Content: dropIn},
		},
	}, {
		Name: "kubectl", Version: version, Fields: "Section: admin\n" + kubernetesFields,
		Description: "Command-line utility for interacting with a Kubernetes cluster" + content,
		Files:       []DebFile{program755("/usr/bin/kubectl", programs)},
	}}, nil
}

// dockerDebs is containerd.io in the shape of Docker's, whose packaging is
// github.com/docker/containerd-packaging.
func dockerDebs(needs, debian map[string]string) ([]Deb, error) {
	unit, err := packageFile("containerd.service")
	if err != nil {
		return nil, err
	}
	config, err := packageFile("containerd.toml")
	if err != nil {
		return nil, err
	}
	d := Deb{
		Name: "containerd.io", Version: strings.TrimPrefix(Containerd2Version, "v") + "-1~debian.12~bookworm",
		Fields: "Section: devel\nMaintainer: Containerd team <help@containerd.io>\nDepends: libc6 (>= 2.34), libseccomp2 (>= 2.5.0), init-system-helpers (>= 1.50)\n" +
			"Conflicts: containerd, runc\nReplaces: containerd, runc\nProvides: containerd, runc\nHomepage: https://containerd.io\n",
		Description: "An open and reliable container runtime; with Debian's runc" + packedByLab,
		Files: []DebFile{
			{Path: "/usr/bin/runc", Source: filepath.Join(debian["runc"], "usr/sbin/runc"), Mode: 0o755},
			{Path: "/lib/systemd/system/containerd.service", Content: unit},
			{Path: "/etc/containerd/config.toml", Content: config, Config: true},
		},
		// What debhelper makes of a unit that is restarted after an upgrade.
		Scripts: map[string]string{
			"postinst": `[ "$1" = configure ] || exit 0
deb-systemd-helper unmask containerd.service >/dev/null || true
if deb-systemd-helper --quiet was-enabled containerd.service; then
	deb-systemd-helper enable containerd.service >/dev/null || true
else
	deb-systemd-helper update-state containerd.service >/dev/null || true
fi
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
	deb-systemd-invoke restart containerd.service >/dev/null || true
fi
`,
			"prerm": `if [ -d /run/systemd/system ] && [ "$1" = remove ]; then deb-systemd-invoke stop containerd.service >/dev/null || true; fi` + "\n",
			"postrm": `if [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; fi
if [ "$1" = purge ] && [ -x /usr/bin/deb-systemd-helper ]; then deb-systemd-helper purge containerd.service >/dev/null || true; fi
`,
		},
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		d.Files = append(d.Files, program755("/usr/bin/"+name, needs["containerd2"]))
	}
	return []Deb{d}, nil
}

// program755 is a program that has the same name in the package and in the directory.
func program755(path, dir string) DebFile {
	return DebFile{Path: path, Source: filepath.Join(dir, filepath.Base(path)), Mode: 0o755}
}

func packageFile(name string) (string, error) {
	content, err := packageFiles.ReadFile("packages/" + name)
	if err != nil {
		return "", fmt.Errorf("read file of a package: %w", err)
	}
	return string(content), nil
}
