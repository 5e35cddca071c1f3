package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// LocalEtcd makes the step "kubeadm/etcd": the static pod of etcd has its manifest, unless etcd
// is external.
func LocalEtcd(i Init) step.Step {
	return i.step(phase{name: "etcd", part: "local", missing: func(context.Context) ([]string, error) {
		if i.externalEtcd() {
			return nil, nil
		}
		return i.missingManifests("etcd")
	}})
}

// ControlPlaneManifests makes the step "kubeadm/control-plane": the static pods of the API
// server, the controller manager and the scheduler have their manifests. kubeadm writes them in
// place, so one that is cut short counts as missing; a second run writes the same bytes.
func ControlPlaneManifests(i Init) step.Step {
	return i.step(phase{name: "control-plane", part: "all", missing: func(context.Context) ([]string, error) {
		return i.missingManifests("kube-apiserver", "kube-controller-manager", "kube-scheduler")
	}})
}

func (i Init) missingManifests(pods ...string) ([]string, error) {
	var missing []string
	for _, pod := range pods {
		path := ManifestDir + "/" + pod + ".yaml"
		data, err := i.Host.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, "no "+path)
		case err != nil:
			return nil, fmt.Errorf("read manifest: %w", err)
		case !isStaticPod(data):
			missing = append(missing, path+" is cut short")
		}
	}
	return missing, nil
}

// isStaticPod says whether a manifest is a whole Pod: kubeadm's end with "status: {}", which
// somebody's edit may have removed, so what is looked at is that a container and its volumes
// are there.
func isStaticPod(data []byte) bool {
	var pod struct {
		Kind string `yaml:"kind"`
		Spec struct {
			Containers []struct {
				Command []string `yaml:"command"`
			} `yaml:"containers"`
			Volumes []struct {
				Name string `yaml:"name"`
			} `yaml:"volumes"`
		} `yaml:"spec"`
	}
	err := yaml.Unmarshal(data, &pod)
	return err == nil && pod.Kind == "Pod" && len(pod.Spec.Containers) > 0 && len(pod.Spec.Containers[0].Command) > 0 && len(pod.Spec.Volumes) > 0
}

// KubeletStart makes the step "kubeadm/kubelet-start": the kubelet has its configuration and
// runs. kubeadm stops it meanwhile, and a kubeadm that is killed leaves it so.
func KubeletStart(i Init) step.Step {
	const mend = "running, with the files that kubeadm left: put back those that are missing, then `systemctl start kubelet`"
	return i.step(phase{name: "kubelet-start", mend: mend, missing: func(ctx context.Context) ([]string, error) {
		var missing []string
		for _, path := range []string{kubeletConfig, "/var/lib/kubelet/kubeadm-flags.env"} {
			info, err := i.Host.Stat(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				missing = append(missing, "no "+path)
			case err != nil:
				return nil, fmt.Errorf("look for the kubelet's configuration: %w", err)
			case info.Size() == 0:
				missing = append(missing, path+" is empty")
			}
		}
		unit, err := i.Units.State(ctx, kubeletUnit)
		if err != nil {
			return nil, err
		}
		// "activating" is a kubelet that systemd restarts.
		if unit.ActiveState != "active" && unit.ActiveState != "activating" {
			missing = append(missing, kubeletUnit+" is "+unit.ActiveState)
		}
		return missing, nil
	}})
}

// UploadConfig makes the step "kubeadm/upload-config": the cluster keeps kubeadm's and the
// kubelet's configuration, for those who join.
func UploadConfig(i Init) step.Step {
	return i.clusterStep(phase{name: "upload-config", part: "all", missing: func(ctx context.Context) ([]string, error) {
		return i.missingObjects(ctx, map[string][]string{
			"upload-config/kubeadm": {"/api/v1/namespaces/kube-system/configmaps/kubeadm-config", kubeSystemRoleBindings + "kubeadm:nodes-kubeadm-config"},
			"upload-config/kubelet": {"/api/v1/namespaces/kube-system/configmaps/kubelet-config", kubeSystemRoleBindings + "kubeadm:kubelet-config"},
		})
	}})
}

