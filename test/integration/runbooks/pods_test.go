//go:build integration

package runbooks_test

// pods makes the pods of etcd and kube-apiserver as the kubelet makes them, by crictl: the kubelet
// itself cannot run in a container. Each has one container that has died, and its log says why. The
// programs are the machine's own, and the image is pause's, made here: no other is needed. Where the
// tests run root may not lower a process's oom_score_adj, as a pod's is by default.
const pods = `
sed -i 's/^ *\[plugins."io.containerd.grpc.v1.cri"\]$/&\n    restrict_oom_score_adj = true/' /etc/containerd/config.toml
systemctl restart containerd
mkdir /srv/pods; cd /srv/pods
tar -c -C ` + pauseDir + ` -f layer.tar pause
cat >config.json <<END
{"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum layer.tar | cut -d' ' -f1)"]}}
END
image=$(containerd config dump | sed -n 's/^ *sandbox_image = "\(.*\)"$/\1/p')
echo '[{"Config": "config.json", "RepoTags": ["'$image'"], "Layers": ["layer.tar"]}]' >manifest.json
tar -c manifest.json config.json layer.tar | ctr -n k8s.io images import - >/dev/null
run() {
	cat >pod.yaml <<END
metadata: {name: $1-node1, namespace: kube-system, uid: $1}
annotations: {kubernetes.io/config.source: file}
log_directory: /var/log/pods/kube-system_$1-node1_$1
linux: {security_context: {namespace_options: {network: 2}}}
END
	cat >container.yaml <<END
metadata: {name: $1}
labels: {io.kubernetes.pod.name: $1-node1, io.kubernetes.pod.namespace: kube-system}
image: {image: $image}
command: [$2/$1, $3]
mounts: [{host_path: $2, container_path: $2, readonly: true}]
log_path: $1/0.log
END
	crictl run --no-pull container.yaml pod.yaml
}
run etcd ` + etcdDir + ` --config-file=/etc/etcd.yaml
run kube-apiserver ` + kubernetesDir + ` --advertise-address=10.77.0.1
`

// What the runbooks have a reader type to look at them, and what is in the logs.
const (
	psEtcd        = "crictl ps -a --name etcd"
	psAPIServer   = "crictl ps -a --name kube-apiserver"
	logs          = "crictl logs ID"
	etcdDied      = "open /etc/etcd.yaml: no such file or directory"
	apiServerDied = "--etcd-servers must be specified"
)

// logsOf is logs with the ID that ps shows, as it shows it.
func logsOf(ps string) string {
	return "crictl logs $(" + ps + " | awk 'NR == 2 {print $1}')"
}
