package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	// kubeadmFile is the rendered configuration, kept for the phases that are run by hand.
	kubeadmFile = "/var/lib/nodeagent/kubeadm.yaml"
	etcdDataDir = "/var/lib/etcd"
	// AdminConf is the kubeconfig the agent reaches the API with.
	AdminConf = "/etc/kubernetes/admin.conf"
	// KubeletConf is the kubelet's kubeconfig: a host that has one is a member of a cluster.
	KubeletConf = "/etc/kubernetes/kubelet.conf"
	// ManifestDir holds the static pods.
	ManifestDir = "/etc/kubernetes/manifests"
)

// The steps that others wait for.
const (
	// WaitStep is the step after which the API answers.
	WaitStep = "kubeadm/wait-control-plane"
	// LastPhaseStep is the step after which there is a whole cluster on the host.
	LastPhaseStep = "kubeadm/addon"
)

// Waits are how long the steps wait for others. kubeadm has its own, in its configuration.
const (
	kubeadmTimeout = 30 * time.Minute // a transient unit's: far beyond kubeadm's own
	probeTimeout   = 10 * time.Second
	pollInterval   = 2 * time.Second
)

// API is what the steps ask of the cluster; *kube.Client is the real one.
type API interface {
	// Ready is nil once /readyz answers ok.
	Ready(ctx context.Context) error
	// Exists says whether the object at a path like /api/v1/nodes/n1 is there.
	Exists(ctx context.Context, path string) (bool, error)
	// Node reads one node; kube.IsNotFound tells the error of one that is not there.
	Node(ctx context.Context, name string) (kube.Node, error)
}

// Init is what the steps kubeadm/* are made of: the phases of `kubeadm init`, in kubeadm's own
// order and by its names.
//
// Each step's Check tells from what a phase leaves (files that can be read and belong together,
// objects in the API) whether it is complete. One that is not is run, in a transient unit; one
// that runs already is adopted. Only a host that is being built is given what it lacks: of a
// cluster that somebody has made, or that was complete once, what is missing is a finding, with
// the command that makes it. Nothing that works is made again.
//
// The phases upload-certs, which uploads the CAs' keys, and show-join-command, which prints a
// token, are left out.
type Init struct {
	Host  *host.Host
	Units Units
	// Cluster but for KubernetesVersion, which the installed kubeadm says, and Address.
	Cluster Cluster
	Address func(context.Context) (netip.Addr, error)
	Minor   string // the minor that is wanted: "1.36"
	Managed bool   // the agent installs packages, and the phases wait for them
	// Timeouts are how long the steps wait that run nothing.
	Timeouts TimeoutsConfig
	// Ignore are kubeadm's checks whose findings do not stop its preflight.
	Ignore  []string
	Connect func() (API, error)
	// Foreign says whether endpoint, "host:port", is answered over TLS by somebody who is
	// not this host: a cluster that exists already.
	Foreign func(ctx context.Context, endpoint string) (bool, error)
	// Building says whether this host is the agent's to build: it has begun to and has not
	// ended, or nothing of a cluster is there.
	Building func() (bool, error)
	// Whole says that every step is run, none left out by the operator: see clusterPhases.
	Whole func() bool
}

// manifests are the static pods of a control plane, in the order in which kubeadm writes them.
func (i Init) manifests() []string {
	pods := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if !i.externalEtcd() {
		pods = append([]string{"etcd"}, pods...)
	}
	return pods
}

func (i Init) externalEtcd() bool {
	return i.Cluster.Kubeadm.ClusterConfiguration.at("etcd", "external") != nil
}

// begun says whether kubeadm has begun to write static pods.
func (i Init) begun() (bool, error) {
	for _, pod := range i.manifests() {
		there, err := i.Host.Exists(ManifestDir + "/" + pod + ".yaml")
		if err != nil || there {
			return there, err
		}
	}
	return false, nil
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

// WaitControlPlane makes the step "kubeadm/wait-control-plane": the API server says that it is
// ready. It runs nothing. While it waits it tells which of the server's checks fail, the
// kubelet's last error and what the static pods' containers said before they ended.
func WaitControlPlane(i Init) step.Step {
	why := diagnosis{host: i.Host, node: i.Cluster.NodeName, pods: i.manifests()}
	check := func(ctx context.Context) ([]step.Change, error) {
		if i.Host.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		configured, err := i.Host.Exists(kubeletConfig)
		if err != nil {
			return nil, err
		}
		if !configured {
			return nil, step.Blocked{On: "kubeadm/kubelet-start"}
		}
		err = i.ready(ctx)
		if err == nil {
			why.forget()
			return nil, nil
		}
		return append([]step.Change{{Subject: "control plane", Have: err.Error(), Want: "ready"}}, why.changes(ctx)...), nil
	}
	return step.Step{Name: WaitStep, Check: check, Wait: i.Timeouts.ControlPlane}
}

// ready is nil for an API server that is.
func (i Init) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	api, err := i.Connect()
	if err != nil {
		return err
	}
	return api.Ready(ctx)
}

func isRunning(unit systemd.State) bool {
	return unit.SubState == "running" || unit.SubState == "start"
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
