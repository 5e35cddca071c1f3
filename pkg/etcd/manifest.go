package etcd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// pod is the little of a static pod manifest that says how etcd runs.
type pod struct {
	Kind string `json:"kind"`
	Spec struct {
		Containers []container `json:"containers"`
	} `json:"spec"`
}

type container struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Args    []string `json:"args"`
}

// parseManifest reads a static pod manifest. The client certificate of its result is the
// server's own pair.
func parseManifest(data []byte) (Local, error) {
	var p pod
	if err := yaml.Unmarshal(data, &p); err != nil {
		return Local{}, err
	}
	if p.Kind != "Pod" {
		return Local{}, fmt.Errorf("kind is %q, not Pod", p.Kind)
	}
	for _, c := range p.Spec.Containers {
		line := slices.Concat(c.Command, c.Args)
		if len(line) > 0 && path.Base(line[0]) == "etcd" {
			return fromFlags(parseFlags(line[1:]))
		}
	}
	return Local{}, errors.New("no container whose command is etcd")
}

// parseFlags reads --flag=value, --flag value and -flag the way Go's flag package, which etcd
// uses, does; a flag without a value is there with an empty one, and the last of several wins.
// etcd has boolean flags, which take no separate value: those are followed by another flag or
// by nothing, so that what follows a flag and is none itself is its value.
func parseFlags(args []string) map[string]string {
	flags := map[string]string{}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, "-")
		name, value, hasValue := strings.Cut(name, "=")
		if !hasValue && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			value = args[i]
		}
		flags[name] = value
	}
	return flags
}

func fromFlags(flags map[string]string) (Local, error) {
	if flags["config-file"] != "" {
		return Local{}, fmt.Errorf("etcd takes its settings from --config-file=%s, which this version does not read", flags["config-file"])
	}
	l := Local{
		Name:     flags["name"],
		DataDir:  flags["data-dir"],
		CAFile:   flags["trusted-ca-file"],
		CertFile: flags["cert-file"],
		KeyFile:  flags["key-file"],
	}
	endpoint, err := chooseEndpoint(clientURLs(flags["listen-client-urls"]), clientURLs(flags["advertise-client-urls"]))
	if err != nil {
		return Local{}, err
	}
	l.Endpoint = endpoint.String()
	if endpoint.Scheme == "http" {
		l.CAFile, l.CertFile, l.KeyFile = "", "", ""
		return l, nil
	}
	if l.CertFile == "" || l.KeyFile == "" {
		return Local{}, fmt.Errorf("etcd serves %s, and --cert-file and --key-file are not both given", l.Endpoint)
	}
	for _, file := range []string{l.CAFile, l.CertFile, l.KeyFile} {
		if file != "" && !path.IsAbs(file) {
			return Local{}, fmt.Errorf("certificate file %q is not an absolute path", file)
		}
	}
	return l, nil
}

// clientURLs reads a comma-separated list and drops what is no address to dial over TCP.
func clientURLs(list string) []*url.URL {
	var urls []*url.URL
	for s := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" {
			continue
		}
		urls = append(urls, &url.URL{Scheme: u.Scheme, Host: u.Host})
	}
	return urls
}

// chooseEndpoint takes a loopback address that etcd listens on, else one that names the host,
// else what it tells its clients; loopback is only assumed of one that listens everywhere and
// tells nothing, because its certificate need not be valid for it.
func chooseEndpoint(listen, advertise []*url.URL) (*url.URL, error) {
	for _, fits := range []func(*url.URL) bool{isLoopback, isSpecific} {
		for _, u := range listen {
			if fits(u) {
				return u, nil
			}
		}
	}
	for _, u := range advertise {
		if isSpecific(u) {
			return u, nil
		}
	}
	if len(listen) > 0 {
		loopback := "127.0.0.1"
		if addr, err := netip.ParseAddr(listen[0].Hostname()); err == nil && addr.Is6() {
			loopback = "::1"
		}
		return &url.URL{Scheme: listen[0].Scheme, Host: net.JoinHostPort(loopback, listen[0].Port())}, nil
	}
	return nil, errors.New("no client URL in --listen-client-urls or --advertise-client-urls")
}

func isLoopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback() || u.Hostname() == "localhost"
}

func isSpecific(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsUnspecified()
}
