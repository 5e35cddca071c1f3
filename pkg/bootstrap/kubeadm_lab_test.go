package bootstrap

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// lab is a host, its systemd and its API, as far as the steps of kubeadm and "kubelet" see
// them. What a phase of kubeadm leaves there has its shape; the real kubeadm is in
// test/integration/controlplane.
type lab struct {
	*host.Host
	commands []string // that were run
	refuse   string   // the command that fails

	mu     sync.Mutex // of units and gone, which a kubeadm changes that goes on by itself
	units  map[string]systemd.State
	asked  []string // of systemd
	ran    []systemd.Transient
	runErr map[string]error // by unit

	made     string          // a tree with what kubeadm makes
	notReady int             // so many answers of the API are that it is not ready
	gone     map[string]bool // what the API does not have
	adopted  bool            // the host is not the agent's to build
	partial  bool            // the operator leaves steps out

	foreign    bool
	foreignErr error
	probed     []string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{units: map[string]systemd.State{}, gone: map[string]bool{}, runErr: map[string]error{}, made: t.TempDir()}
	l.Host = &host.Host{Root: t.TempDir(), Exec: l.exec}
	put(t, l.Host, "/usr/bin/kubeadm", "", 0o755)
	put(t, l.Host, "/proc/sys/kernel/random/boot_id", "first-boot\n", 0o444)
	if err := certstest.Write(l.made, certstest.Options{Now: time.Now(), Address: net.IPv4(192, 0, 2, 10)}); err != nil {
		t.Fatal(err)
	}
	for _, path := range objectPaths {
		l.gone[path] = true
	}
	return l
}

// objectPaths are what kubeadm leaves in the API, by its phase.
var objectPaths = map[string]string{
	"upload-config": "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
	"upload":        "/api/v1/namespaces/kube-system/configmaps/kubelet-config",
	"bootstrap":     "/api/v1/namespaces/kube-public/configmaps/cluster-info",
	"kube-proxy":    "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
	"coredns":       "/apis/apps/v1/namespaces/kube-system/deployments/coredns",
	"mark":          "the node's label",
}

func (l *lab) exec(_ context.Context, c host.Command) ([]byte, error) {
	l.commands = append(l.commands, c.String())
	if l.refuse != "" && strings.Contains(c.String(), l.refuse) {
		return nil, &host.CommandError{Command: c, Code: 1, Stderr: "unknown field", Err: errors.New("exit status 1")}
	}
	if c.String() == "kubeadm version -o short" {
		return []byte("v1.36.3\n"), nil
	}
	return nil, nil
}

func (l *lab) State(_ context.Context, unit string) (systemd.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.units[unit], nil
}

// set sets the state of a unit.
func (l *lab) set(unit string, s systemd.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.units[unit] = s
}

func (l *lab) Enable(_ context.Context, unit string) error {
	l.asked = append(l.asked, "enable "+unit)
	s := l.units[unit]
	s.UnitFileState = "enabled"
	l.units[unit] = s
	return nil
}

func (l *lab) Start(_ context.Context, unit string) error {
	l.asked = append(l.asked, "start "+unit)
	s := l.units[unit]
	s.ActiveState = "active"
	l.units[unit] = s
	return nil
}

// RunTransient prints a token, and leaves what the phase would. A whole init runs in a goroutine's
// stead: it is at its end when it is first waited for.
func (l *lab) RunTransient(_ context.Context, t systemd.Transient) (systemd.Result, error) {
	l.ran = append(l.ran, t)
	delete(l.units, t.Unit)
	if err := l.WriteFile(t.LogFile, []byte("[x] Using token: abcdef.0123456789abcdef\n"), 0o600); err != nil {
		return systemd.Result{}, err
	}
	if err := l.runErr[t.Unit]; err != nil {
		return systemd.Result{}, err
	}
	skipped, whole := strings.CutPrefix(t.Argv[2], "--skip-phases=")
	if !whole {
		return systemd.Result{Result: "success"}, l.phase(t.Argv[3], t.Argv[4:])
	}
	skip := strings.Split(skipped, ",")
	for _, name := range slices.Concat(earlierPhases(), clusterPhases(), otherPhases()) {
		if slices.Contains(skip, name) {
			continue
		}
		part := "all"
		switch name {
		case "addon":
			if slices.Contains(skip, "addon/coredns") {
				part = "kube-proxy"
			} else if slices.Contains(skip, "addon/kube-proxy") {
				part = "coredns"
			}
		}
		if err := l.phase(name, []string{part}); err != nil {
			return systemd.Result{}, err
		}
	}
	return systemd.Result{Result: "success"}, nil
}

