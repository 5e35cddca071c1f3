package bootstrap

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// ContainerdConfig is the section "containerd".
type ContainerdConfig struct {
	// Mirrors are registries whose images are fetched from elsewhere.
	Mirrors []MirrorConfig `yaml:"mirrors"`
	// Proxy is what containerd fetches images through.
	Proxy ProxyConfig `yaml:"proxy"`
}

// MirrorConfig is where the images of one registry are fetched from.
type MirrorConfig struct {
	// Registry is the name in the images' names: docker.io, registry.k8s.io,
	// registry.example:5000. The registry itself, with its own endpoint here, needs none of
	// the others: that is how its certificate authority and its password are given.
	Registry string `yaml:"registry"`
	// Endpoints are asked in this order, and the registry itself after them.
	Endpoints []EndpointConfig `yaml:"endpoints"`
}

// EndpointConfig is one server that has a registry's images.
type EndpointConfig struct {
	// URL of the server, https://mirror.example:5000. One with a path is taken as it is, as
	// for a project of Harbor: https://harbor.example/v2/dockerhub
	URL string `yaml:"url"`
	// CAFile is the certificate authority that signed the server's certificate, as PEM; those
	// of the system when empty.
	CAFile string `yaml:"caFile"`
	// UsernameFile holds the user name, for a server that takes HTTP's basic authentication:
	// an absolute path of a file that only root can read, or credential:NAME of the unit's.
	UsernameFile string `yaml:"usernameFile"`
	// PasswordFile holds the password, in the same way.
	PasswordFile string `yaml:"passwordFile"`
}

// ProxyConfig is an HTTP proxy.
type ProxyConfig struct {
	// HTTP is the URL of the proxy for http:// addresses.
	HTTP string `yaml:"http"`
	// HTTPS is the URL of the proxy for https:// addresses, which are those of most registries.
	HTTPS string `yaml:"https"`
	// NoProxy are names, domains (.example) and subnets that are reached without it. Loopback,
	// this node, its pods, its services, .svc and the cluster's domain are added.
	NoProxy []string `yaml:"noProxy"`
}

// IsZero says that no proxy is asked for.
func (c ProxyConfig) IsZero() bool { return c.HTTP == "" && c.HTTPS == "" }

// registryName is what lies in front of an image's first slash: a name, and maybe a port.
var registryName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]*[a-z0-9])?(:[0-9]{1,5})?$`)

// Validate says what is wrong with the section.
func (c ContainerdConfig) Validate() error {
	var errs []error
	seen := map[string]bool{}
	for i, m := range c.Mirrors {
		at := fmt.Sprintf("mirrors[%d]", i)
		switch {
		case !registryName.MatchString(m.Registry):
			errs = append(errs, fmt.Errorf("%s.registry: %q is not a registry's name like docker.io or registry.example:5000", at, m.Registry))
		case seen[m.Registry]:
			errs = append(errs, fmt.Errorf("%s.registry: %s is given twice: list all its endpoints in one place", at, m.Registry))
		}
		seen[m.Registry] = true
		if len(m.Endpoints) == 0 {
			errs = append(errs, fmt.Errorf("%s.endpoints: none is given", at))
		}
		urls := map[string]bool{}
		for j, e := range m.Endpoints {
			errs = append(errs, e.validate(fmt.Sprintf("%s.endpoints[%d]", at, j)))
			if urls[e.URL] {
				errs = append(errs, fmt.Errorf("%s.endpoints[%d].url: %s is given twice", at, j, e.URL))
			}
			urls[e.URL] = true
		}
	}
	return errors.Join(append(errs, c.Proxy.validate())...)
}

func (c EndpointConfig) validate(at string) error {
	var errs []error
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "":
		errs = append(errs, fmt.Errorf("%s.url: is not a URL like https://mirror.example:5000", at))
	case u.User != nil:
		errs = append(errs, fmt.Errorf("%s.url: holds a user: give usernameFile and passwordFile", at))
	case u.Scheme == "http" && c.UsernameFile != "":
		errs = append(errs, fmt.Errorf("%s.url: a password would be sent unencrypted: use https", at))
	case u.Scheme == "http" && c.CAFile != "":
		errs = append(errs, fmt.Errorf("%s.caFile: has no use with http", at))
	}
	if c.CAFile != "" && !filepath.IsAbs(c.CAFile) {
		errs = append(errs, fmt.Errorf("%s.caFile: %q is not an absolute path", at, c.CAFile))
	}
	if (c.UsernameFile == "") != (c.PasswordFile == "") {
		errs = append(errs, fmt.Errorf("%s: usernameFile and passwordFile go together", at))
		return errors.Join(errs...)
	}
	if c.UsernameFile != "" {
		for _, s := range []struct{ key, source string }{{"usernameFile", c.UsernameFile}, {"passwordFile", c.PasswordFile}} {
			if err := host.ValidateSecret(s.source); err != nil {
				errs = append(errs, fmt.Errorf("%s.%s: %w", at, s.key, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (c ProxyConfig) validate() error {
	var errs []error
	for _, p := range []struct{ key, value string }{{"http", c.HTTP}, {"https", c.HTTPS}} {
		if p.value == "" {
			continue
		}
		u, err := url.Parse(p.value)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || notOneWord(p.value):
			errs = append(errs, fmt.Errorf("proxy.%s: is not a URL like http://proxy.example:3128", p.key))
		case u.User != nil:
			// systemd shows a unit's environment to every user of the host.
			errs = append(errs, fmt.Errorf("proxy.%s: holds a user: everybody on the host could read it; use a proxy that needs none", p.key))
		}
	}
	for i, name := range c.NoProxy {
		if name == "" || strings.Contains(name, ",") || notOneWord(name) {
			errs = append(errs, fmt.Errorf("proxy.noProxy[%d]: %q is not one name, domain, address or subnet", i, name))
		}
	}
	if c.IsZero() && len(c.NoProxy) > 0 {
		errs = append(errs, errors.New("proxy.noProxy: no proxy is given"))
	}
	return errors.Join(errs...)
}

// notOneWord says that a value cannot stand between quotes in a unit's environment as it is.
func notOneWord(value string) bool {
	odd := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '"' || r == '\\' }
	return !utf8.ValidString(value) || strings.ContainsFunc(value, odd)
}
