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
	if c.Kubeadm.ClusterConfiguration.at("etcd", "external") != nil {
		optional = []string{etcdUnit}
	}
	return needed, optional
}

const etcdUnit = "etcd.service"
