//go:build integration

package hostfs_test

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/kernel"
)

// way is a default route over an interface of its own.
type way struct {
	link, address, gateway string
	metric                 int
}

var (
	first  = way{"first", "192.0.2.10/24", "192.0.2.1", 100}
	second = way{"second", "198.51.100.10/24", "198.51.100.1", 100}
)

// The routes of a real kernel: none, one, two of which one is better, and two that are as good.
func TestDefaultRoutes(t *testing.T) {
	worse := second
	worse.metric = 200
	for name, test := range map[string]struct {
		ways []way
		want string // an address, or what the error says
		err  error
	}{
		"none":         {nil, "no default route with an address of this host: set node.address", kernel.ErrNoAddress},
		"one":          {[]way{first}, "192.0.2.10", nil},
		"two":          {[]way{worse, first}, "192.0.2.10", nil},
		"two, as good": {[]way{first, second}, "via 192.0.2.1 with the address 192.0.2.10 and via 198.51.100.1 with 198.51.100.10: set node.address", kernel.ErrManyAddresses},
		"no address":   {[]way{{link: "first"}}, "set node.address", kernel.ErrNoAddress},
		"IPv6":         {[]way{{"first", "2001:db8::10/64", "2001:db8::1", 100}}, "2001:db8::10", nil},
		"IPv6, as good": {[]way{{"first", "2001:db8:1::10/64", "2001:db8:1::1", 100}, {"second", "2001:db8:2::10/64", "2001:db8:2::1", 100}},
			"2001:db8:2::10: set node.address", kernel.ErrManyAddresses},
	} {
		t.Run(name, func(t *testing.T) {
			// A thread in a network namespace of its own, which ends with the test.
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Fatal(err)
			}
			for _, w := range test.ways {
				if err := w.lay(); err != nil {
					t.Fatalf("%+v: %v", w, err)
				}
			}
			addr, err := kernel.NodeAddress(t.Context())
			switch {
			case !errors.Is(err, test.err):
				t.Errorf("got %s, %v, want %v", addr, err, test.err)
			case err != nil && !strings.Contains(err.Error(), test.want):
				t.Errorf("got %v, want %s", err, test.want)
			case err == nil && addr.String() != test.want:
				t.Errorf("got %s, want %s", addr, test.want)
			}
		})
	}
}

// lay makes the interface and the route. Appended, since the kernel takes a second route of
// equal metric only so.
func (w way) lay() error {
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.link}}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(w.gateway), Priority: w.metric}
	if w.address == "" {
		route.Dst = &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	} else {
		route.SetFlag(netlink.FLAG_ONLINK)
		addr, err := netlink.ParseAddr(w.address)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD // no waiting for neighbors that cannot be
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.RouteAppend(route)
}
