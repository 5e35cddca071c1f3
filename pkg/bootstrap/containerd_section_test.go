package bootstrap

import (
	"strings"
	"testing"
)

func TestContainerdConfigValidate(t *testing.T) {
	good := EndpointConfig{URL: "https://mirror.example:5000", CAFile: "/etc/ca.pem", UsernameFile: "/etc/user", PasswordFile: "credential:password"}
	mirror := func(change func(*EndpointConfig)) ContainerdConfig {
		e := good
		change(&e)
		return ContainerdConfig{Mirrors: []MirrorConfig{{Registry: "docker.io", Endpoints: []EndpointConfig{e}}}}
	}
	for name, tt := range map[string]struct {
		config ContainerdConfig
		want   string
	}{
		"nothing":      {},
		"all":          {config: mirror(func(*EndpointConfig) {})},
		"port":         {config: ContainerdConfig{Mirrors: []MirrorConfig{{Registry: "registry.example:5000", Endpoints: []EndpointConfig{{URL: "http://[fd00::1]:5000"}}}}}},
		"path":         {config: mirror(func(e *EndpointConfig) { e.URL += "/v2/dockerhub" })},
		"proxy":        {config: ContainerdConfig{Proxy: ProxyConfig{HTTP: "http://p:3128", HTTPS: "https://p:3129", NoProxy: []string{".example", "10.0.0.0/8"}}}},
		"no registry":  {ContainerdConfig{Mirrors: []MirrorConfig{{Endpoints: []EndpointConfig{good}}}}, `mirrors[0].registry: "" is not a registry's name`},
		"climbs":       {ContainerdConfig{Mirrors: []MirrorConfig{{Registry: "../x", Endpoints: []EndpointConfig{good}}}}, "is not a registry's name"},
		"URL":          {ContainerdConfig{Mirrors: []MirrorConfig{{Registry: "https://docker.io", Endpoints: []EndpointConfig{good}}}}, "is not a registry's name"},
		"twice":        {ContainerdConfig{Mirrors: []MirrorConfig{{"a.b", []EndpointConfig{good}}, {"a.b", []EndpointConfig{good}}}}, "mirrors[1].registry: a.b is given twice"},
		"no endpoints": {ContainerdConfig{Mirrors: []MirrorConfig{{Registry: "a.b"}}}, "mirrors[0].endpoints: none"},
		"same":         {ContainerdConfig{Mirrors: []MirrorConfig{{"a.b", []EndpointConfig{good, good}}}}, "endpoints[1].url: https://mirror.example:5000 is given twice"},
		"scheme":       {mirror(func(e *EndpointConfig) { e.URL = "mirror.example" }), "mirrors[0].endpoints[0].url: is not a URL"},
		"user":         {mirror(func(e *EndpointConfig) { e.URL = "https://me:hunter2@mirror.example" }), "url: holds a user: give usernameFile"},
		"plain":        {mirror(func(e *EndpointConfig) { e.URL = "http://mirror.example" }), "sent unencrypted"},
		"CA of http":   {mirror(func(e *EndpointConfig) { *e = EndpointConfig{URL: "http://x", CAFile: "/ca"} }), "caFile: has no use"},
		"relative CA":  {mirror(func(e *EndpointConfig) { e.CAFile = "ca.pem" }), `caFile: "ca.pem" is not an absolute path`},
		"half":         {mirror(func(e *EndpointConfig) { e.PasswordFile = "" }), "go together"},
		"password":     {mirror(func(e *EndpointConfig) { e.PasswordFile = "secret" }), "passwordFile: is neither"},
		"proxy user":   {ContainerdConfig{Proxy: ProxyConfig{HTTPS: "http://me:hunter2@p:1"}}, "proxy.https: holds a user"},
		"proxy URL":    {ContainerdConfig{Proxy: ProxyConfig{HTTP: "p:3128"}}, "proxy.http: is not a URL"},
		"quotes":       {ContainerdConfig{Proxy: ProxyConfig{HTTP: `http://p:3128/"`}}, "proxy.http: is not a URL"},
		"list":         {ContainerdConfig{Proxy: ProxyConfig{HTTP: "http://p:1", NoProxy: []string{"a,b"}}}, `proxy.noProxy[0]: "a,b" is not one`},
		"for nothing":  {ContainerdConfig{Proxy: ProxyConfig{NoProxy: []string{"a"}}}, "proxy.noProxy: no proxy is given"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.config.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("tells a secret: %v", err)
			}
		})
	}
}
