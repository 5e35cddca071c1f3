package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	// kubeadmFile is the rendered configuration, kept for the phases that are run by hand.
	kubeadmFile = "/var/lib/nodeagent/kubeadm.yaml"
	kubeadmUnit = "nodeagent-kubeadm-init.service"
	kubeadmLog  = "/var/log/nodeagent/kubeadm-init.log"
	etcdDataDir = "/var/lib/etcd"
	// AdminConf is the kubeconfig the agent reaches the API with.
	AdminConf = "/etc/kubernetes/admin.conf"
	// KubeletConf is the kubelet's kubeconfig: a host that has one is a member of a cluster.
	KubeletConf = "/etc/kubernetes/kubelet.conf"
	// ManifestDir holds the static pods.
	ManifestDir = "/etc/kubernetes/manifests"
)

// Waits are how long the steps wait for others. kubeadm has its own, in its configuration.
const (
	kubeadmTimeout = 30 * time.Minute // the transient unit's: far beyond kubeadm's own
	apiTimeout     = 10 * time.Minute // the control plane's return after a reboot
	probeTimeout   = 10 * time.Second
	pollInterval   = 2 * time.Second
)

// API is what the steps ask of the cluster; *kube.Client is the real one.
type API interface {
	// Ready is nil once /readyz answers ok.
	Ready(ctx context.Context) error
	// Exists says whether the object at a path like /api/v1/nodes/n1 is there.
	Exists(ctx context.Context, path string) (bool, error)
}

// Init is what the step "kubeadm/init" is made of.
type Init struct {
	Host  *host.Host
	Units Units
	// Cluster but for KubernetesVersion, which the installed kubeadm says, and Address.
	Cluster Cluster
	Address func(context.Context) (netip.Addr, error)
	Minor   string // the minor that is wanted: "1.36"
	Managed bool   // the agent installs packages, and init waits for them
	Connect func() (API, error)
	// Foreign says whether endpoint, "host:port", is answered over TLS by somebody who is
	// not this host: a cluster that exists already.
	Foreign func(ctx context.Context, endpoint string) (bool, error)
}

// KubeadmInitStep is the step after which there is a cluster on the host.
const KubeadmInitStep = "kubeadm/init"

// KubeadmInit makes the step "kubeadm/init". Its Check tells four states apart:
//
//   - absent: none of the files that init leaves; init is run, unless etcd's data directory
//     holds something or another cluster answers at the control plane's endpoint
//   - running: the transient unit runs; it is adopted and waited for
//   - half-done: some of what init leaves is missing; an error that names it, never a re-run
//   - complete: nothing is run again; an API that does not answer yet is waited for
func KubeadmInit(i Init) step.Step {
	return step.Step{Name: KubeadmInitStep, Check: i.check, Apply: i.apply}
}

// initFiles are what `kubeadm init` leaves on the disk, the PKI aside, which users may have
// brought. The list is kubeadm's own, in the order of its phases.
var initFiles = []string{
	AdminConf, KubeletConf,
	"/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf",
	ManifestDir + "/kube-apiserver.yaml", ManifestDir + "/kube-controller-manager.yaml",
	ManifestDir + "/kube-scheduler.yaml", ManifestDir + "/etcd.yaml",
	kubeletConfig,
}

func (i Init) check(ctx context.Context) ([]step.Change, error) {
	if i.Host.Offline {
		return nil, step.Blocked{On: step.Boot}
	}
	unit, err := i.Units.State(ctx, kubeadmUnit)
	if err != nil {
		return nil, err
	}
	if unit.SubState == "running" || unit.SubState == "start" {
		return []step.Change{{Subject: "control plane", Have: "kubeadm init is running", Want: "complete"}}, nil
	}
	have, missing, err := i.files()
	if err != nil {
		return nil, err
	}
	switch {
	case len(have) == 0:
		if err := i.refuse(ctx); err != nil {
			return nil, err
		}
		if _, err := i.Address(ctx); err != nil {
			return nil, err // a plan is the time to hear of it
		}
		if _, err := Program(i.Host, "kubeadm"); i.Managed && err != nil {
			return nil, needPackages(i.Managed, err)
		}
		return []step.Change{{Subject: "control plane", Have: "absent", Want: "made by kubeadm init"}}, nil
	case len(missing) > 0:
		return nil, fmt.Errorf("control plane is half-done: %s is there, %s is not; look at %s, then `kubeadm reset -f` and `nodeagent apply` begin anew",
			have[0], strings.Join(missing, ", "), kubeadmLog)
	}
	return i.checkAPI(ctx)
}

// files are those that init leaves, as they are found and missed.
func (i Init) files() (have, missing []string, err error) {
	for _, path := range initFiles {
		info, err := i.Host.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, path)
		case err != nil:
			return nil, nil, fmt.Errorf("look for the control plane: %w", err)
		case info.Size() == 0:
			missing = append(missing, path+" (empty)")
		default:
			have = append(have, path)
		}
	}
	return have, missing, nil
}