func (l *lab) phase(name string, args []string) error {
	switch name {
	case "certs":
		return l.copyMade("etc/kubernetes/pki", stagedPKI)
	case "kubeconfig":
		return l.copyMade("etc/kubernetes", stagedKubeconfigs)
	case "etcd":
		return l.manifests("etcd")
	case "control-plane":
		return l.manifests("kube-apiserver", "kube-controller-manager", "kube-scheduler")
	case "kubelet-start":
		l.set(kubeletUnit, systemd.State{LoadState: "loaded", UnitFileState: "enabled", ActiveState: "active"})
		return errors.Join(
			l.WriteFile(kubeletConfig, []byte("kind: KubeletConfiguration\n"), 0o600),
			l.WriteFile("/var/lib/kubelet/kubeadm-flags.env", []byte("KUBELET_KUBEADM_ARGS=\n"), 0o600))
	case "kubelet-finalize":
		return l.WriteFile(KubeletConf, []byte("clusters: [{cluster: {server: s}}]\nusers: [{user: {client-certificate: /c, client-key: /k}}]\n"), 0o600)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, word := range slices.Concat(args, strings.Split(name, "-"), []string{name}) {
		delete(l.gone, objectPaths[word])
	}
	if name == "addon" && args[0] == "all" {
		delete(l.gone, objectPaths["coredns"])
		delete(l.gone, objectPaths["kube-proxy"])
	}
	return nil
}

// copyMade copies what kubeadm makes into dir, but for what is there already and directories'
// directories.
func (l *lab) copyMade(from, dir string) error {
	source := filepath.Join(l.made, from)
	return filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil || dir == stagedKubeconfigs && filepath.Dir(rel) != "." {
			return err
		}
		target := filepath.Join(dir, rel)
		if there, err := l.Exists(target); err != nil || there {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return l.WriteFile(target, data, 0o600)
	})
}

func (l *lab) manifests(pods ...string) error {
	for _, pod := range pods {
		text := "kind: Pod\nspec: {containers: [{command: [" + pod + "]}], volumes: [{name: pki}]}\n"
		if err := l.WriteFile(ManifestDir+"/"+pod+".yaml", []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// api is the lab's API.
type api struct{ *lab }

func (l api) Ready(context.Context) error {
	if l.notReady > 0 {
		l.notReady--
		return errors.New("connection refused")
	}
	return nil
}

func (l api) Exists(_ context.Context, path string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.gone[path], nil
}

func (l api) Node(_ context.Context, name string) (kube.Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone[objectPaths["mark"]] {
		return kube.Node{Name: name}, nil
	}
	return kube.Node{Name: name, Labels: map[string]string{controlPlaneLabel: ""}}, nil
}

func (l *lab) Foreign(_ context.Context, endpoint string) (bool, error) {
	l.probed = append(l.probed, endpoint)
	return l.foreign, l.foreignErr
}

func (l *lab) init(kubeadm KubeadmConfig) Init {
	return Init{
		Host: l.Host, Units: l, Minor: "1.36",
		Cluster:  Cluster{NodeName: "node-1", Network: NetworkConfig{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"}, Kubeadm: kubeadm},
		Address:  func(context.Context) (netip.Addr, error) { return netip.MustParseAddr("192.0.2.10"), nil },
		Connect:  func() (API, error) { return api{l}, nil },
		Foreign:  l.Foreign,
		Building: func() (bool, error) { return !l.adopted, nil },
		Whole:    func() bool { return !l.partial },
		Timeouts: DefaultTimeouts(),
	}
}

// allPhases are the steps of kubeadm in their order.
func allPhases(i Init) []step.Step {
	return []step.Step{
		KubeadmConfigFile(i), KubeadmPreflight(i), Certificates(i), Kubeconfigs(i), LocalEtcd(i), ControlPlaneManifests(i), KubeletStart(i),
		WaitControlPlane(i), UploadConfig(i), MarkControlPlane(i), JoinToken(i), KubeletFinalize(i), AddOn(i),
	}
}

// complete is a lab whose control plane has been made.
func complete(t *testing.T, l *lab, kubeadm KubeadmConfig) {
	t.Helper()
	if _, err := step.Apply(t.Context(), allPhases(l.init(kubeadm)), nil); err != nil {
		t.Fatal(err)
	}
	l.ran, l.commands = nil, nil
}

func passthrough(t testing.TB, text string) Passthrough {
	t.Helper()
	p, err := NewPassthrough(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wantError fails unless err says all of words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want an error that says %q", err, word)
		}
	}
}
