package bootstrap

import (
	"context"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// NotInThisVersion makes the last step of the roles whose host is prepared and whose joining
// is not there yet: it says so, and stops.
func NotInThisVersion(h *host.Host, role Role) step.Step {
	name, what := "kubeadm/join", "the host is prepared; joining a cluster is not in this version: run kubeadm join yourself"
	if role == Etcd {
		name, what = "etcd/member", "the host is prepared; external etcd members are not in this version"
	}
	check := func(context.Context) ([]step.Change, error) {
		if h.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		joined, err := h.Exists(KubeletConf)
		if err != nil || joined {
			return nil, err
		}
		return []step.Change{{Subject: "role " + string(role), Have: "no member of a cluster", Want: what}}, nil
	}
	return step.Step{Name: name, Check: check}
}
