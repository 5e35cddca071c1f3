package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrintRedacts(t *testing.T) {
	cfg := mustParse(t, `
role: control-plane
kubeadm:
  clusterConfiguration:
    apiServer:
      extraEnvs: [{name: HTTPS_PROXY, value: "http://me:hunter2@proxy.example.com:3128/x@y"}, {name: AWS_SECRET_ACCESS_KEY, value: hunter2}, {value: hunter2, name: X_TOKEN}]
  initConfiguration:
    bootstrapTokens: [{token: abcdef.hunter2hunter2aa, ttl: 1h}]
    certificateKey: hunter2
    nodeRegistration: {kubeletExtraArgs: [{name: v, value: "2"}]}
`)
	secrets := []string{
		"kubeadm.clusterConfiguration.apiServer.extraEnvs[0].value", "kubeadm.clusterConfiguration.apiServer.extraEnvs[1].value",
		"kubeadm.clusterConfiguration.apiServer.extraEnvs[2].value",
		"kubeadm.initConfiguration.bootstrapTokens[0].token", "kubeadm.initConfiguration.certificateKey",
	}
	if diff := cmp.Diff(secrets, cfg.Secrets()); diff != "" {
		t.Errorf("secrets: %s", diff)
	}
	if have := Default().Secrets(); len(have) > 0 {
		t.Errorf("secrets of an empty file: %v", have)
	}
	before := mustPrint(t, cfg)
	printed, err := cfg.Print()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"{token: REDACTED, ttl: 1h}", "certificateKey: REDACTED", `value: "http://REDACTED@proxy.example.com:3128/x@y"`,
		"keepLast: 28", `{name: v, value: "2"}`, "serviceSubnet: 10.96.0.0/12",
	} {
		if !strings.Contains(string(printed), want) {
			t.Errorf("%q is not in:\n%s", want, printed)
		}
	}
	if strings.Contains(string(printed), "hunter2") {
		t.Errorf("a secret is in:\n%s", printed)
	}
	if diff := cmp.Diff(before, mustPrint(t, cfg)); diff != "" {
		t.Errorf("printing changed the configuration: %s", diff)
	}
	again, err := mustParse(t, string(printed)).Print()
	if err != nil || string(again) != string(printed) {
		t.Errorf("printed, read and printed: %v\n%s", err, cmp.Diff(string(printed), string(again)))
	}
}
