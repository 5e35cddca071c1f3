//go:build integration

package controlplane_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
	"github.com/nodeagent/nodeagent/test/controlplane"
	"github.com/nodeagent/nodeagent/test/crash"
)

// children stands for systemd, which does not run in the namespace: a transient unit is a child,
// killed at its nth change of the machine if that is not 0, and the kubelet runs.
type children struct {
	kill    int
	killed  bool
	partial bool // the operator leaves steps out
	ran     []string
}

func (*children) State(context.Context, string) (systemd.State, error) {
	return systemd.State{LoadState: "loaded", ActiveState: "active", UnitFileState: "enabled", SubState: "dead"}, nil
}
func (*children) Enable(context.Context, string) error { return nil }
func (*children) Start(context.Context, string) error  { return nil }

func (c *children) RunTransient(ctx context.Context, t systemd.Transient) (systemd.Result, error) {
	c.ran = append(c.ran, strings.TrimPrefix(t.Unit, "nodeagent-kubeadm-"))
	ended, err := crash.Run(ctx, crash.Command{Args: t.Argv, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}, c.kill)
	if err != nil {
		return systemd.Result{}, err
	}
	if err := os.WriteFile(t.LogFile, []byte(ended.Output), 0o600); err != nil {
		return systemd.Result{}, err
	}
	c.killed = c.killed || ended.Killed
	r := systemd.Result{Code: ended.ExitCode, Result: "success"}
	if ended.ExitCode != 0 || ended.Killed {
		r.Result = "exit-code"
		return r, &systemd.UnitError{Unit: t.Unit, LogFile: t.LogFile, Result: r}
	}
	return r, nil
}

// phases are the steps of kubeadm on a host with nothing of a cluster.
func phases(t *testing.T, units *children, building bool) (bootstrap.Init, *host.Host) {
	t.Helper()
	h := host.New("/")
	config := bootstrap.KubeadmConfig{Hardening: bootstrap.DefaultHardening()}
	var err error
	if config.ClusterConfiguration, err = bootstrap.NewPassthrough("encryptionAlgorithm: ECDSA-P256\ncertificatesDir: /etc/kubernetes/pki\n"); err != nil {
		t.Fatal(err)
	}
	return bootstrap.Init{
		Host: h, Units: units, Minor: "1.36",
		Cluster: bootstrap.Cluster{
			NodeName: controlplane.NodeName, Kubeadm: config,
			Network: bootstrap.NetworkConfig{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"},
		},
		Address:  func(context.Context) (netip.Addr, error) { return netip.MustParseAddr(controlplane.Address), nil },
		Connect:  func() (bootstrap.API, error) { return kube.Connect(h, bootstrap.AdminConf) },
		Building: func() (bool, error) { return building, nil },
		Timeouts: bootstrap.DefaultTimeouts(),
		Whole:    func() bool { return !units.partial },
	}, h
}

// empty removes what an earlier test left, and puts kubeadm where it is looked for.
func empty(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/etc/kubernetes", controlplane.EtcdDataDir, "/var/lib/nodeagent", "/var/lib/kubelet"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	const programs = "/usr/local/sbin" // of this namespace only
	if err := unix.Mount("tmpfs", programs, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(programs, 0) })
	if err := os.Symlink(controlplane.Program("kubeadm"), programs+"/kubeadm"); err != nil {
		t.Fatal(err)
	}
}

// files are the regular files below a directory, by mode.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		list = append(list, fmt.Sprint(path, " ", info.Mode().Perm()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func apply(t *testing.T, steps ...step.Step) []step.Result {
	t.Helper()
	results, err := step.Apply(t.Context(), steps, nil)
	if err != nil {
		log, _ := os.ReadFile("/var/log/nodeagent/kubeadm.log")
		t.Fatalf("%v\n%s", err, log)
	}
	return results
}

