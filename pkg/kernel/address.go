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

// ErrManyAddresses says that default routes of equal metric tell different addresses: which one
// the kernel takes differs from one connection to the next.
var ErrManyAddresses = errors.New("set node.address to the one that is meant")

// NodeAddress is the source address of the host's default route, of IPv4 if there is one, else
// of IPv6; of several routes that of the lowest metric. It is ErrNoAddress when no default route
// tells one, and ErrManyAddresses when those of the lowest metric disagree.
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
		addr, err := chooseAddress(routes, addrs)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("find node address: %w", err)
		}
		if addr.IsValid() {
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
// the link's first. Routes and addresses are of one family. The zero address is none.
func chooseAddress(routes []netlink.Route, addrs []netlink.Addr) (netip.Addr, error) {
	var best netip.Addr
	var from netlink.Route
	var other error
	for _, r := range paths(routes) {
		if best.IsValid() && r.Priority > from.Priority {
			continue
		}
		addr, ok := sourceOf(r, addrs)
		switch {
		case !ok:
		case !best.IsValid() || r.Priority < from.Priority:
			best, from, other = addr, r, nil
		case addr != best && other == nil:
			other = fmt.Errorf("two default routes of metric %d, %s with the address %s and %s with %s: %w",
				r.Priority, describe(from), best, describe(r), addr, ErrManyAddresses)
		}
	}
	return best, other
}

// paths are the default routes, one for each next hop.
func paths(routes []netlink.Route) []netlink.Route {
	var out []netlink.Route
	for _, r := range routes {
		if !isDefault(r) {
			continue
		}
		if len(r.MultiPath) == 0 || r.Src != nil {
			out = append(out, r)
			continue
		}
		for _, hop := range r.MultiPath {
			path := r
			path.LinkIndex, path.Gw = hop.LinkIndex, hop.Gw
			out = append(out, path)
		}
	}
	return out
}

func describe(r netlink.Route) string {
	if r.Gw == nil {
		return fmt.Sprintf("over link %d", r.LinkIndex)
	}
	return "via " + r.Gw.String()
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
	var first net.IP
	for _, a := range addrs {
		if a.LinkIndex != r.LinkIndex || a.IPNet == nil || !usable(a) {
			continue
		}
		if r.Gw != nil && a.Contains(r.Gw) {
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
