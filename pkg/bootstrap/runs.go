package bootstrap

// ContainerdSocket is where containerd serves the CRI.
const ContainerdSocket = containerdSocket

// Units are the units that a host of this role lives by. optional are those that are looked at
// where the host has them: an external etcd may run on this host, or on others.
func (c Config) Units() (needed, optional []string) {
	if c.Role == Etcd {
		return []string{etcdUnit}, nil
	}
	needed = []string{containerdUnit, kubeletUnit}
	if c.ExternalEtcd() {
		optional = []string{etcdUnit}
	}
	return needed, optional
}

// ExternalEtcd says that the cluster's etcd is not kubeadm's own. Its members may run on this host
// all the same.
func (c Config) ExternalEtcd() bool {
	return c.Role == ControlPlane && c.Kubeadm.ClusterConfiguration.at("etcd", "external") != nil
}

const etcdUnit = "etcd.service"
