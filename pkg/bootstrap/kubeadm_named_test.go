package bootstrap

import (
	"errors"
	"os"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Files that arguments of the control plane and of the kubelet name.
func TestNamedFiles(t *testing.T) {
	const volume = "extraVolumes: [{name: v, hostPath: /srv/in, mountPath: /in}, {name: w, hostPath: /srv/deep, mountPath: /in/deep}]"
	apiServer := func(arg, value string) KubeadmConfig {
		return KubeadmConfig{ClusterConfiguration: passthrough(t, "apiServer: {extraArgs: [{name: "+arg+", value: "+value+"}], "+volume+"}")}
	}
	kubelet := func(arg, value string) KubeadmConfig {
		return KubeadmConfig{InitConfiguration: passthrough(t, "nodeRegistration: {kubeletExtraArgs: [{name: "+arg+", value: "+value+"}]}")}
	}
	const secret, written = "others can read or write it (mode 0644); chmod 0600 ", "others can write it (mode 0666); chmod go-w "
	tests := map[string]struct {
		config KubeadmConfig
		want   string // "" is accepted
	}{
		"encryption keys":            {apiServer("encryption-provider-config", "/in/open"), "clusterConfiguration.apiServer.extraArgs (encryption-provider-config): /srv/in/open is not safe to go by: " + secret + "/srv/in/open"},
		"encryption keys, closed":    {apiServer("encryption-provider-config", "/in/closed"), ""},
		"tokens, innermost volume":   {apiServer("token-auth-file", "/in/deep/open"), secret + "/srv/deep/open"},
		"a webhook's kubeconfig":     {apiServer("authorization-webhook-config-file", "/in/open"), secret},
		"a public key":               {apiServer("service-account-key-file", "/in/open"), ""},
		"a public key, writable":     {apiServer("service-account-key-file", "/in/written"), written},
		"admission":                  {apiServer("admission-control-config-file", "/in/written"), written + "/srv/in/written"},
		"a certificate authority":    {apiServer("oidc-ca-file", "/in/written"), written},
		"in the PKI":                 {apiServer("tls-private-key-file", "/etc/kubernetes/pki/open.key"), secret + "/etc/kubernetes/pki/open.key"},
		"the pod's own":              {apiServer("oidc-ca-file", "/index/open"), ""},
		"kubeadm will make it":       {apiServer("kubelet-client-key", "/etc/kubernetes/pki/none.key"), ""},
		"no file":                    {apiServer("audit-log-path", "/in/written"), ""},
		"in a directory of others":   {apiServer("audit-policy-file", "/in/shared/file"), "directory /srv/in/shared is not safe to go by"},
		"no mapping":                 {KubeadmConfig{ClusterConfiguration: passthrough(t, "apiServer: x")}, ""},
		"controller manager":         {KubeadmConfig{ClusterConfiguration: passthrough(t, "controllerManager: {extraArgs: [{name: cluster-signing-key-file, value: /in/open}], "+volume+"}")}, secret},
		"scheduler":                  {KubeadmConfig{ClusterConfiguration: passthrough(t, "scheduler: {extraArgs: [{name: config, value: /in/written}], "+volume+"}")}, written},
		"etcd":                       {KubeadmConfig{ClusterConfiguration: passthrough(t, "etcd: {local: {extraArgs: [{name: peer-key-file, value: /etc/kubernetes/pki/open.key}]}}")}, "clusterConfiguration.etcd.local.extraArgs (peer-key-file): "},
		"kubelet's kubeconfig":       {kubelet("bootstrap-kubeconfig", "/srv/in/open"), "initConfiguration.nodeRegistration.kubeletExtraArgs (bootstrap-kubeconfig): " + "/srv/in/open is not safe to go by: " + secret},
		"kubelet's directory":        {kubelet("root-dir", "/srv/in/shared"), ""},
		"kubelet's key":              {KubeadmConfig{KubeletConfiguration: passthrough(t, "tlsPrivateKeyFile: /srv/in/open")}, "kubeletConfiguration.tlsPrivateKeyFile"},
		"kubelet's certificate":      {KubeadmConfig{KubeletConfiguration: passthrough(t, "tlsCertFile: /srv/in/open")}, ""},
		"kubelet's clients, written": {KubeadmConfig{KubeletConfiguration: passthrough(t, "authentication: {x509: {clientCAFile: /srv/in/written}}")}, written},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			for _, path := range []string{"/srv/in/open", "/srv/deep/open", "/etc/kubernetes/pki/open.key"} {
				put(t, l.Host, path, "x", 0o644)
			}
			put(t, l.Host, "/srv/in/closed", "x", 0o600)
			put(t, l.Host, "/srv/in/written", "x", 0o666)
			put(t, l.Host, "/srv/in/shared/file", "x", 0o600)
			real, err := l.Path("/srv/in/shared")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(real, 0o777); err != nil {
				t.Fatal(err)
			}
			err = l.init(test.config).inputs()
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, "look at kubeadm.", test.want)
			if !errors.Is(err, host.ErrUntrusted) {
				t.Errorf("%v is not ErrUntrusted", err)
			}
		})
	}
}
