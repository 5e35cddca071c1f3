package lab

// artefacts is everything the lab can build, in an order in which each comes after its needs.
func artefacts() []artefact {
	return []artefact{
		programs("kubernetes", []program{kubernetesProgram()}, []string{
			"kubeadm", "kubelet", "kubectl",
			"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy",
		}),
		programs("etcd", etcdPrograms(), nil),
		programs("containerd2", containerdPrograms("containerd2", "github.com/containerd/containerd/v2", Containerd2Version), nil),
		programs("containerd17", containerdPrograms("containerd17", "github.com/containerd/containerd", Containerd17Version), nil),
		programs("coredns", []program{corednsProgram()}, nil),
		programs("pause", []program{pauseProgram()}, nil),
		programs("crictl", []program{crictlProgram()}, nil),
		programs("versitygw", []program{versitygwProgram()}, nil),
		kubePackages(),
		debianPackages(),
		repository(),
		proxyBase(),
		images(),
		labnet(),
		unpacked("prometheus", prometheusNames),
		unpacked("etcd34", "etcd-server"),
		rootfs(),
		vmImage(),
	}
}
