package bootstrap

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// aptProxyNames are the variables by which apt is told of proxies.
var aptProxyNames = []string{"http_proxy", "https_proxy", "no_proxy"}

// proxyEnv is what of the environment apt is given. A proxy with a password is not in it, since
// everybody can read a unit's environment; apt's own configuration can hold one.
func proxyEnv(env []string) []string {
	var out []string
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		name = strings.ToLower(name)
		if !slices.Contains(aptProxyNames, name) || value == "" || strings.Contains(value, "@") {
			continue
		}
		if !slices.ContainsFunc(out, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
			out = append(out, name+"="+value)
		}
	}
	return out
}

// keyFetcher fetches keys by the proxy that apt would take: its own configuration's, or else
// the environment's.
func keyFetcher(h *host.Host) func(ctx context.Context, from string) ([]byte, error) {
	return func(ctx context.Context, from string) ([]byte, error) {
		out, err := h.Run(ctx, "/usr/bin/apt-config", "dump", "--format", "%F %v%n", "Acquire")
		if err != nil {
			return nil, fmt.Errorf("ask apt for its proxy: %w", err)
		}
		proxy := func(r *http.Request) (*url.URL, error) {
			switch proxy := aptProxy(string(out), r.URL.Hostname()); proxy {
			case "":
				return http.ProxyFromEnvironment(r)
			case "DIRECT", "false":
				return nil, nil
			default:
				return url.Parse(proxy)
			}
		}
		return fetchKey(ctx, &http.Transport{Proxy: proxy, ForceAttemptHTTP2: true}, from)
	}
}

// aptProxy finds the proxy for https to a host in apt's configuration, apt-transport-https(1):
// the host's before everybody's, https's before http's.
func aptProxy(config, hostname string) string {
	values := map[string]string{}
	for line := range strings.Lines(config) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[strings.ToLower(key)] = value
	}
	for _, key := range []string{
		"acquire::https::proxy::" + strings.ToLower(hostname), "acquire::http::proxy::" + strings.ToLower(hostname),
		"acquire::https::proxy", "acquire::http::proxy",
	} {
		if values[key] != "" {
			return values[key]
		}
	}
	return ""
}
