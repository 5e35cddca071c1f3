package certs_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/certs"
	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
)

// apiServer is the manifest of a static pod whose flags name certificates in each way that is
// in use, and files that are no business of the inventory.
const apiServer = `
apiVersion: v1
kind: Pod
spec:
  containers:
  - command:
    - kube-apiserver
    - --client-ca-file=/etc/kubernetes/pki/ca.crt
    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt
    - --tls-private-key-file=/etc/kubernetes/pki/apiserver.key
    - --etcd-certfile
    - /ext/client.crt
    - --service-account-key-file=/etc/kubernetes/pki/gone.pub
    - --requestheader-client-ca-file=/in/the/image.crt
    - --oidc-ca-file=/empty/ca.crt
    args: [--authentication-kubeconfig=/etc/kubernetes/scheduler.conf, --log-file=/ext/log.pem2]
    volumeMounts:
    - {name: pki, mountPath: /etc/kubernetes/pki}
    - {name: conf, mountPath: /etc/kubernetes/scheduler.conf}
    - {name: ext, mountPath: /ext/, subPath: sub}
    - {name: scratch, mountPath: /empty}
  volumes:
  - {name: pki, hostPath: {path: /etc/kubernetes/pki}}
  - {name: conf, hostPath: {path: /etc/kubernetes/scheduler.conf}}
  - {name: ext, hostPath: {path: /srv/etcd-client}}
  - {name: scratch, emptyDir: {}}
`

// What a static pod or the kubelet is given and is gone is a problem, although no directory
// shows it; what is there is listed once, also outside the usual places.
func TestNamedByTheirUsers(t *testing.T) {
	h := machine(t, certstest.Options{Kubelet: true})
	before, problems := inventory(t, h)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	put(t, h, "/etc/kubernetes/manifests/kube-apiserver.yaml", apiServer)
	put(t, h, "/etc/kubernetes/manifests/.hidden.yaml", strings.ReplaceAll(apiServer, "/pki/ca.crt", "/pki/hidden.crt"))
	put(t, h, "/etc/kubernetes/manifests/broken.yaml", "spec: [--client-ca-file=/etc/kubernetes/pki/broken.crt")
	put(t, h, "/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\nauthentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}\n")
	pem, err := h.ReadFile("/etc/kubernetes/pki/apiserver-etcd-client.crt")
	if err != nil {
		t.Fatal(err)
	}
	put(t, h, "/srv/etcd-client/sub/client.crt", string(pem))
	list, problems := inventory(t, h)
	added := slices.ContainsFunc(list, func(c certs.Certificate) bool { return c.Path == "/srv/etcd-client/sub/client.crt" })
	if len(problems) > 0 || len(list) != len(before)+1 || !added {
		t.Errorf("nothing is gone: %v, %d certificates after %d", problems, len(list), len(before))
	}

	for _, path := range []string{"/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/apiserver.crt", "/etc/kubernetes/scheduler.conf", "/srv/etcd-client/sub/client.crt"} {
		if err := h.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	_, problems = inventory(t, h)
	want := []string{
		"/etc/kubernetes/pki/apiserver.crt: /etc/kubernetes/manifests/kube-apiserver.yaml names it: is not there",
		"/etc/kubernetes/pki/ca.crt: /etc/kubernetes/manifests/kube-apiserver.yaml names it: is not there",
		"/etc/kubernetes/scheduler.conf: /etc/kubernetes/manifests/kube-apiserver.yaml names it: is not there",
		"/srv/etcd-client/sub/client.crt: /etc/kubernetes/manifests/kube-apiserver.yaml names it: is not there",
	}
	if diff := cmp.Diff(want, texts(problems)); diff != "" {
		t.Errorf("problems, each told once (-want +got):\n%s", diff)
	}
}
