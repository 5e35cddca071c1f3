package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	debianCNIDir = "/usr/lib/cni"
	bridgeConfig = cniConfDir + "/10-nodeagent-bridge.conflist"
	// bridgeName is the link's. Not cni0: the add-on that follows one day, with another
	// subnet, would trip over ours.
	bridgeName = "nodeagent0"

	// CNIPluginsStep is the name of the step that copies Debian's plugins.
	CNIPluginsStep = "containerd/cni-plugins"
)

// CNIPlugins makes the step "containerd/cni-plugins": plugins that Debian's package installed
// where Kubernetes does not look are copied to where it does. Copied and not linked, since an
// add-on's container that mounts the one directory does not see the other; and only those that
// are missing: an add-on's own, or a newer one, is never replaced. Where the package
// kubernetes-cni is installed it has brought them all, and where packages are managed it may
// yet: then the step is Blocked until there is a kubelet.
func CNIPlugins(h *host.Host, managed bool) step.Step {
	check := func(context.Context) ([]step.Change, error) {
		if _, err := Program(h, "kubelet"); errors.Is(err, fs.ErrNotExist) && managed && !h.Offline {
			return nil, step.Blocked{On: PackagesStep}
		}
		names, err := missingPlugins(h)
		if err != nil {
			return nil, err
		}
		var changes []step.Change
		for _, name := range names {
			changes = append(changes, step.Change{
				Subject: filepath.Join(cniBinDir, name), Have: "absent", Want: "a copy of " + filepath.Join(debianCNIDir, name),
			})
		}
		return changes, nil
	}
	apply := func(ctx context.Context) error {
		names, err := missingPlugins(h)
		if err != nil {
			return err
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			data, err := h.ReadFile(filepath.Join(debianCNIDir, name))
			if err != nil {
				return fmt.Errorf("copy CNI plugin: %w", err)
			}
			if err := h.WriteFile(filepath.Join(cniBinDir, name), data, 0o755); err != nil {
				return fmt.Errorf("copy CNI plugin: %w", err)
			}
		}
		return nil
	}
	return step.Step{Name: CNIPluginsStep, Check: check, Apply: apply}
}

// missingPlugins are the programs in Debian's directory whose names are free in ours.
func missingPlugins(h *host.Host) ([]string, error) {
	if brought, err := h.Exists("/var/lib/dpkg/info/kubernetes-cni.list"); err != nil || brought {
		return nil, err
	}
	entries, err := h.ReadDir(debianCNIDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		info, err := h.Stat(filepath.Join(debianCNIDir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("look at CNI plugin: %w", err)
		}
		if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			continue
		}
		there, err := h.Exists(filepath.Join(cniBinDir, e.Name()))
		if err != nil {
			return nil, err
		}
		if !there {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// bridgePlugins are the programs that the bridge network runs.
var bridgePlugins = []string{"bridge", "host-local", "loopback", "portmap"}

// Bridge makes the step "network/bridge": a network for the pods of a single node, without an
// add-on. podSubnet is a CIDR, or two with a comma between them. It only writes a file;
// containerd takes it up by itself.
func Bridge(h *host.Host, podSubnet string) step.Step {
	check := func(context.Context) ([]step.Change, error) {
		want, err := renderBridge(podSubnet)
		if err != nil {
			return nil, err
		}
		if err := needPlugins(h); err != nil {
			return nil, err
		}
		changes, err := earlierNetworks(h)
		if err != nil {
			return nil, err
		}
		have, err := h.ReadFile(bridgeConfig)
		if errors.Is(err, fs.ErrNotExist) {
			return append(changes, step.Change{Subject: bridgeConfig, Have: "absent", Want: "pods bridged in " + podSubnet}), nil
		}
		if err != nil {
			return nil, err
		}
		info, err := h.Stat(bridgeConfig)
		if err != nil {
			return nil, err
		}
		if string(have) != string(want) {
			changes = append(changes, step.Change{Subject: bridgeConfig, Have: "other content", Want: "pods bridged in " + podSubnet})
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			changes = append(changes, step.Change{Subject: bridgeConfig + " mode", Have: fmt.Sprintf("%04o", mode), Want: "0600"})
		}
		return changes, nil
	}
	apply := func(context.Context) error {
		want, err := renderBridge(podSubnet)
		if err != nil {
			return err
		}
		return h.WriteFile(bridgeConfig, want, 0o600)
	}
	return step.Step{Name: "network/bridge", Check: check, Apply: apply}
}

// needPlugins is Blocked on the step that will copy what is missing, if it can.
func needPlugins(h *host.Host) error {
	var blocked error
	for _, name := range bridgePlugins {
		there, err := h.Exists(filepath.Join(cniBinDir, name))
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if there, err = h.Exists(filepath.Join(debianCNIDir, name)); err != nil {
			return err
		}
		if !there && h.Offline {
			return step.Blocked{On: step.Boot} // a package that is not in the image may bring it
		}
		if !there {
			return fmt.Errorf("find CNI plugin %s in %s: %w; install containernetworking-plugins or kubernetes-cni", name, cniBinDir, fs.ErrNotExist)
		}
		blocked = step.Blocked{On: CNIPluginsStep}
	}
	return blocked
}

// earlierNetworks are findings: containerd takes the first file by name, and it is not ours.
func earlierNetworks(h *host.Host) ([]step.Change, error) {
	names, err := networks(h)
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, name := range names {
		if name < filepath.Base(bridgeConfig) {
			changes = append(changes, step.Change{
				Subject: filepath.Join(cniConfDir, name), Have: "there, and read instead of " + bridgeConfig,
				Want: "absent, or network.cni not bridge", Manual: true,
			})
		}
	}
	return changes, nil
}

// A conflist can hold no comment: its name says whose it is.
type (
	cniConfList struct {
		CNIVersion string      `json:"cniVersion"`
		Name       string      `json:"name"`
		Plugins    []cniPlugin `json:"plugins"`
	}
	cniPlugin struct {
		Type             string          `json:"type"`
		Bridge           string          `json:"bridge,omitempty"`
		IsDefaultGateway bool            `json:"isDefaultGateway,omitempty"`
		IPMasq           bool            `json:"ipMasq,omitempty"`
		HairpinMode      bool            `json:"hairpinMode,omitempty"`
		IPAM             *cniIPAM        `json:"ipam,omitempty"`
		Capabilities     map[string]bool `json:"capabilities,omitempty"`
	}
	cniIPAM struct {
		Type   string       `json:"type"`
		Ranges [][]cniRange `json:"ranges"`
	}
	cniRange struct {
		Subnet string `json:"subnet"`
	}
)

func renderBridge(podSubnet string) ([]byte, error) {
	if err := validateCIDRs("podSubnet", podSubnet); err != nil {
		return nil, err
	}
	ipam := &cniIPAM{Type: "host-local"}
	for cidr := range strings.SplitSeq(podSubnet, ",") {
		ipam.Ranges = append(ipam.Ranges, []cniRange{{Subnet: cidr}})
	}
	list := cniConfList{CNIVersion: "1.0.0", Name: "nodeagent-bridge", Plugins: []cniPlugin{
		{Type: "bridge", Bridge: bridgeName, IsDefaultGateway: true, IPMasq: true, HairpinMode: true, IPAM: ipam},
		{Type: "portmap", Capabilities: map[string]bool{"portMappings": true}},
	}}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", bridgeConfig, err)
	}
	return append(data, '\n'), nil
}
