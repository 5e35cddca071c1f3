// Package bootstrap makes a host a node: preflight, the host's preparation, containerd,
// kubeadm, the network. The order of all of it is one slice literal in steps.go.
package bootstrap

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kernel"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// Config is what the operator asked for, as far as the steps are concerned.
type Config struct {
	Role       Role
	Node       NodeConfig
	Network    NetworkConfig
	Preflight  PreflightConfig
	Kernel     kernel.Config
	Packages   PackagesConfig
	Containerd ContainerdConfig
	Images     ImagesConfig
	Kubeadm    KubeadmConfig
	Addons     []string
	Timeouts   TimeoutsConfig
}

// Deps is the machine that the steps work on.
type Deps struct {
	Host     *host.Host
	Systemd  *systemd.Conn
	Hostname string   // as the kernel says it
	EUID     int      // of this process
	Env      []string // of this process: what apt needs of it
	// Building says whether this host is the agent's to build: see Init.
	Building func() (bool, error)
	// Whole says whether every step is run, or the operator leaves some out: see Init.
	Whole func() bool
}

// MemberFiles are what only a member of a cluster has: the agent, finding one of them and no
// mark of its own, adopts the host and changes nothing.
var MemberFiles = []string{KubeletConf, ManifestDir, etcdDataDir}

// Harmless says whether drift may apply a step by itself: it disturbs nothing that runs. Add-ons
// are none: they are the cluster's and not this host's, applying one may restart its pods
// everywhere, and what an operator has edited in a hurry is not to be undone behind his back.
func Harmless(name string) bool {
	switch name {
	case "kernel/swap", "kernel/modules", "kernel/sysctl", RepositoryStep, CNIPluginsStep, RegistriesStep, CrictlStep, "network/bridge", NodeKubeconfigStep, NodeFilesStep:
		return true
	}
	return false
}

// Steps is the boot, in its order. It looks at nothing on the host: each step's Check does.
func Steps(c Config, d Deps) ([]step.Step, error) {
	pause, err := PauseImage(c.Packages.Minor(), c.Kubeadm)
	if err != nil {
		return nil, err
	}
	api := access{host: d.Host}
	connect := api.connect

	steps := []step.Step{
		Preflight(d.Host, c.Role, c.Preflight.Ignore, PreflightDeps{
			EUID: d.EUID, Hostname: d.Hostname, NodeName: c.NodeName(d.Hostname),
			State: d.Systemd.State, Resolve: resolve, Space: spaceOf, APIPort: c.apiPort(),
			Managed: c.Packages.Manage, Minor: c.Packages.Minor(),
		}),
		TimeSync(d.Host, c.Preflight.Ignore, ClockSynced),
		c.swap(d),
		kernel.Modules(d.Host, c.Kubeadm.KubeProxyConfiguration.lookup("mode") == "ipvs", c.Kernel.Modules),
		kernel.Sysctls(d.Host, c.ipv6(), c.Kernel.Sysctls),
	}
	if c.Role == Etcd {
		return append(steps, NotInThisVersion(d.Host, c.Role)), nil
	}
	steps = append(steps, c.runtime(d, pause)...)
	steps = append(steps, Kubelet(d.Host, d.Systemd, c.Packages.Manage))
	if c.Role == Worker {
		return append(append(steps, c.nodeFiles(d)...), NotInThisVersion(d.Host, c.Role)), nil
	}
	init := c.init(d, connect)
	steps = append(steps,
		KubeadmConfigFile(init),
		KubeadmPreflight(init),
		Certificates(init),
		Kubeconfigs(init),
		LocalEtcd(init),
		ControlPlaneManifests(init),
		KubeletStart(init),
		WaitControlPlane(init),
		UploadConfig(init),
		MarkControlPlane(init),
		JoinToken(init),
		KubeletFinalize(init),
		AddOn(init),
		AdminKubeconfigs(d.Host, c.Node.AdminKubeconfigFor),
	)
	if c.Network.CNI == "bridge" {
		steps = append(steps, Bridge(d.Host, c.Network.PodSubnet))
	}
	if len(c.Addons) > 0 {
		steps = append(steps, Addons(d.Host, c.Addons, connect))
	}
	if c.Network.CNI != "bridge" {
		if len(c.Addons) > 0 {
			steps = append(steps, AddonsNetwork(d.Host, c.Timeouts.AddonsReady))
		}
		steps = append(steps, BridgeRemoved(d.Host, len(c.Addons) > 0))
	}
	steps = append(steps, c.nodeFiles(d)...)
	steps = append(steps, NodeReady(d.Host, c.NodeName(d.Hostname), c.Timeouts.NodeReady, connect))
	if len(c.Addons) > 0 {
		steps = append(steps, AddonsReady(d.Host, c.Addons, c.Timeouts.AddonsReady, connect))
	}
	return steps, nil
}

