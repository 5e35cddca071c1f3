package kube_test

import (
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

func TestStaticPodFile(t *testing.T) {
	const manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	const pod = `spec:
  containers:
  - command: [kube-apiserver, --encryption-provider-config=/enc/keys/config.yaml, --audit-policy-file=/etc/policy.yaml]
    volumeMounts:
    - {name: all, mountPath: /enc}
    - {name: keys, mountPath: /enc/keys/}
    - {name: lookalike, mountPath: /enc/key}
  volumes:
  - {name: all, hostPath: {path: /srv/all}}
  - {name: keys, hostPath: {path: /etc/kubernetes/encryption}}
  - {name: lookalike, hostPath: {path: /wrong}}
`
	h := host.New(t.TempDir())
	get := func(flag, want string) {
		t.Helper()
		if got, err := kube.StaticPodFile(h, manifest, flag); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", flag, got, err, want)
		}
	}
	get("encryption-provider-config", "") // no manifest
	if err := h.MkdirAll("/etc/kubernetes/manifests", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile(manifest, []byte(pod), 0o600); err != nil {
		t.Fatal(err)
	}
	get("encryption-provider-config", "/etc/kubernetes/encryption/config.yaml")
	get("audit-policy-file", "/etc/policy.yaml")
	get("absent", "")
	if err := h.WriteFile(manifest, []byte("\tno yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kube.StaticPodFile(h, manifest, "absent"); err == nil {
		t.Error("what is no manifest was read")
	}
}
