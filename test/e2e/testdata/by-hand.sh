#!/bin/bash
# A node by hand, as the documentation of Kubernetes has it: host, packages, containerd, kubeadm.
set -euxo pipefail
export DEBIAN_FRONTEND=noninteractive HOME=/root KUBECONFIG=/etc/kubernetes/admin.conf

swapoff -a
systemctl mask --now swap.target
sed -i '/\sswap\s/s/^/#/' /etc/fstab
printf 'overlay\nbr_netfilter\nnf_conntrack\n' >/etc/modules-load.d/kubernetes.conf
modprobe -a overlay br_netfilter nf_conntrack
printf 'net.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.ipv4.ip_forward = 1\n' >/etc/sysctl.d/kubernetes.conf
sysctl --system >/dev/null

cp /mnt/repository/debian/Release.key /etc/apt/keyrings/docker.asc
cp /mnt/repository/kubernetes/Release.key /etc/apt/keyrings/kubernetes.asc
echo 'deb [signed-by=/etc/apt/keyrings/docker.asc] file:/mnt/repository/debian /' >/etc/apt/sources.list.d/docker.list
echo 'deb [signed-by=/etc/apt/keyrings/kubernetes.asc] file:/mnt/repository/kubernetes /' >/etc/apt/sources.list.d/kubernetes.list
apt-get -q update
apt-get -q install -y containerd.io kubelet kubeadm kubectl
apt-mark hold kubelet kubeadm kubectl

mkdir -p /etc/containerd
containerd config default |
	sed "s/SystemdCgroup = false/SystemdCgroup = true/; s|sandbox = 'registry.k8s.io/pause:.*'|sandbox = 'registry.k8s.io/pause:3.10.2'|" >/etc/containerd/config.toml
systemctl restart containerd
ctr -n k8s.io images import /mnt/files/images.tar >/dev/null
systemctl enable kubelet

config=/root/kubeadm.yaml
if [ "$1" = init ]; then
	kubeadm init --config $config
else
	for phase in preflight 'certs all' 'kubeconfig all' 'etcd local' 'control-plane all' kubelet-start; do
		# shellcheck disable=SC2086 # a phase and its part
		kubeadm init phase $phase --config $config
	done
	until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 2; done
	for phase in 'upload-config all' mark-control-plane bootstrap-token 'kubelet-finalize all' 'addon all'; do
		# shellcheck disable=SC2086
		kubeadm init phase $phase --config $config
	done
fi
mkdir -p /etc/cni/net.d
cp /root/net.conflist /etc/cni/net.d/10-net.conflist
touch /run/by-hand-done
