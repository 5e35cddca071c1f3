package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// bridgeLink is there while the bridge is.
const bridgeLink = "/sys/class/net/" + bridgeName

// AddonsNetwork makes the step "addons/network": where the file of Bridge is the only network and
// is to go, an add-on writes another. The step waits for that.
func AddonsNetwork(h *host.Host, wait time.Duration) step.Step {
	check := func(context.Context) ([]step.Change, error) {
		there, err := h.Exists(bridgeConfig)
		if err != nil || !there {
			return nil, err
		}
		if h.Offline {
			return nil, step.Blocked{On: step.Boot}
		}
		data, err := h.ReadFile(bridgeConfig)
		if err != nil || !isBridge(data) {
			return nil, err // edited: it stays, as BridgeRemoved says
		}
		others, err := networks(h)
		if err != nil || len(others) > 0 {
			return nil, err
		}
		return []step.Change{{
			Subject: "network in " + cniConfDir, Have: "none but the bridge",
			Want: "one that an add-on has written (if it does not come: kubectl get pods -A)",
		}}, nil
	}
	return step.Step{Name: "addons/network", Check: check, Wait: wait}
}

// BridgeRemoved makes the step "network/bridge-removed": the file of Bridge is gone, on a host
// that is to have another network. containerd takes the first file by name, so that an
// add-on's own, sorted behind it, would never be used. The file goes only when another network
// is there, since a node without any is not Ready and loses its pods after minutes: where
// add-ons are applied AddonsNetwork waits for theirs before; elsewhere the file stays and is a
// finding. So are one that somebody has edited, and the bridge, which the pods from before
// still use.
func BridgeRemoved(h *host.Host, addons bool) step.Step {
	check := func(context.Context) ([]step.Change, error) {
		there, err := h.Exists(bridgeConfig)
		if err != nil {
			return nil, err
		}
		if h.Offline {
			if there {
				return nil, step.Blocked{On: step.Boot}
			}
			return nil, nil
		}
		link, err := leftLink(h)
		if err != nil || !there {
			return link, err
		}
		file, err := leftBridge(h, addons)
		if err != nil {
			return nil, err
		}
		return append([]step.Change{file}, link...), nil
	}
	apply := func(context.Context) error {
		file, err := leftBridge(h, addons)
		if errors.Is(err, fs.ErrNotExist) || err == nil && file.Manual {
			return nil
		}
		if err != nil {
			return err
		}
		others, err := networks(h)
		if err == nil && len(others) == 0 {
			err = fmt.Errorf("no add-on has written a network into %s", cniConfDir)
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", bridgeConfig, err)
		}
		return h.Remove(bridgeConfig)
	}
	return step.Step{Name: "network/bridge-removed", Check: check, Apply: apply}
}

// leftBridge is what is to become of the file, which is there.
func leftBridge(h *host.Host, addons bool) (step.Change, error) {
	data, err := h.ReadFile(bridgeConfig)
	if err != nil {
		return step.Change{}, err
	}
	if !isBridge(data) {
		return step.Change{
			Subject: bridgeConfig, Have: "there, and edited by somebody",
			Want: "absent, since network.cni is not bridge: remove it yourself", Manual: true,
		}, nil
	}
	others, err := networks(h)
	if err != nil {
		return step.Change{}, err
	}
	switch {
	case len(others) > 0:
		return step.Change{Subject: bridgeConfig, Have: "there", Want: "absent: new pods get the network of " + filepath.Join(cniConfDir, others[0])}, nil
	case addons:
		return step.Change{Subject: bridgeConfig, Have: "there", Want: "absent once an add-on has written its network"}, nil
	}
	return step.Change{
		Subject: bridgeConfig, Have: "there, and the only network of this node",
		Want: "absent, which it will be once an add-on has written its network and apply is run again", Manual: true,
	}, nil
}

// isBridge says whether a file is as Bridge writes it, for whichever subnets.
func isBridge(data []byte) bool {
	var list cniConfList
	if err := json.Unmarshal(data, &list); err != nil || len(list.Plugins) == 0 || list.Plugins[0].IPAM == nil {
		return false
	}
	var subnets []string
	for _, set := range list.Plugins[0].IPAM.Ranges {
		for _, r := range set {
			subnets = append(subnets, r.Subnet)
		}
	}
	want, err := renderBridge(strings.Join(subnets, ","))
	return err == nil && string(want) == string(data)
}

// networks are the names of the files, but for the bridge's, that containerd may take a
// network from, in its order.
func networks(h *host.Host) ([]string, error) {
	entries, err := h.ReadDir(cniConfDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		network := slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name()))
		if network && !e.IsDir() && e.Name() != filepath.Base(bridgeConfig) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// leftLink is a finding while the bridge is there: an add-on that hands out addresses of the
// same subnet takes the way to the pods that are on it.
func leftLink(h *host.Host) ([]step.Change, error) {
	there, err := h.Exists(bridgeLink)
	if err != nil || !there {
		return nil, err
	}
	return []step.Change{{
		Subject: "link " + bridgeName, Have: "there: pods that were started on it keep its addresses",
		Want: "absent: restart those pods, then `ip link delete " + bridgeName + "`; or reboot", Manual: true,
	}}, nil
}