// controlPlaneLabel is what kubeadm marks a control plane's node with.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// MarkControlPlane makes the step "kubeadm/mark-control-plane": the node has its label. The
// taint that comes with it is the operator's to remove afterwards.
func MarkControlPlane(i Init) step.Step {
	return i.clusterStep(phase{name: "mark-control-plane", missing: func(ctx context.Context) (missing []string, err error) {
		err = i.ask(ctx, func(ctx context.Context, api API) error {
			node, err := api.Node(ctx, i.Cluster.NodeName)
			if kube.IsNotFound(err) {
				missing = []string{"no node " + i.Cluster.NodeName}
				return nil
			}
			if _, marked := node.Labels[controlPlaneLabel]; err == nil && !marked {
				missing = []string{"no label " + controlPlaneLabel}
			}
			return err
		})
		return missing, err
	}})
}

// JoinToken makes the step "kubeadm/bootstrap-token": what a host that joins has to read
// and may do. The token that goes with it is named in the configuration, so that a second run
// makes no second one.
func JoinToken(i Init) step.Step {
	return i.clusterStep(phase{name: "bootstrap-token", missing: func(ctx context.Context) ([]string, error) {
		return i.missingObjects(ctx, map[string][]string{
			"bootstrap-token": {
				"/api/v1/namespaces/kube-public/configmaps/cluster-info",
				"/apis/rbac.authorization.k8s.io/v1/namespaces/kube-public/rolebindings/kubeadm:bootstrap-signer-clusterinfo",
			},
		})
	}})
}

// KubeletFinalize makes the step "kubeadm/kubelet-finalize": the kubelet's kubeconfig names the
// certificate that the kubelet renews, in place of the first one.
func KubeletFinalize(i Init) step.Step {
	return i.clusterStep(phase{name: "kubelet-finalize", part: "all", local: true, missing: func(context.Context) ([]string, error) {
		data, err := i.Host.ReadFile(KubeletConf)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, step.Blocked{On: "kubeadm/kubeconfig"}
		}
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig: %w", err)
		}
		if strings.Contains(string(data), "client-certificate-data:") {
			return []string{KubeletConf + " holds the first certificate"}, nil
		}
		return nil, nil
	}})
}

// AddOn makes the step "kubeadm/addon": CoreDNS and kube-proxy have been deployed. Either may be
// left out by skipPhases.
func AddOn(i Init) step.Step {
	p := phase{name: "addon", part: "all"}
	switch { // kubeadm's "all" takes no notice of skipPhases
	case i.skips("addon/coredns"):
		p.part = "kube-proxy"
	case i.skips("addon/kube-proxy"):
		p.part = "coredns"
	}
	p.missing = func(ctx context.Context) ([]string, error) {
		return i.missingObjects(ctx, map[string][]string{
			"addon/coredns": {"/apis/apps/v1/namespaces/kube-system/deployments/coredns", "/api/v1/namespaces/kube-system/services/kube-dns"},
			"addon/kube-proxy": {
				"/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
				"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:node-proxier", kubeSystemRoleBindings + "kube-proxy",
			},
		})
	}
	return i.clusterStep(p)
}

const kubeSystemRoleBindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/"

// missingObjects are those that the API does not have, of objects by their parts of a phase: what
// a part is for, and what it makes last, since it may have been ended in between. Of each part
// the first one that is missing tells enough: every request costs a control plane that is just
// coming up. Those of a part that is skipped are not looked for.
func (i Init) missingObjects(ctx context.Context, objects map[string][]string) (missing []string, err error) {
	err = i.ask(ctx, func(ctx context.Context, api API) error {
		for _, part := range slices.Sorted(maps.Keys(objects)) {
			if i.skips(part) {
				continue
			}
			for _, object := range objects[part] {
				there, err := api.Exists(ctx, object)
				if err != nil && !kube.IsForbidden(err) { // the first phase that asks the API binds the administrators' role
					return fmt.Errorf("look for what kubeadm leaves: %w", err)
				}
				if err != nil || !there {
					missing = append(missing, "no "+object)
					break
				}
			}
		}
		return nil
	})
	return missing, err
}

// ask asks the API, once it answers.
func (i Init) ask(ctx context.Context, do func(context.Context, API) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	there, err := i.Host.Exists(AdminConf)
	if err != nil {
		return err
	}
	if !there {
		return step.Blocked{On: WaitStep}
	}
	api, err := i.Connect()
	if err != nil {
		return err
	}
	if err := api.Ready(ctx); err != nil {
		return fmt.Errorf("%w: %w", step.Blocked{On: WaitStep}, err)
	}
	return do(ctx, api)
}