// The phases, one by one, leave what `kubeadm init phase` leaves, and a second look finds
// nothing to do. A complete cluster is never given what it lacks.
func TestPhases(t *testing.T) {
	reference := controlplane.New(t)
	want := files(t, "/etc/kubernetes")
	empty(t)
	units := &children{}
	i, h := phases(t, units, true)
	apply(t, bootstrap.KubeadmConfigFile(i), bootstrap.Certificates(i), bootstrap.Kubeconfigs(i), bootstrap.LocalEtcd(i), bootstrap.ControlPlaneManifests(i))
	if got := files(t, "/etc/kubernetes"); !slices.Equal(got, want) {
		t.Errorf("the steps leave\n%s\nkubeadm\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// What a killed agent leaves of what is complete.
	for _, name := range []string{"certs.yaml", "etcd.out"} {
		if err := h.WriteFile("/var/lib/nodeagent/kubeadm/"+name, []byte("token abcdef.0123456789abcdef of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, bootstrap.Certificates(i), bootstrap.LocalEtcd(i))
	if log, err := h.ReadFile("/var/log/nodeagent/kubeadm.log"); err != nil || !strings.HasSuffix(string(log), "\ntoken abcdef[redacted] of etcd.out\n") {
		t.Errorf("the log says %s, %v", log, err)
	}
	if left, err := h.ReadDir("/var/lib/nodeagent/kubeadm"); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	reference.StartEtcd(t)
	reference.StartAPIServer(t)
	if err := h.WriteFile("/var/lib/kubelet/config.yaml", []byte("kind: KubeletConfiguration\n"), 0o600); err != nil {
		t.Fatal(err) // kubelet-start is for the VM
	}
	client, err := kube.Connect(h, controlplane.SuperAdmin)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ApplyManifests(t.Context(), parse(t, node)); err != nil {
		t.Fatal(err)
	}
	// As a kubelet registers it; kubeadm waits for that, and its end is silent when it does not come.
	reference.Kubectl(t, "label", "node", controlplane.NodeName, "kubernetes.io/hostname="+controlplane.NodeName)
	inTheCluster(t, reference, i, units)
	second := apply(t, bootstrap.KubeadmConfigFile(i), bootstrap.Certificates(i), bootstrap.Kubeconfigs(i))
	for _, r := range second {
		if r.Outcome != step.Clean {
			t.Errorf("a second time, %s: %s", r.Step, r.Outcome)
		}
	}
	tokens := reference.Kubectl(t, "get", "secret", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token", "-o", "name")
	if strings.Count(tokens, "secret/") != 1 {
		t.Errorf("there are tokens: %s", tokens)
	}
	log, err := h.ReadFile("/var/log/nodeagent/kubeadm.log")
	if err != nil || !strings.Contains(string(log), "[redacted]") || tokenIn(t, h) == "" || strings.Contains(string(log), tokenIn(t, h)) {
		t.Errorf("%v: the log holds the token, or none was printed:\n%s", err, log)
	}
	neverGiven(t, reference)
}

// inTheCluster: one kubeadm runs the phases that are missing and those after them, and where steps
// are left out each is run by itself.
func inTheCluster(t *testing.T, c *controlplane.ControlPlane, i bootstrap.Init, units *children) {
	t.Helper()
	later := []step.Step{
		bootstrap.WaitControlPlane(i), bootstrap.UploadConfig(i), bootstrap.MarkControlPlane(i), bootstrap.JoinToken(i), bootstrap.AddOn(i),
	}
	// The last thing that a phase makes: it may have been ended before that.
	takes := func() {
		c.Kubectl(t, "delete", "rolebinding", "-n", "kube-public", "kubeadm:bootstrap-signer-clusterinfo")
		c.Kubectl(t, "delete", "daemonset", "-n", "kube-system", "kube-proxy")
	}
	for _, test := range []struct {
		name    string
		arrange func()
		partial bool
		ran     string
	}{
		{"all of them", func() {}, false, "cluster.service"},
		{"nothing", func() {}, false, ""},
		{"two", takes, false, "cluster.service"},
		{"two, by themselves", takes, true, "bootstrap-token.service addon.service"},
	} {
		test.arrange()
		units.ran, units.partial = nil, test.partial
		apply(t, later...)
		if ran := strings.Join(units.ran, " "); ran != test.ran {
			t.Errorf("%s missing: ran %q, want %q", test.name, ran, test.ran)
		}
		for _, r := range step.Plan(t.Context(), later, nil) {
			if r.Outcome != step.Clean {
				t.Errorf("%s missing: afterwards %s: %s %v", test.name, r.Step, r.Outcome, r.Changes)
			}
		}
	}
	// What the cluster is told of itself: an add-on that was skipped would be one that is not wanted.
	if config := c.Kubectl(t, "get", "configmap", "-n", "kube-system", "kubeadm-config", "-o", "yaml"); strings.Contains(config, "disabled: true") || !strings.Contains(config, "encryptionAlgorithm: ECDSA-P256") {
		t.Errorf("the cluster has\n%s", config)
	}
	log, err := i.Host.ReadFile("/var/log/nodeagent/kubeadm.log")
	for _, begins := range []string{"[upload-config]", "[mark-control-plane]", "[bootstrap-token]", "[addons]"} {
		if !strings.Contains(string(log), "\n"+begins) {
			t.Errorf("%v: no line begins with %s, by which a step knows that kubeadm is past it:\n%s", err, begins, log)
		}
	}
	// All of kubeadm's phases are in the agent's lists: one that is not would be run with the others.
	const all = "preflight certs kubeconfig etcd control-plane kubelet-start wait-control-plane upload-config upload-certs mark-control-plane bootstrap-token kubelet-finalize addon show-join-command"
	var phases []string
	_, help, _ := strings.Cut(controlplane.Run(t, "kubeadm", "init", "--help"), "```")
	help, _, _ = strings.Cut(help, "```")
	for line := range strings.Lines(help) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" && !strings.HasPrefix(name, "/") {
			phases = append(phases, name)
		}
	}
	if got := strings.Join(phases, " "); got != all {
		t.Errorf("kubeadm has the phases %s", got)
	}
}

// tokenIn is the token in the configuration that kubeadm was given.
func tokenIn(t *testing.T, h *host.Host) string {
	t.Helper()
	data, err := h.ReadFile("/var/lib/nodeagent/kubeadm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "token: ")
	token, _, _ := strings.Cut(rest, "\n")
	return token
}

// neverGiven takes parts of a complete cluster away: what is missing is told, with the command
// that makes it, and left to a person.
func neverGiven(t *testing.T, c *controlplane.ControlPlane) {
	t.Helper()
	c.Kubectl(t, "delete", "deployment", "-n", "kube-system", "coredns")
	for _, path := range []string{"/etc/kubernetes/scheduler.conf", "/etc/kubernetes/pki/apiserver-kubelet-client.crt", "/etc/kubernetes/pki/apiserver-kubelet-client.key"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	i, _ := phases(t, &children{}, false)
	for _, s := range []step.Step{bootstrap.Certificates(i), bootstrap.Kubeconfigs(i), bootstrap.AddOn(i)} {
		r := apply(t, s)[0]
		if r.Outcome != step.Clean || len(r.Findings()) != 1 || !strings.Contains(r.Findings()[0].Want, "kubeadm init phase "+strings.TrimPrefix(s.Name, "kubeadm/")) {
			t.Errorf("%s: %s %v", s.Name, r.Outcome, r.Changes)
		}
	}
	if out := c.Kubectl(t, "get", "deployment", "-n", "kube-system", "-o", "name"); out != "" {
		t.Errorf("made again: %s", out)
	}
}

// everyNth says which share of the points at which kubeadm can be killed is tried: 1 for all.
const everyNth = "NODEAGENT_CRASH_EVERY"

// kubeadm killed anywhere in the phases that write files: the steps, run again, end as if nothing
// had been, and an operator's own CA is the one that signs.
func TestPhasesKilled(t *testing.T) {
	controlplane.New(t)
	want := files(t, "/etc/kubernetes")
	order := []string{"certs", "kubeconfig", "etcd", "control-plane"}
	for name, stride := range map[string]int{"certs": 5, "kubeconfig": 2, "etcd": 2, "control-plane": 3} {
		if text := os.Getenv(everyNth); text != "" {
			var err error
			if stride, err = strconv.Atoi(text); err != nil || stride < 1 {
				t.Fatalf("%s is %q", everyNth, text)
			}
		}
		t.Run(name, func(t *testing.T) {
			points, at := 0, slices.Index(order, name)
			for n := 1; ; n += stride {
				empty(t)
				units := &children{}
				i, h := phases(t, units, true)
				bringCA(t, h)
				own, err := h.ReadFile("/etc/kubernetes/pki/ca.key")
				if err != nil {
					t.Fatal(err)
				}
				apply(t, bootstrap.KubeadmConfigFile(i))
				steps := []step.Step{bootstrap.Certificates(i), bootstrap.Kubeconfigs(i), bootstrap.LocalEtcd(i), bootstrap.ControlPlaneManifests(i)}
				apply(t, steps[:at]...)
				units.kill = n
				_, err = step.Apply(t.Context(), steps[:at+1], nil)
				if !units.killed {
					if err != nil {
						t.Error(err)
					}
					break
				}
				points++
				var failed *systemd.UnitError
				if !errors.As(err, &failed) {
					t.Errorf("killed at %d: %v", n, err)
				}
				units.kill = 0
				apply(t, steps...)
				if now, err := h.ReadFile("/etc/kubernetes/pki/ca.key"); err != nil || string(now) != string(own) {
					t.Errorf("killed at %d: the operator's CA is another: %v", n, err)
				}
				if left, err := h.ReadDir("/var/lib/nodeagent/kubeadm"); err != nil || len(left) > 0 {
					t.Errorf("killed at %d: left over: %v, %v", n, left, err)
				}
				if got := files(t, "/etc/kubernetes"); !slices.Equal(got, want) {
					t.Errorf("killed at %d: the steps leave\n%s\nkubeadm\n%s", n, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				for _, r := range step.Plan(t.Context(), steps, nil) {
					if r.Outcome != step.Clean {
						t.Errorf("killed at %d: afterwards %s: %s %v %v", n, r.Step, r.Outcome, r.Changes, r.Err)
					}
				}
			}
			if points < 2 {
				t.Errorf("%d kills only", points)
			}
			t.Logf("%d kills", points)
		})
	}
}

// bringCA is an operator's own CA, made in time.
func bringCA(t *testing.T, h *host.Host) {
	t.Helper()
	const staged = "/run/own-ca"
	if _, err := os.Stat(staged + "/ca.key"); errors.Is(err, fs.ErrNotExist) {
		config := strings.Replace(controlplane.KubeadmConfig, "kubernetesVersion:", "certificatesDir: "+staged+"\nkubernetesVersion:", 1)
		if err := os.WriteFile("/run/own-ca.yaml", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		controlplane.Run(t, "kubeadm", "init", "phase", "certs", "ca", "--config", "/run/own-ca.yaml")
	}
	for name, mode := range map[string]fs.FileMode{"ca.crt": 0o644, "ca.key": 0o600} {
		data, err := os.ReadFile(filepath.Join(staged, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.MkdirAll("/etc/kubernetes/pki", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile("/etc/kubernetes/pki/"+name, data, mode); err != nil {
			t.Fatal(err)
		}
	}
}
