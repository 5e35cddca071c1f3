package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// What kubeadm 1.36, the community's packages and add-ons leave, with the modes that they leave.
func TestNodeFiles(t *testing.T) {
	h := host.New(t.TempDir())
	files := map[string]struct{ have, want os.FileMode }{
		"/etc/kubernetes/manifests/kube-apiserver.yaml":                 {0o600, 0o600},
		"/etc/kubernetes/manifests/etcd.yaml":                           {0o644, 0o600},
		"/etc/kubernetes/admin.conf":                                    {0o600, 0o600},
		"/etc/kubernetes/kubelet.conf":                                  {0o640, 0o600},
		"/etc/kubernetes/cloud.conf":                                    {0o644, 0o644}, // a pod may read it
		"/etc/kubernetes/audit.yaml":                                    {0o644, 0o644},
		"/etc/kubernetes/pki/ca.crt":                                    {0o644, 0o644},
		"/etc/kubernetes/pki/apiserver.crt":                             {0o664, 0o644},
		"/etc/kubernetes/pki/ca.key":                                    {0o644, 0o600},
		"/etc/kubernetes/pki/etcd/ca.key":                               {0o444, 0o400},
		"/etc/cni/net.d/10-flannel.conflist":                            {0o644, 0o600},
		"/var/lib/kubelet/config.yaml":                                  {0o644, 0o600},
		"/var/lib/kubelet/instance-config.yaml":                         {0o644, 0o600},
		"/var/lib/kubelet/kubeadm-flags.env":                            {0o644, 0o600},
		"/usr/lib/systemd/system/kubelet.service":                       {0o644, 0o600},
		"/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf":     {0o644, 0o600},
		"/etc/systemd/system/kubelet.service.d/20-nodeagent-proxy.conf": {0o644, 0o600},
		"/usr/lib/systemd/system/containerd.service":                    {0o644, 0o644},
		"/elsewhere": {0o644, 0o644},
	}
	for path, mode := range files {
		put(t, h, path, "x", mode.have)
		if err := os.Chmod(filepath.Join(h.Root, path), mode.have); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	if err := h.MkdirAll("/var/lib/etcd", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.MkdirAll("/etc/cni/net.d/multus.d", 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, h, "/etc/kubernetes/linked.conf", "/elsewhere")
	link(t, h, "/etc/cni/net.d/00-linked.conf", "/elsewhere")
	link(t, h, "/etc/systemd/system/kubelet.service", "/dev/null")

	s := NodeFiles(h, KubeadmConfig{})
	changes, err := s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const first = `/etc/kubernetes/manifests/etcd.yaml: "mode 0644" → "mode 0600"`
	if len(changes) == 0 || changes[0].String() != first || changes[0].Disruptive {
		t.Errorf("got %v, want %s first", changes, first)
	}
	steptest.Converges(t, h, s)
	for path, mode := range files {
		if info, err := h.Lstat(path); err != nil || info.Mode().Perm() != mode.want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, mode.want)
		}
	}
	for dir, want := range map[string]os.FileMode{"/var/lib/etcd": 0o700, "/etc/cni/net.d/multus.d": 0o755} {
		if info, err := h.Lstat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
	if !Harmless(s.Name) {
		t.Error("drift leaves it")
	}
}

// A file of another user is not touched: that user needs it, or should not have it.
func TestNodeFilesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can give a file away")
		return
	}
	h := host.New(t.TempDir())
	put(t, h, "/etc/kubernetes/pki/sa.key", "x", 0o640)
	if err := os.Chown(filepath.Join(h.Root, "/etc/kubernetes/pki/sa.key"), 0, 4711); err != nil {
		t.Fatal(err)
	}
	results, err := step.Apply(t.Context(), []step.Step{NodeFiles(h, KubeadmConfig{})}, nil)
	if err != nil || results[0].Outcome != step.Clean {
		t.Errorf("%v, %v", results, err)
	}
	var findings []string
	for _, c := range results[0].Findings() {
		findings = append(findings, c.String())
	}
	const want = `/etc/kubernetes/pki/sa.key: "not root's" → "mode 0600, root:root: chown root:root /etc/kubernetes/pki/sa.key"`
	if diff := cmp.Diff([]string{want}, findings); diff != "" {
		t.Error(diff)
	}
	if info, err := h.Lstat("/etc/kubernetes/pki/sa.key"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
}

// The PKI lies where kubeadm is told to put it.
func TestNodeFilesOfAnotherPKI(t *testing.T) {
	h := host.New(t.TempDir())
	put(t, h, "/srv/pki/ca.key", "x", 0o644)
	changes, err := NodeFiles(h, KubeadmConfig{ClusterConfiguration: passthrough(t, "certificatesDir: /srv/pki")}).Check(t.Context())
	if err != nil || len(changes) != 1 || !strings.HasPrefix(changes[0].String(), "/srv/pki/ca.key: ") {
		t.Errorf("%v, %v", changes, err)
	}
}
