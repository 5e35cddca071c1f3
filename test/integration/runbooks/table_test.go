//go:build integration

package runbooks_test

// What some commands say in several runbooks.
const (
	dead    = "Active: inactive (dead)"
	drifted = "crictl.yaml"
)

const (
	// The other order hangs: the API server waits for etcd.
	noEtcd = `systemctl stop kube-apiserver.service; systemctl stop etcd.service`
	etcd   = `systemctl start etcd.service kube-apiserver.service`
	// issue makes the API server's certificate anew, from a file of kubeadm's.
	issue = `rm -f /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key; kubeadm init phase certs apiserver --config `
)

// expires is the state of both runbooks about it.
func expires(alert, days string) runbook {
	return runbook{
		alert: alert,
		begin: `{ cat /srv/kubeadm.yaml; echo "certificateValidityPeriod: ` + days + `"; } >/srv/short.yaml
			` + issue + `/srv/short.yaml
			openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=system:nodes/CN=system:node:node1 -addext subjectAltName=DNS:node1 -keyout /dev/null -out /srv/node1.csr 2>/dev/null
			kubectl delete csr --all; kubectl create -f - <<END
			{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "csr-1"},
			 "spec": {"signerName": "kubernetes.io/kubelet-serving", "usages": ["digital signature", "server auth"], "request": "$(base64 -w0 /srv/node1.csr)"}}
END`,
		outcomes: map[string]outcome{
			"nodeagent certs list":           prints("/etc/kubernetes/pki/apiserver.crt"),
			"kubeadm certs check-expiration": prints("apiserver", "admin.conf"),
			"openssl x509 -noout -subject -enddate -in /etc/kubernetes/pki/apiserver.crt": prints("CN = kube-apiserver", "notAfter="),
			"kubeadm certs renew all":              prints("certificate for serving the Kubernetes API renewed"),
			"journalctl -u kubelet -g certificate": exits(1, "No entries"), // it has come to no certificate
			"kubectl get csr":                      prints("csr-1", "Pending"),
			"kubectl certificate approve NAME":     prints("csr-1 approved"),
		},
		typed: map[string]string{"kubectl certificate approve NAME": "kubectl certificate approve csr-1"},
		well:  `nodeagent certs list | grep /etc/kubernetes/pki/apiserver.crt | grep -q ' 36[345]d'`,
	}
}

// noSnapshot is the state of both runbooks about it: etcd does not answer, and the store's disk is not
// mounted.
func noSnapshot(alert string) runbook {
	return runbook{
		alert: alert,
		begin: `umount /var/lib/nodeagent/backups; ` + noEtcd,
		outcomes: map[string]outcome{
			"nodeagent status":                                exits(2, "snapshot"),
			"nodeagent snapshot save":                         exits(1, "dial etcd at https://127.0.0.1:2379"),
			"journalctl -u nodeagent -g snapshot --since -1d": prints("job failed"),
			"nodeagent config print | grep -A 40 ^backup":     prints("keepLast: 3"),
			"df /var/lib/nodeagent/backups":                   prints("Filesystem"),
			psEtcd:                                            prints("Exited", "etcd-node1"),
			logs:                                              prints(etcdDied),
		},
		typed: map[string]string{logs: logsOf(psEtcd)},
		end:   etcd + `; findmnt /var/lib/nodeagent/backups`,
		well:  `nodeagent snapshot list | grep node1`,
	}
}

