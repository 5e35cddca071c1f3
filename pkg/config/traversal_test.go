package config

import (
	"fmt"
	"strings"
	"testing"
)

// Values that become part of a path, as they would be given to get out of their directory.
func TestNamesThatLeaveTheirDirectory(t *testing.T) {
	for key, text := range map[string]string{
		"node.name":                            "node: {name: %s}",
		"node.adminKubeconfigFor":              "node: {adminKubeconfigFor: [%s]}",
		"kernel.modules":                       "kernel: {modules: [%s]}",
		"kernel.sysctls":                       "kernel: {sysctls: [{name: %s, value: '1'}]}",
		"packages.kubernetesVersion":           "packages: {kubernetesVersion: %s}",
		"packages.containerd":                  "packages: {containerd: %s}",
		"containerd.mirrors[0].registry":       "containerd: {mirrors: [{registry: %s, endpoints: [{url: 'https://m.example'}]}]}",
		"usernameFile":                         "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://m.example', passwordFile: /p, usernameFile: 'credential:'%s}]}]}",
		"packages.repository.keyFile":          "packages: {repository: {keyFile: %s}}",
		"kubeadm.patches":                      "kubeadm: {patches: %s}",
		"kubeadm.hardening.auditPolicyFile":    "kubeadm: {hardening: {auditPolicyFile: %s}}",
		"addons":                               "addons: [%s]",
		"images.archives":                      "images: {archives: [%s]}",
		"backup.stores[0].file.dir":            "backup: {stores: [{file: {dir: %s}}]}",
		"backup.endpoints[0]":                  "backup: {endpoints: [%s]}",
		"backup.caFile":                        "backup: {caFile: %s}",
		"backup.certFile":                      "backup: {certFile: %s, keyFile: /k}",
		"backup.keyFile":                       "backup: {certFile: /c, keyFile: %s}",
		"backup.timeZone":                      "backup: {timeZone: %s}",
		"metrics.webConfigFile":                "metrics: {webConfigFile: %s}",
		"containerd.mirrors[0].endpoints[0].c": "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://m.example', caFile: %s}]}]}",
	} {
		for _, name := range []string{"../../../../etc/x", "..", "a/../../b", "a\x00b", "a\nb"} {
			quoted := fmt.Sprintf("%q", name)
			if key == "usernameFile" {
				quoted = fmt.Sprintf("%q", "credential:"+name)
				text = strings.Replace(text, "'credential:'%s", "%s", 1)
			}
			_, err := Parse("c.yaml", fmt.Appendf(nil, "role: control-plane\n"+text+"\n", quoted))
			if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(key, ".c")) {
				t.Errorf("%s: %q: %v", key, name, err)
			}
		}
	}
}