// refuse is the reason for which a host without a control plane must not be given one.
func (i Init) refuse(ctx context.Context) error {
	entries, err := i.Host.ReadDir(etcdDataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for etcd data: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("refuse kubeadm init: %s is not empty (%s is there): it may hold a cluster's only data; restore it, or move it away",
			etcdDataDir, entries[0].Name())
	}
	endpoint := i.Cluster.Kubeadm.ControlPlaneEndpoint
	if endpoint == "" {
		return nil
	}
	foreign, err := i.Foreign(ctx, endpoint)
	if err != nil {
		return fmt.Errorf("ask whether %s is another cluster's: %w", endpoint, err)
	}
	if foreign {
		return fmt.Errorf("refuse kubeadm init: a cluster answers at controlPlaneEndpoint %s already; this host would have to join it", endpoint)
	}
	return nil
}

// apiObject is what a phase of init leaves in the API.
type apiObject struct{ phase, path string }

// apiObjects are what init's phases after the control plane leave in the API, in their order;
// these phases are repeatable. A phase that the operator has kubeadm skip leaves nothing.
func (i Init) apiObjects() []apiObject {
	objects := []apiObject{
		{"kubelet-start", "/api/v1/nodes/" + i.Cluster.NodeName},
		{"upload-config/kubeadm", "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"},
		{"upload-config/kubelet", "/api/v1/namespaces/kube-system/configmaps/kubelet-config"},
		{"bootstrap-token", "/api/v1/namespaces/kube-public/configmaps/cluster-info"},
		{"addon/coredns", "/apis/apps/v1/namespaces/kube-system/deployments/coredns"},
		{"addon/kube-proxy", "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"},
	}
	return slices.DeleteFunc(objects, func(o apiObject) bool {
		group, _, _ := strings.Cut(o.phase, "/")
		return i.Cluster.Kubeadm.InitConfiguration.lists("skipPhases", o.phase, group)
	})
}

func (i Init) checkAPI(ctx context.Context) ([]step.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	api, err := i.Connect()
	if err != nil {
		return nil, err
	}
	if err := api.Ready(ctx); err != nil {
		return []step.Change{{Subject: "control plane", Have: "does not answer: " + err.Error(), Want: "ready"}}, nil
	}
	for _, o := range i.apiObjects() {
		there, err := api.Exists(ctx, o.path)
		if err != nil {
			return nil, fmt.Errorf("look for what kubeadm init leaves: %w", err)
		}
		if !there {
			return nil, fmt.Errorf("control plane is half-done: %s is missing; `kubeadm init phase %s --config %s` makes it",
				o.path, strings.ReplaceAll(o.phase, "/", " "), kubeadmFile)
		}
	}
	return nil, nil
}

func (i Init) apply(ctx context.Context) error {
	unit, err := i.Units.State(ctx, kubeadmUnit)
	if err != nil {
		return err
	}
	have, _, err := i.files()
	if err != nil {
		return err
	}
	if len(have) == 0 || unit.SubState == "running" || unit.SubState == "start" {
		if err := i.init(ctx); err != nil {
			return err
		}
	}
	return i.await(ctx)
}

func (i Init) init(ctx context.Context) error {
	kubeadm, err := Program(i.Host, "kubeadm")
	if err != nil {
		return err
	}
	if err := i.writeConfig(ctx, kubeadm); err != nil {
		return err
	}
	if err := i.Host.MkdirAll("/var/log/nodeagent", 0o750); err != nil {
		return err
	}
	_, err = i.Units.RunTransient(ctx, systemd.Transient{
		Unit:        kubeadmUnit,
		Description: "kubeadm init, run by nodeagent",
		Argv:        []string{kubeadm, "init", "--config", kubeadmFile, "--skip-phases=show-join-command", "--skip-token-print"},
		LogFile:     kubeadmLog,
		Timeout:     kubeadmTimeout,
	})
	return err
}

func (i Init) writeConfig(ctx context.Context, kubeadm string) error {
	out, err := i.Host.Run(ctx, kubeadm, "version", "-o", "short")
	if err != nil {
		return fmt.Errorf("ask kubeadm's version: %w", err)
	}
	version, minor, err := parseVersion(out)
	if err != nil {
		return err
	}
	if minor != i.Minor {
		return fmt.Errorf("kubeadm is %s, packages.kubernetesVersion is %q: install the one or change the other", version, i.Minor)
	}
	cluster := i.Cluster
	cluster.KubernetesVersion = version
	if cluster.Address, err = i.Address(ctx); err != nil {
		return err
	}
	data, err := RenderKubeadm(cluster)
	if err != nil {
		return err
	}
	if err := i.Host.WriteFile(kubeadmFile, data, 0o600); err != nil {
		return err
	}
	if _, err := i.Host.Run(ctx, kubeadm, "config", "validate", "--config", kubeadmFile); err != nil {
		return fmt.Errorf("validate kubeadm configuration: %w", err)
	}
	return nil
}

// await waits until the API server is ready.
func (i Init) await(ctx context.Context) error {
	return poll(ctx, apiTimeout, func(ctx context.Context) error {
		api, err := i.Connect()
		if err != nil {
			return err
		}
		return api.Ready(ctx)
	})
}

// poll calls do until it returns nil. The error of a wait that ends without is do's last.
func poll(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		try, done := context.WithTimeout(ctx, probeTimeout)
		err := do(try)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited up to %s: %w", limit, errors.Join(err, context.Cause(ctx)))
		case <-tick.C:
		}
	}
}