// runtime are the steps from the packages to the images. Where there are archives of images and
// packages to install, the two go on side by side: containerd comes first, alone, since a second
// run of apt takes less than the import.
func (c Config) runtime(d Deps, pause string) []step.Step {
	deps := ContainerdDeps{
		Host: d.Host, Units: d.Systemd, Pause: pause, Config: c.Containerd,
		NoProxy: func(ctx context.Context) ([]string, error) { return c.noProxy(ctx, d.Host.Offline) },
	}
	plugins := CNIPlugins(d.Host, c.Packages.Manage)
	if !c.Packages.Manage {
		steps := append([]step.Step{plugins}, c.containerd(deps)...)
		return append(steps, Crictl(d.Host), Images(d.Host, c.Images.Archives, ""))
	}
	repository := Repository(d.Host, c.Packages, keyFetcher(d.Host))
	if len(c.Images.Archives) == 0 {
		deps.Installer = PackagesStep
		steps := append([]step.Step{repository, Packages(d.Host, d.Systemd, c.Packages, proxyEnv(d.Env)), plugins}, c.containerd(deps)...)
		return append(steps, Crictl(d.Host), Images(d.Host, nil, PackagesStep))
	}
	deps.Installer = PackagesContainerdStep
	first, rest := SplitPackages(d.Host, d.Systemd, c.Packages, proxyEnv(d.Env))
	begin, images := ImagesAhead(d.Host, c.Images.Archives, PackagesContainerdStep)
	steps := append([]step.Step{repository, first}, c.containerd(deps)...)
	return append(steps, begin, rest, plugins, Crictl(d.Host), images)
}

// containerd are the steps that need nothing but containerd.
func (c Config) containerd(d ContainerdDeps) []step.Step {
	steps := []step.Step{Containerd(d)}
	if minorNumber(c.Packages.Minor()) >= runtimeConfigMinor {
		steps = append(steps, RuntimeConfig(d.Host, c.Preflight.Ignore))
	}
	return append(steps, Registries(d))
}

// nodeFiles is the step "node/files", unless it is switched off. It comes after whatever writes
// the files; what an add-on writes later is drift's.
func (c Config) nodeFiles(d Deps) []step.Step {
	if !c.Kubeadm.Hardening.FilePermissions {
		return nil
	}
	return []step.Step{NodeFiles(d.Host, c.Kubeadm)}
}

// init is what the steps kubeadm/* are made of.
func (c Config) init(d Deps, connect func() (*kube.Client, error)) Init {
	return Init{
		Host: d.Host, Units: d.Systemd, Minor: c.Packages.Minor(), Managed: c.Packages.Manage, Ignore: c.Preflight.Ignore,
		Cluster:  Cluster{NodeName: c.NodeName(d.Hostname), Network: c.Network, Kubeadm: c.Kubeadm},
		Address:  c.address,
		Connect:  func() (API, error) { return connect() },
		Foreign:  ForeignCluster,
		Building: d.Building,
		Whole:    d.Whole,
		Timeouts: c.Timeouts,
	}
}

// swap is the step "kernel/swap": turned off for good, or kept for a kubelet that can have it.
func (c Config) swap(d Deps) step.Step {
	if c.Kernel.Swap == "keep" {
		kubelet := c.Kubeadm.KubeletConfiguration
		return kernel.KeepSwap(d.Host, c.Role != Etcd, kernel.KubeletSwap{
			FailSwapOn: kubelet.lookup("failSwapOn"), SwapBehavior: kubelet.lookup("memorySwap", "swapBehavior"),
		})
	}
	return kernel.Swap(d.Host, kernel.SwapSystem{
		Swapoff: kernel.Swapoff, DaemonReload: d.Systemd.DaemonReload, State: d.Systemd.State, Stop: d.Systemd.Stop,
	})
}

// ipv6 says whether pods or services have IPv6 addresses.
func (c Config) ipv6() bool {
	return strings.Contains(c.Network.PodSubnet+c.Network.ServiceSubnet, ":")
}

// noProxy is what this cluster's nodes reach without a proxy. In an image the node's address is
// known only if it was given: the first boot adds it.
func (c Config) noProxy(ctx context.Context, offline bool) ([]string, error) {
	networking := func(key, fallback string) string {
		if v := c.Kubeadm.ClusterConfiguration.lookup("networking", key); v != "" {
			return v
		}
		return fallback
	}
	list := strings.Split(networking("podSubnet", c.Network.PodSubnet), ",")
	list = append(list, strings.Split(networking("serviceSubnet", c.Network.ServiceSubnet), ",")...)
	list = append(list, "."+networking("dnsDomain", "cluster.local"))
	if offline && c.Node.Address == "" {
		return list, nil
	}
	address, err := c.address(ctx)
	if err != nil {
		return nil, err
	}
	return append(list, address.String()), nil
}

// address is the one that is advertised: the operator's, or the default route's source.
func (c Config) address(ctx context.Context) (netip.Addr, error) {
	if c.Node.Address != "" {
		return netip.ParseAddr(c.Node.Address)
	}
	return kernel.NodeAddress(ctx)
}

func resolve(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return err
}

// apiPort is where the API server is to listen, 0 for its default. What is no port is for
// kubeadm to refuse.
func (c Config) apiPort() uint16 {
	port, err := strconv.ParseUint(c.Kubeadm.InitConfiguration.lookup("localAPIEndpoint", "bindPort"), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}
