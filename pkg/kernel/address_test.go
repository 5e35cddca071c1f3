package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func network(t *testing.T, cidr string) *net.IPNet {
	t.Helper()
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil {
		t.Fatal(err)
	}
	n.IP = ip
	return n
}

func TestChooseAddress(t *testing.T) {
	ip := net.ParseIP
	addr := func(link int, cidr string, flags int) netlink.Addr {
		return netlink.Addr{IPNet: network(t, cidr), LinkIndex: link, Flags: flags}
	}
	eth := []netlink.Addr{addr(1, "127.0.0.1/8", 0), addr(2, "10.0.2.15/24", 0), addr(3, "192.168.1.7/24", 0)}
	via := func(link int, gateway string, metric int) netlink.Route {
		return netlink.Route{LinkIndex: link, Gw: ip(gateway), Priority: metric}
	}
	const many = "two default routes of metric "
	tests := map[string]struct {
		routes []netlink.Route
		addrs  []netlink.Addr
		want   string
	}{
		"nothing":                        {nil, eth, ""},
		"no default":                     {[]netlink.Route{{LinkIndex: 2, Dst: network(t, "10.0.2.0/24")}}, eth, ""},
		"one":                            {[]netlink.Route{{LinkIndex: 2, Dst: network(t, "10.0.2.0/24")}, via(2, "10.0.2.2", 0)}, eth, "10.0.2.15"},
		"written out":                    {[]netlink.Route{{LinkIndex: 2, Dst: network(t, "0.0.0.0/0"), Gw: ip("10.0.2.2")}}, eth, "10.0.2.15"},
		"half of all":                    {[]netlink.Route{{LinkIndex: 2, Dst: network(t, "0.0.0.0/1"), Gw: ip("10.0.2.2")}}, eth, ""},
		"preferred":                      {[]netlink.Route{{LinkIndex: 2, Gw: ip("10.0.2.2"), Src: ip("10.9.9.9")}}, eth, "10.9.9.9"},
		"lowest metric":                  {[]netlink.Route{via(2, "10.0.2.2", 200), via(3, "192.168.1.1", 100)}, eth, "192.168.1.7"},
		"highest metric first":           {[]netlink.Route{via(3, "192.168.1.1", 100), via(2, "10.0.2.2", 0)}, eth, "10.0.2.15"},
		"equal metrics":                  {[]netlink.Route{via(3, "192.168.1.1", 100), via(2, "10.0.2.2", 100)}, eth, many + "100, via 192.168.1.1 with the address 192.168.1.7 and via 10.0.2.2 with 10.0.2.15"},
		"equal, and a lower one":         {[]netlink.Route{via(3, "192.168.1.1", 100), {LinkIndex: 2, Priority: 100}, via(2, "10.0.2.2", 50)}, eth, "10.0.2.15"},
		"equal, and a higher one":        {[]netlink.Route{via(2, "10.0.2.2", 200), via(3, "192.168.1.1", 0), {LinkIndex: 2}}, eth, many + "0, via 192.168.1.1 with the address 192.168.1.7 and over link 2 with 10.0.2.15"},
		"two gateways, one address":      {[]netlink.Route{via(2, "10.0.2.2", 100), via(2, "10.0.2.3", 100)}, eth, "10.0.2.15"},
		"several paths, one address":     {[]netlink.Route{{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 2, Gw: ip("10.0.2.2")}, {LinkIndex: 2, Gw: ip("10.0.2.3")}}}}, eth, "10.0.2.15"},
		"several paths, preferred":       {[]netlink.Route{{Src: ip("10.9.9.9"), MultiPath: []*netlink.NexthopInfo{{LinkIndex: 2, Gw: ip("10.0.2.2")}, {LinkIndex: 3, Gw: ip("192.168.1.1")}}}}, eth, "10.9.9.9"},
		"blackhole":                      {[]netlink.Route{{LinkIndex: 2, Type: unix.RTN_UNREACHABLE}, via(3, "192.168.1.1", 100)}, eth, "192.168.1.7"},
		"link with no address, then one": {[]netlink.Route{via(9, "10.1.1.1", 0), via(2, "10.0.2.2", 100)}, eth, "10.0.2.15"},
		"point to point":                 {[]netlink.Route{{LinkIndex: 2}}, eth, "10.0.2.15"},
		"several paths":                  {[]netlink.Route{{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 3, Gw: ip("192.168.1.1")}, {LinkIndex: 2, Gw: ip("10.0.2.2")}}}}, eth, many + "0, via 192.168.1.1 with the address 192.168.1.7 and via 10.0.2.2 with 10.0.2.15"},
		"gateway's network": {[]netlink.Route{via(2, "10.0.2.2", 0)},
			[]netlink.Addr{addr(2, "172.16.0.1/16", 0), addr(2, "10.0.2.15/24", 0)}, "10.0.2.15"},
		"secondary": {[]netlink.Route{via(2, "10.0.2.2", 0)},
			[]netlink.Addr{addr(2, "10.0.2.99/24", unix.IFA_F_SECONDARY), addr(2, "10.0.2.15/24", unix.IFA_F_PERMANENT)}, "10.0.2.15"},
		"ipv6": {[]netlink.Route{{LinkIndex: 2, Dst: network(t, "::/0"), Gw: ip("fe80::1")}},
			[]netlink.Addr{addr(2, "fe80::5/64", 0), addr(2, "2001:db8::dead/64", unix.IFA_F_TEMPORARY), addr(2, "2001:db8::bad/64", unix.IFA_F_TENTATIVE),
				addr(2, "2001:db8::01d/64", unix.IFA_F_DEPRECATED), addr(2, "2001:db8::5/64", 0)}, "2001:db8::5"},
		"link-local only": {[]netlink.Route{via(2, "169.254.0.1", 0)}, []netlink.Addr{addr(2, "169.254.7.7/16", 0)}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			have, err := chooseAddress(test.routes, test.addrs)
			got := ""
			switch {
			case errors.Is(err, ErrManyAddresses):
				got = strings.TrimSuffix(err.Error(), ": set node.address to the one that is meant")
			case err != nil:
				t.Fatal(err)
			case have.IsValid():
				got = have.String()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The machine that runs the tests has a default route or has none; either way the answer is
// the kernel's.
func TestNodeAddressIsOneOfThisHost(t *testing.T) {
	have, err := NodeAddress(t.Context())
	if err != nil {
		if !errors.Is(err, ErrNoAddress) && !errors.Is(err, ErrManyAddresses) {
			t.Fatal(err)
		}
		wantError(t, err, "set node.address")
		return
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == have {
			return
		}
	}
	t.Errorf("%s is none of this host's addresses %v", have, addrs)
}

func TestNodeAddressCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NodeAddress(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
}
