package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoAddress says that the routes do not tell the node's address.
var ErrNoAddress = errors.New("no default route with an address of this host: set node.address")

// NodeAddress is the source address of the host's default route, of IPv4 if there is one, else
// of IPv6. It is ErrNoAddress when no default route tells one.
func NodeAddress(ctx context.Context) (netip.Addr, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find node address: %w", err)
	}
	defer handle.Close()
	if err := handle.SetSocketTimeout(5 * time.Second); err != nil {
		return netip.Addr{}, fmt.Errorf("find node address: %w", err)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := ctx.Err(); err != nil {
			return netip.Addr{}, context.Cause(ctx)
		}
		routes, addrs, err := list(handle, family)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("find node address: %w", err)
		}
		if addr, ok := chooseAddress(routes, addrs); ok {
			return addr, nil
		}
	}
	return netip.Addr{}, ErrNoAddress
}

// list reads the main table's routes and the addresses. The kernel says when they changed
// under the reader; a few tries are enough on a host that is not in turmoil.
func list(handle *netlink.Handle, family int) (routes []netlink.Route, addrs []netlink.Addr, err error) {
	for range 5 {
		routes, err = handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err == nil {
			addrs, err = handle.AddrList(nil, family)
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return routes, addrs, err
}

// chooseAddress is the source address of the default route with the lowest metric that has
// one: the route's own preferred source, else the link's address in the gateway's network, else
// the link's first. Routes and addresses are of one family.
func chooseAddress(routes []netlink.Route, addrs []netlink.Addr) (netip.Addr, bool) {
	var best netip.Addr
	metric := 0
	for _, r := range routes {
		if !isDefault(r) || best.IsValid() && r.Priority >= metric {
			continue
		}
		if addr, ok := sourceOf(r, addrs); ok {
			best, metric = addr, r.Priority
		}
	}
	return best, best.IsValid()
}

// isDefault: unreachable and blackhole defaults lead nowhere and do not count.
func isDefault(r netlink.Route) bool {
	if r.Type != 0 && r.Type != unix.RTN_UNICAST {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

func sourceOf(r netlink.Route, addrs []netlink.Addr) (netip.Addr, bool) {
	if r.Src != nil {
		return fromIP(r.Src)
	}
	link, gateway := r.LinkIndex, r.Gw
	if len(r.MultiPath) > 0 {
		link, gateway = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
	}
	var first net.IP
	for _, a := range addrs {
		if a.LinkIndex != link || a.IPNet == nil || !usable(a) {
			continue
		}
		if gateway != nil && a.Contains(gateway) {
			return fromIP(a.IP)
		}
		if first == nil {
			first = a.IP
		}
	}
	return fromIP(first)
}

// usable leaves out what does not stay (IPv6 privacy addresses), does not work yet or any
// more, and what other hosts cannot reach. IFA_F_SECONDARY is also IFA_F_TEMPORARY.
func usable(a netlink.Addr) bool {
	const passing = unix.IFA_F_SECONDARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	return a.Flags&passing == 0 && a.IP.IsGlobalUnicast()
}

func fromIP(ip net.IP) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
