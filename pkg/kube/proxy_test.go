package kube

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// The environment's proxy is not used (net/http would, had Proxy been left nil), and the
// kubeconfig's own is.
func TestProxy(t *testing.T) {
	const kubeconfig = `{kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], users: [{name: u, user: {}}],
clusters: [{name: k, cluster: {server: "https://192.0.2.1:6443"%s}}]}`
	for extra, want := range map[string]string{"": "", `, proxy-url: "http://192.0.2.2:3128"`: "http://192.0.2.2:3128"} {
		config, err := restConfig(host.New(t.TempDir()), "/", fmt.Appendf(nil, kubeconfig, extra))
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest(http.MethodGet, config.Host, nil)
		if err != nil {
			t.Fatal(err)
		}
		if config.Proxy == nil {
			t.Fatal("the environment would choose the proxy")
		}
		got := ""
		if u, err := config.Proxy(req); err != nil {
			t.Fatal(err)
		} else if u != nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("proxy %q, want %q", got, want)
		}
	}
}
