package etcd

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

// lookupTimeout is how long a name may take to be resolved, of which etcd's URLs seldom hold any.
const lookupTimeout = 2 * time.Second

// network is what this host's addresses are known by.
type network struct {
	addresses func() ([]net.Addr, error)
	lookup    func(ctx context.Context, name string) ([]netip.Addr, error)
}

func systemNetwork() network {
	return network{
		addresses: net.InterfaceAddrs,
		lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
	}
}

// own are the addresses that name stands for, a literal address or a name, if all of them are
// addresses of this host or loopback ones: a name may well be a load balancer's. What cannot be
// resolved is not this host's.
func (n network) own(ctx context.Context, name string) []netip.Addr {
	if name == "localhost" { // whatever resolves it, or does not
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	found := []netip.Addr{}
	if addr, err := netip.ParseAddr(name); err == nil {
		found = append(found, addr)
	} else if found, err = n.lookup(ctx, name); err != nil {
		return nil
	}
	for i, addr := range found {
		if found[i] = addr.Unmap().WithZone(""); !addr.IsLoopback() && !n.has(found[i]) {
			return nil
		}
	}
	return found
}

// has says that an interface has the address.
func (n network) has(addr netip.Addr) bool {
	interfaces, err := n.addresses()
	return err == nil && slices.ContainsFunc(interfaces, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr
	})
}

// endpoints are the URLs at which p may be reached from here: a loopback address that it listens
// on, one of the host's, what it tells its clients if that is this host and no other; loopback
// is only assumed last of one that listens everywhere, because its certificate need not be valid
// for it. What serves HTTP alone is none. Of one in a network of its own only addresses of this
// host are any, which are published ones, and sockets.
func (p process) endpoints(ctx context.Context, here network) []string {
	var list []string
	add := func(u *url.URL) {
		if s := u.String(); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	if !p.apart {
		for _, fits := range []func(*url.URL) bool{isLoopback, isSpecific} { // the second too fits loopback
			for _, u := range p.listen {
				// One that it may take over, and has not, is another host's now.
				if !isUnix(u) && fits(u) && here.own(ctx, u.Hostname()) != nil {
					add(u)
				}
			}
		}
	}
	for _, u := range p.advertise {
		onlyHTTP := slices.ContainsFunc(p.plain, func(other *url.URL) bool { return other.Host == u.Host })
		if isUnix(u) || !isSpecific(u) || onlyHTTP || p.apart && isLoopback(u) || here.own(ctx, u.Hostname()) == nil {
			continue
		}
		add(u)
	}
	for _, u := range p.listen {
		switch {
		case isUnix(u):
			add(u)
		case !isSpecific(u) && !p.apart:
			loopback := "127.0.0.1"
			if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.Is6() {
				loopback = "::1"
			}
			add(&url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(loopback, u.Port())})
		}
	}
	return list
}

// serves says that p listens at u, which is an address of this host's, or, of a process in a
// network of its own, of that one's.
func (p process) serves(ctx context.Context, here network, u *url.URL) bool {
	for _, told := range p.advertise {
		if p.apart && told.Host == u.Host && told.Path == u.Path {
			return true
		}
	}
	at := here.own(ctx, u.Hostname())
	for _, listen := range p.listen {
		if isUnix(u) || isUnix(listen) {
			if isUnix(u) && isUnix(listen) && u.Path == listen.Path {
				return true
			}
			continue
		}
		if listen.Port() == u.Port() && (!isSpecific(listen) && at != nil || overlap(here.own(ctx, listen.Hostname()), at)) {
			return true
		}
	}
	return false
}

func overlap(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
}

// named are the URLs of this host that a certificate is valid for, and at which listen is served.
func (n network) named(ctx context.Context, listen []*url.URL, endpoint string, certificate *x509.Certificate) []string {
	var list []string
	for _, name := range certificateNames(certificate) {
		for _, own := range n.own(ctx, name) {
			for _, u := range listen {
				at := &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(name, u.Port())}
				if isUnix(u) || at.String() == endpoint || slices.Contains(list, at.String()) {
					continue
				}
				if !isSpecific(u) || overlap(n.own(ctx, u.Hostname()), []netip.Addr{own}) {
					list = append(list, at.String())
				}
			}
		}
	}
	return list
}

// certificateNames are the names that a server's certificate is valid for.
func certificateNames(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, fmt.Sprint(ip))
	}
	return names
}

func isLoopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback() || u.Hostname() == "localhost"
}

func isSpecific(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsUnspecified()
}