var runbooks = []runbook{
	{ // before there is a cluster
		alert: "NodeagentBootstrapIncomplete",
		begin: pods + "systemd-run --quiet --unit=squatter python3 -m http.server 6443; systemctl start nodeagent.service",
		outcomes: map[string]outcome{
			"nodeagent status":              exits(2, "Port-6443"),
			"journalctl -u nodeagent -n 50": prints("bootstrap failed; it is tried again"),
			"systemctl status nodeagent":    prints("bootstrap failed, next try in"),
			"nodeagent plan":                exits(2, "Port-6443"),
			"crictl ps -a":                  prints("Exited", "etcd-node1", "kube-apiserver-node1"),
		},
		end: "systemctl stop squatter\n" + cluster,
	},
	{
		alert: "NodeagentUnitDown",
		begin: "systemctl start nodeagent.service; systemctl disable --quiet --now kubelet",
		outcomes: map[string]outcome{
			"nodeagent status":                    exits(2, "kubelet.service"),
			"systemctl status kubelet containerd": exits(3, dead, "Active: active (running)"),
			"nodeagent plan":                      exits(2),
		},
		end: "systemctl is-enabled kubelet",
	},
	{
		alert: "NodeagentAbsent",
		begin: `ln -sf ` + prometheusDir + `/usr/bin/promtool /usr/local/bin/promtool
			printf 'scrape_configs:\n  - job_name: nodeagent\n    static_configs: [{targets: ["127.0.0.1:10980"]}]\n' >/etc/prometheus/prometheus.yml`,
		outcomes: map[string]outcome{
			"curl -s http://127.0.0.1:10980/metrics | grep nodeagent_build_info": prints("nodeagent_build_info{"),
			"promtool check config /etc/prometheus/prometheus.yml":               prints("SUCCESS"),
		},
	},
	expires("NodeagentCertificateExpires", "216h"),
	expires("NodeagentCertificateExpiresSoon", "500h"),
	{
		alert: "NodeagentCertificateUnreadable",
		begin: `mv /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key /srv/; mv /etc/kubernetes/scheduler.conf /srv/`,
		outcomes: map[string]outcome{
			"nodeagent certs list":                                                        exits(1, "/etc/kubernetes/pki/apiserver.crt: /etc/kubernetes/manifests/kube-apiserver.yaml names it"),
			`grep -rn '\.crt' /etc/kubernetes/manifests`:                                  prints("--tls-cert-file=/etc/kubernetes/pki/apiserver.crt"),
			"kubeadm init phase certs --help":                                             prints("apiserver-kubelet-client"),
			"kubeadm init phase certs apiserver --config /var/lib/nodeagent/kubeadm.yaml": prints("serving cert is signed for DNS names"),
			"kubeadm init phase kubeconfig all --config /var/lib/nodeagent/kubeadm.yaml":  prints(`Writing "scheduler.conf"`),
		},
		well: `nodeagent certs list | grep /etc/kubernetes/pki/apiserver.crt | grep -q 364d; nodeagent certs list | grep -q scheduler.conf`,
	},
	{
		alert: "NodeagentConfigReloadFailed",
		begin: `cp -a /etc/nodeagent/config.yaml /srv/config.yaml; echo 'netwrk: {}' >>/etc/nodeagent/config.yaml; systemctl reload nodeagent`,
		outcomes: map[string]outcome{
			"nodeagent config check":                   exits(1, "/etc/nodeagent/config.yaml:8", "netwrk", "network"),
			"journalctl -u nodeagent -g reloaded -n 5": prints("configuration not reloaded", "netwrk"),
		},
		end:  `cp -a /srv/config.yaml /etc/nodeagent/config.yaml; nodeagent config check; systemctl reload nodeagent`,
		well: series("nodeagent_config_last_reload_successful 1"),
	},
	{
		alert: "NodeagentDown",
		begin: "systemctl stop nodeagent",
		outcomes: map[string]outcome{
			"systemctl status nodeagent":             exits(3, dead),
			"journalctl -u nodeagent -n 50":          prints("stopped"),
			"curl -s http://127.0.0.1:10980/healthz": exits(7),
		},
		end:  "systemctl start nodeagent",
		well: "curl -s http://127.0.0.1:10980/healthz",
	},
	{
		alert: "NodeagentDriftFlapping",
		begin: `for i in 1 2 3 4; do until rm /etc/crictl.yaml; do sleep 0.1; done; test $i = 4 || until test -e /etc/crictl.yaml; do sleep 0.1; done; done 2>/dev/null`,
		outcomes: map[string]outcome{
			"journalctl -u nodeagent -g 'keeps coming back' -n 10": prints("/etc/crictl.yaml"),
			"journalctl -u nodeagent -g 'drift mended' -n 10":      prints("/etc/crictl.yaml"),
			"nodeagent plan": exits(2, "/etc/crictl.yaml"),
		},
		end: "nodeagent apply --only containerd",
	},
	{
		alert: "NodeagentStepDiffers",
		begin: "sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' /etc/containerd/config.toml",
		outcomes: map[string]outcome{
			"nodeagent plan":   exits(2, "SystemdCgroup"),
			"nodeagent status": exits(2, "step containerd: the host differs"),
		},
		end: "nodeagent apply --only containerd",
	},
	{
		alert: "NodeagentStepFindings",
		begin: "echo net.ipv4.ip_forward=0 >/etc/sysctl.d/99-other.conf",
		outcomes: map[string]outcome{
			"nodeagent plan": exits(2, "/etc/sysctl.d/99-other.conf", "only you can mend this"),
		},
		end: "rm /etc/sysctl.d/99-other.conf",
	},
	{
		alert: "NodeagentTextfileStale",
		begin: "mv /var/lib/prometheus/node-exporter /srv/; touch /var/lib/prometheus/node-exporter; nodeagent snapshot save",
		outcomes: map[string]outcome{
			"systemctl status nodeagent":                prints("Active: active (running)"),
			"journalctl -u nodeagent -g textfile -n 20": prints("textfile not written"),
			"nodeagent config print | grep textfile":    prints("/var/lib/prometheus/node-exporter/nodeagent.prom"),
		},
		end:  "rm /var/lib/prometheus/node-exporter; mv /srv/node-exporter /var/lib/prometheus/",
		well: "test -n \"$(find /var/lib/prometheus/node-exporter/nodeagent.prom -newermt '-20 seconds')\"",
	},
	{
		alert: "NodeagentJobOverdue",
		begin: noEtcd + "; systemd-run --quiet --unit=failed.service /bin/false",
		outcomes: map[string]outcome{
			"nodeagent status":                           exits(2, "job snapshot failed: dial etcd"),
			"journalctl -u nodeagent -g job --since -2h": prints("snapshot", "dial etcd"),
			"nodeagent snapshot save":                    exits(1, "dial etcd at https://127.0.0.1:2379"),
			"nodeagent plan":                             exits(2),
			"systemctl is-system-running":                exits(1, "degraded"),
			psEtcd:                                       prints("Exited", "etcd-node1"),
			logs:                                         prints(etcdDied),
		},
		typed: map[string]string{logs: logsOf(psEtcd)},
		end:   etcd,
	},
	{
		alert: "NodeagentSnapshotNotProven",
		begin: `systemctl stop nodeagent; nodeagent snapshot save; printf damaged | dd of="$(ls -t /var/lib/nodeagent/backups/*.db.zst | head -1)" bs=1 seek=100 conv=notrunc status=none`,
		outcomes: map[string]outcome{
			"nodeagent snapshot drill": exits(1, "of its manifest"),
			"nodeagent status":         exits(2),
			"journalctl -u nodeagent -u nodeagent-drill -g drill --since -9d": prints("drill"),
			"nodeagent snapshot verify --all":                                 exits(1, "of its manifest"),
			"nodeagent snapshot drill --from DIR":                             exits(1, "of its manifest"),
		},
		typed: map[string]string{"nodeagent snapshot drill --from DIR": "nodeagent snapshot drill --from /var/lib/nodeagent/backups"},
		end:   `rm "$(ls -t /var/lib/nodeagent/backups/*.db.zst | head -1)"*; nodeagent snapshot save; systemctl start nodeagent`,
		well:  "nodeagent snapshot drill",
	},
	{
		// The share is not mounted; `mount -a` of the runbook mounts it.
		alert: "NodeagentUploadFailing",
		begin: `cp /etc/nodeagent/config.yaml /srv/local.yaml
			sed -i 's|^backup:.*|backup: {interval: 2s, retention: {keepLast: 3}, stores: [{file: {dir: /var/lib/nodeagent/backups}}, {file: {dir: /mnt/share/etcd, shared: true, allowPlaintext: true}}]}|' /etc/nodeagent/config.yaml
			mkdir -p /mnt/share; echo 'share /mnt/share tmpfs size=100m,mode=755 0 0' >>/etc/fstab; systemctl daemon-reload
			systemctl restart nodeagent
			until ls /var/lib/nodeagent/spool/*/*.json >/dev/null 2>&1; do sleep 0.2; done; test ! -e /mnt/share/etcd`,
		outcomes: map[string]outcome{
			"nodeagent status":                              exits(2, "wait to be uploaded to file /mnt/share/etcd", "is the share mounted?"),
			"nodeagent snapshot list":                       exits(1, "waits to be uploaded to file /mnt/share/etcd"),
			"journalctl -u nodeagent -g upload --since -1d": prints("is the share mounted?"),
			"nodeagent config print | grep -A 40 ^backup":   prints("shared: true"),
			"df /var/lib/nodeagent/spool":                   prints("Filesystem"),
			"nodeagent snapshot save":                       prints("file /mnt/share/etcd: uploaded"),
		},
		end: `until test -z "$(ls /var/lib/nodeagent/spool/*/)"; do sleep 0.2; done
			systemctl stop nodeagent; mv /srv/local.yaml /etc/nodeagent/config.yaml; umount /mnt/share
			sed -i '/^share/d' /etc/fstab; systemctl daemon-reload; rm -r /var/lib/nodeagent/spool; systemctl start nodeagent`,
		well: `nodeagent snapshot list | grep node1`,
	},
	noSnapshot("NodeagentNoSnapshot"),
	noSnapshot("NodeagentSnapshotTooOld"),
	{
		alert: "NodeagentNodeNotReady",
		begin: `until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
			kubectl patch node node1 --subresource=status -p '{"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "NetworkPluginNotReady: cni plugin not initialized"}]}}'`,
		outcomes: map[string]outcome{
			"nodeagent status":            exits(2, "NetworkPluginNotReady"),
			"crictl info":                 prints("RuntimeReady"),
			"crictl ps -a":                prints("Exited", "etcd-node1", "kube-apiserver-node1"),
			"kubectl describe node":       prints("NetworkPluginNotReady"),
			"systemctl status containerd": prints("Active: active (running)"),
		},
	},
	{
		alert: "NodeagentNodeStatusUnknown",
		begin: "systemctl stop kube-apiserver.service",
		outcomes: map[string]outcome{
			"nodeagent status":                          exits(2, "the API", "type: crictl logs "),
			"grep server: /etc/kubernetes/kubelet.conf": prints("https://10.77.0.1:6443"),
			psEtcd:      prints("Exited", "etcd-node1"),
			psAPIServer: prints("Exited", "kube-apiserver-node1"),
			logs:        prints(apiServerDied),
		},
		typed: map[string]string{logs: logsOf(psAPIServer)},
		end:   "systemctl start kube-apiserver.service",
	},
}
