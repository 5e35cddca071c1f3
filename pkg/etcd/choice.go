package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Choice is what an operator says about the member, where it cannot be found, or not that alone.
// Nothing of it has to be given.
type Choice struct {
	// Endpoints are client URLs. The one on this host is used.
	Endpoints []string
	// CAFile, CertFile and KeyFile replace what was found: the authority of the server's
	// certificate, and the client certificate.
	CAFile, CertFile, KeyFile string
}

// Validate returns every mistake, each beginning with its field.
func (c Choice) Validate() error {
	var errs []error
	for i, endpoint := range c.Endpoints {
		if err := validateEndpoint(endpoint); err != nil {
			errs = append(errs, fmt.Errorf("endpoints[%d]: %w", i, err))
		} else if slices.Contains(c.Endpoints[:i], endpoint) {
			errs = append(errs, fmt.Errorf("endpoints[%d]: %q is there twice", i, endpoint))
		}
	}
	for _, f := range []struct{ field, path string }{{"caFile", c.CAFile}, {"certFile", c.CertFile}, {"keyFile", c.KeyFile}} {
		if f.path != "" && (!path.IsAbs(f.path) || path.Clean(f.path) != f.path || strings.ContainsFunc(f.path, unicode.IsControl)) {
			errs = append(errs, fmt.Errorf("%s: %q is not a plain absolute path", f.field, f.path))
		}
	}
	if c.CertFile == "" && c.KeyFile != "" {
		errs = append(errs, errors.New("certFile: is missing beside keyFile"))
	}
	if c.CertFile != "" && c.KeyFile == "" {
		errs = append(errs, errors.New("keyFile: is missing beside certFile"))
	}
	return errors.Join(errs...)
}

// validateEndpoint does not quote what may have a password in it.
func validateEndpoint(endpoint string) error {
	const form = "as in https://192.0.2.10:2379 or unix:///run/etcd.sock"
	u, err := url.Parse(endpoint)
	if err != nil || u.User != nil || strings.Contains(endpoint, "@") {
		return errors.New("is no URL of etcd's, " + form)
	}
	urls := clientURLs(endpoint)
	if len(urls) != 1 || urls[0].String() != endpoint || isUnix(u) && !path.IsAbs(u.Path) {
		return fmt.Errorf("%q is no URL of etcd's, %s", endpoint, form)
	}
	if !isUnix(u) && !isSpecific(u) {
		return fmt.Errorf("%q is no address to connect to", endpoint)
	}
	return nil
}

// apply lets the files that are configured replace those that were found.
func (c Choice) apply(l *Local) {
	if c.CAFile != "" {
		l.ca = file{path: c.CAFile}
	}
	if c.CertFile != "" {
		l.pairs, l.bare = []pair{{cert: file{path: c.CertFile}, key: file{path: c.KeyFile}}}, false
	}
}

// find takes the endpoint that is this host's, and the certificates of the process that serves
// it, if that can be seen.
func (c Choice) find(ctx context.Context, h *host.Host, running []process, here network) (Local, error) {
	var chosen *url.URL
	var by []process
	for _, endpoint := range c.Endpoints {
		urls := clientURLs(endpoint)
		if len(urls) != 1 {
			return Local{}, fmt.Errorf("backup.endpoints: %w", validateEndpoint(endpoint))
		}
		servers := serversOf(ctx, here, running, urls[0])
		if !isUnix(urls[0]) && here.own(ctx, urls[0].Hostname()) == nil && len(servers) == 0 {
			continue // another member's host
		}
		if len(servers) > 1 {
			return Local{}, several(servers)
		}
		if chosen == nil {
			chosen, by = urls[0], servers
		} else if len(by) == 0 || len(servers) == 0 || by[0].pid != servers[0].pid {
			return Local{}, fmt.Errorf("backup.endpoints: both %s and %s are on this host: leave one of them", chosen, endpoint)
		}
	}
	if chosen == nil {
		return Local{}, fmt.Errorf("backup.endpoints: none of %s is on this host, and other members are backed up where they run", strings.Join(c.Endpoints, ", "))
	}
	var p process
	if len(by) > 0 {
		if p = by[0]; p.err != nil {
			return Local{}, fmt.Errorf("process %d, %s: %w", p.pid, p.runs, p.err)
		}
		there, err := h.Exists(Manifest)
		if err != nil {
			return Local{}, err
		}
		p.stacked = there && p.runs.inPod()
	}
	l := p.local([]string{chosen.String()}, c, here)
	l.listen = nil // it was chosen, no other
	return l, nil
}

// serversOf are the processes that serve u. One in a network of its own serves it, through a
// published port, only where none on this host's does.
func serversOf(ctx context.Context, here network, running []process, u *url.URL) []process {
	for _, apart := range []bool{false, true} {
		var servers []process
		for _, p := range running {
			if p.err == nil && p.apart == apart && p.serves(ctx, here, u) {
				servers = append(servers, p)
			}
		}
		if len(servers) > 0 {
			return servers
		}
	}
	return nil
}
