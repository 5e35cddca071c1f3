package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// lab is a host, its systemd and its API, as far as "kubeadm/init" and "kubelet" see them.
type lab struct {
	*host.Host
	commands []string // that were run
	refuse   string   // the command that fails

	units  map[string]systemd.State
	asked  []string // of systemd
	ran    []systemd.Transient
	runErr error

	notReady int             // so many answers of the API are that it is not ready
	gone     map[string]bool // what the API does not have

	foreign    bool
	foreignErr error
	probed     []string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{units: map[string]systemd.State{}, gone: map[string]bool{}}
	l.Host = &host.Host{Root: t.TempDir(), Exec: l.exec}
	put(t, l.Host, "/usr/bin/kubeadm", "", 0o755)
	return l
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
	return l.units[unit], nil
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

// RunTransient leaves what `kubeadm init` would.
func (l *lab) RunTransient(_ context.Context, t systemd.Transient) (systemd.Result, error) {
	l.ran = append(l.ran, t)
	delete(l.units, t.Unit)
	if l.runErr != nil {
		return systemd.Result{}, l.runErr
	}
	return systemd.Result{Result: "success"}, l.initialized()
}

func (l *lab) initialized() error {
	for _, path := range initFiles {
		if err := l.WriteFile(path, []byte("made by init\n"), 0o600); err != nil {
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

func (l api) Exists(_ context.Context, path string) (bool, error) { return !l.gone[path], nil }

func (l *lab) Foreign(_ context.Context, endpoint string) (bool, error) {
	l.probed = append(l.probed, endpoint)
	return l.foreign, l.foreignErr
}

func (l *lab) init(kubeadm KubeadmConfig) Init {
	return Init{
		Host: l.Host, Units: l, Minor: "1.36",
		Cluster: Cluster{NodeName: "node-1", Network: NetworkConfig{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"}, Kubeadm: kubeadm},
		Address: func(context.Context) (netip.Addr, error) { return netip.MustParseAddr("192.0.2.10"), nil },
		Connect: func() (API, error) { return api{l}, nil },
		Foreign: l.Foreign,
	}
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

// On a host without a control plane init runs once, as one transient unit, with exactly these
// arguments and a configuration that nobody else can read.
func TestInitAbsent(t *testing.T) {
	l := newLab(t)
	put(t, l.Host, "/etc/kubernetes/pki/ca.crt", "brought along", 0o644)
	if err := l.MkdirAll(etcdDataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	steptest.Converges(t, l.Host, KubeadmInit(l.init(KubeadmConfig{ControlPlaneEndpoint: "api.example.com:6443"})))

	want := []systemd.Transient{{
		Unit: "nodeagent-kubeadm-init.service", Description: "kubeadm init, run by nodeagent",
		Argv:    []string{"/usr/bin/kubeadm", "init", "--config", "/var/lib/nodeagent/kubeadm.yaml", "--skip-phases=show-join-command", "--skip-token-print"},
		LogFile: "/var/log/nodeagent/kubeadm-init.log", Timeout: 30 * time.Minute,
	}}
	if diff := cmp.Diff(want, l.ran); diff != "" {
		t.Error(diff)
	}
	info, err := l.Stat(kubeadmFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", kubeadmFile, info.Mode(), err)
	}
	if want := []string{"kubeadm version -o short", "kubeadm config validate --config /var/lib/nodeagent/kubeadm.yaml"}; !slices.Equal(l.commands, want) {
		t.Errorf("ran %q, want %q", l.commands, want)
	}
	if want := []string{"api.example.com:6443"}; !slices.Equal(l.probed, want) {
		t.Errorf("asked who answers at %q, want %q", l.probed, want)
	}
	if info, err := l.Stat("/var/log/nodeagent"); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
}

// Init is refused where it could cost a cluster, and nothing is changed.
func TestInitRefused(t *testing.T) {
	tests := map[string]struct {
		arrange  func(t *testing.T, l *lab)
		endpoint string
		want     []string
	}{
		"etcd data": {func(t *testing.T, l *lab) { put(t, l.Host, "/var/lib/etcd/member/snap/db", "x", 0o600) }, "",
			[]string{"refuse kubeadm init: /var/lib/etcd is not empty (member is there)", "restore it, or move it away"}},
		"etcd data and a hidden file only": {func(t *testing.T, l *lab) { put(t, l.Host, "/var/lib/etcd/.keep", "", 0o600) }, "",
			[]string{"(.keep is there)"}},
		"etcd's directory is a file": {func(t *testing.T, l *lab) { put(t, l.Host, "/var/lib/etcd", "", 0o600) }, "",
			[]string{"look for etcd data", "not a directory"}},
		"another cluster": {func(_ *testing.T, l *lab) { l.foreign = true }, "api.example.com",
			[]string{"refuse kubeadm init: a cluster answers at controlPlaneEndpoint api.example.com already"}},
		"cannot tell": {func(_ *testing.T, l *lab) { l.foreignErr = errors.New("server misbehaving") }, "api.example.com:443",
			[]string{"ask whether api.example.com:443 is another cluster's: server misbehaving"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			test.arrange(t, l)
			results, err := step.Apply(t.Context(), []step.Step{KubeadmInit(l.init(KubeadmConfig{ControlPlaneEndpoint: test.endpoint}))}, nil)
			wantError(t, err, test.want...)
			if len(l.ran)+len(l.commands) > 0 || results[0].Outcome != step.Failed {
				t.Errorf("%s, ran %v %v", results[0].Outcome, l.ran, l.commands)
			}
		})
	}
}

// A control plane of which a part is missing is named, with what mends it, and never made again.
func TestInitHalfDone(t *testing.T) {
	for _, path := range initFiles {
		for _, empty := range []bool{false, true} {
			name := path
			if empty {
				name += " (empty)"
			}
			t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
				l := newLab(t)
				if err := l.initialized(); err != nil {
					t.Fatal(err)
				}
				if empty {
					put(t, l.Host, path, "", 0o600)
				} else if err := l.Remove(path); err != nil {
					t.Fatal(err)
				}
				put(t, l.Host, "/var/lib/etcd/member/snap/db", "x", 0o600)
				_, err := step.Apply(t.Context(), []step.Step{KubeadmInit(l.init(KubeadmConfig{}))}, nil)
				wantError(t, err, "control plane is half-done", "is there, "+name+" is not;", kubeadmLog, "`kubeadm reset -f`")
				if len(l.ran) > 0 {
					t.Error("init was run over it")
				}
			})
		}
	}
}

// The unit of an agent that was killed meanwhile is adopted, whatever it has left so far.
func TestInitRunning(t *testing.T) {
	for _, sub := range []string{"running", "start"} {
		l := newLab(t)
		l.units[kubeadmUnit] = systemd.State{LoadState: "loaded", ActiveState: "active", SubState: sub}
		put(t, l.Host, "/var/lib/etcd/member/snap/db", "x", 0o600)
		put(t, l.Host, AdminConf, "x", 0o600)
		results, err := step.Apply(t.Context(), []step.Step{KubeadmInit(l.init(KubeadmConfig{}))}, nil)
		if err != nil || results[0].Outcome != step.Applied || len(l.ran) != 1 {
			t.Errorf("%s: %v, %v, adopted %d", sub, results, err, len(l.ran))
		}
	}
	// One that ended is not running.
	l := newLab(t)
	l.units[kubeadmUnit] = systemd.State{LoadState: "loaded", ActiveState: "failed", SubState: "failed"}
	changes, err := KubeadmInit(l.init(KubeadmConfig{})).Check(t.Context())
	if err != nil || len(changes) != 1 || changes[0].Have != "absent" {
		t.Errorf("%v, %v", changes, err)
	}
}

func TestInitFails(t *testing.T) {
	failed := &systemd.UnitError{Unit: kubeadmUnit, LogFile: kubeadmLog, Result: systemd.Result{Result: "exit-code", Code: 1}}
	for name, test := range map[string]struct {
		arrange func(t *testing.T, l *lab, i *Init)
		want    []string
	}{
		"the unit":          {func(_ *testing.T, l *lab, _ *Init) { l.runErr = failed }, []string{"kubeadm/init: apply:", "exit-code 1", kubeadmLog}},
		"not installed":     {func(t *testing.T, l *lab, _ *Init) { put(t, l.Host, "/usr/bin/kubeadm", "", 0o644) }, []string{"find program kubeadm"}},
		"another minor":     {func(_ *testing.T, _ *lab, i *Init) { i.Minor = "1.37" }, []string{`kubeadm is v1.36.3, packages.kubernetesVersion is "1.37"`}},
		"its version":       {func(_ *testing.T, l *lab, _ *Init) { l.refuse = "version" }, []string{"ask kubeadm's version"}},
		"its configuration": {func(_ *testing.T, l *lab, _ *Init) { l.refuse = "validate" }, []string{"validate kubeadm configuration", "unknown field"}},
		"no address": {func(_ *testing.T, _ *lab, i *Init) {
			i.Address = func(context.Context) (netip.Addr, error) { return netip.Addr{}, errors.New("no default route") }
		}, []string{"no default route"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			i := l.init(KubeadmConfig{})
			test.arrange(t, l, &i)
			_, err := step.Apply(t.Context(), []step.Step{KubeadmInit(i)}, nil)
			wantError(t, err, test.want...)
			if name != "the unit" && len(l.ran) > 0 {
				t.Error("init was run all the same")
			}
		})
	}
}

// After a reboot the API takes its time: apply waits for it, and runs nothing.
func TestInitWaitsForTheAPI(t *testing.T) {
	l := newLab(t)
	if err := l.initialized(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l.notReady = 20
		results, err := step.Apply(t.Context(), []step.Step{KubeadmInit(l.init(KubeadmConfig{}))}, nil)
		if err != nil || results[0].Outcome != step.Applied || len(l.ran) > 0 {
			t.Errorf("%v, %v, ran %v", results, err, l.ran)
		}
		if have := results[0].Changes[0].Have; have != "does not answer: connection refused" || time.Since(began) < 30*time.Second {
			t.Errorf("%q after %s", have, time.Since(began))
		}
		l.notReady = 1 << 30
		began = time.Now()
		_, err = step.Apply(t.Context(), []step.Step{KubeadmInit(l.init(KubeadmConfig{}))}, nil)
		wantError(t, err, "waited up to 10m0s", "connection refused")
		if took := time.Since(began); took != apiTimeout {
			t.Errorf("gave up after %s", took)
		}
	})
}

// What init's later phases leave in the API is looked for, and the phase that is missing named.
func TestInitAPIObjects(t *testing.T) {
	for path, phase := range map[string]string{
		"/api/v1/nodes/node-1": "kubelet-start",
		"/api/v1/namespaces/kube-system/configmaps/kubeadm-config":   "upload-config kubeadm",
		"/api/v1/namespaces/kube-system/configmaps/kubelet-config":   "upload-config kubelet",
		"/api/v1/namespaces/kube-public/configmaps/cluster-info":     "bootstrap-token",
		"/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy": "addon kube-proxy",
		"/apis/apps/v1/namespaces/kube-system/deployments/coredns":   "addon coredns",
	} {
		t.Run(phase, func(t *testing.T) {
			l := newLab(t)
			if err := l.initialized(); err != nil {
				t.Fatal(err)
			}
			l.gone[path] = true
			check := func(skip string) error {
				kubeadm := KubeadmConfig{InitConfiguration: passthrough(t, "skipPhases: ["+skip+"]")}
				changes, err := KubeadmInit(l.init(kubeadm)).Check(t.Context())
				if len(changes) > 0 {
					t.Errorf("changes for something that apply does not make: %v", changes)
				}
				return err
			}
			wantError(t, check(""), path+" is missing", "`kubeadm init phase "+phase+" --config /var/lib/nodeagent/kubeadm.yaml`")
			wantError(t, check("addon/nothing, preflight"), path+" is missing")
			group, _, _ := strings.Cut(phase, " ")
			for _, skip := range []string{group, strings.ReplaceAll(phase, " ", "/")} {
				if err := check("preflight, " + skip); err != nil {
					t.Errorf("skipPhases has %s: %v", skip, err)
				}
			}
		})
	}
	l := newLab(t)
	if err := l.initialized(); err != nil {
		t.Fatal(err)
	}
	if changes, err := KubeadmInit(l.init(KubeadmConfig{})).Check(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("complete: %v, %v", changes, err)
	}
}

func TestInitOffline(t *testing.T) {
	l := newLab(t)
	l.Offline = true
	_, err := KubeadmInit(l.init(KubeadmConfig{})).Check(t.Context())
	if !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("got %v", err)
	}
}

func TestKubelet(t *testing.T) {
	loaded := func(file, active string) systemd.State {
		return systemd.State{LoadState: "loaded", UnitFileState: file, ActiveState: active}
	}
	tests := map[string]struct {
		state      systemd.State
		configured bool
		changes    string
		err        string
		asked      string
	}{
		"not installed":            {systemd.State{LoadState: "not-found"}, false, "", "find kubelet.service: it is not-found; install the package kubelet", ""},
		"masked":                   {systemd.State{LoadState: "masked"}, true, "", "it is masked", ""},
		"just installed":           {loaded("disabled", "inactive"), false, `[kubelet.service: "disabled" → "enabled"]`, "", "[enable kubelet.service]"},
		"enabled, no kubeadm yet":  {loaded("enabled", "activating"), false, "[]", "", "[]"},
		"enabled, dead, no config": {loaded("enabled", "inactive"), false, "[]", "", "[]"},
		"stopped":                  {loaded("enabled", "inactive"), true, `[kubelet.service: "inactive" → "active"]`, "", "[enable kubelet.service start kubelet.service]"},
		"failed and disabled":      {loaded("disabled", "failed"), true, `[kubelet.service: "disabled" → "enabled" kubelet.service: "failed" → "active"]`, "", "[enable kubelet.service start kubelet.service]"},
		"being restarted":          {loaded("enabled", "activating"), true, "[]", "", "[]"},
		"fine":                     {loaded("enabled", "active"), true, "[]", "", "[]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.units[kubeletUnit] = test.state
			if test.configured {
				put(t, l.Host, kubeletConfig, "kind: KubeletConfiguration", 0o644)
			}
			results, err := step.Apply(t.Context(), []step.Step{Kubelet(l.Host, l, false)}, nil)
			if test.err != "" {
				wantError(t, err, test.err)
				return
			}
			if err != nil || fmt.Sprint(results[0].Changes) != test.changes || fmt.Sprint(l.asked) != test.asked {
				t.Errorf("%v, %v, asked %v; want %s and %s", results[0].Changes, err, l.asked, test.changes, test.asked)
			}
		})
	}
	l := newLab(t)
	l.Offline = true
	if _, err := Kubelet(l.Host, l, false).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("offline: %v", err)
	}
}
