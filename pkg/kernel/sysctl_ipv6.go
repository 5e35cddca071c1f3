package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

const ipv6Forwarding = "net.ipv6.conf.all.forwarding"

// advertised are the interfaces whose default route the kernel took from a router's
// advertisement: once it forwards IPv6 it drops that route and takes no new one, unless the
// interface's accept_ra is 2. Where networkd or NetworkManager listen, accept_ra is 0.
func (s sysctls) advertised() ([]step.Change, error) {
	forwards := func(w wanted) bool { return w.Name == ipv6Forwarding && w.Value == "1" }
	if !slices.ContainsFunc(s.want, forwards) {
		return nil, nil
	}
	routes, err := s.h.ReadFile("/proc/net/ipv6_route")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read IPv6 routes: %w", err)
	}
	var changes []step.Change
	for _, name := range advertisedBy(string(routes)) {
		accept := "net/ipv6/conf/" + name + "/accept_ra"
		have, err := s.live(accept)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read sysctl %s: %w", accept, err)
		}
		ours := func(w wanted) bool { return sysctlPath(w.Name) == accept }
		if have == "1" && !slices.ContainsFunc(s.want, ours) {
			changes = append(changes, step.Change{
				Subject: accept, Have: "1, and the default route is from a router's advertisement",
				Want: "2: add it to kernel.sysctls, or a host that forwards IPv6 drops that route", Manual: true,
			})
		}
	}
	return changes, nil
}

// advertisedBy lists the interfaces with such a default route in /proc/net/ipv6_route.
func advertisedBy(routes string) []string {
	const advertised = 0x10000 | 0x40000 // RTF_DEFAULT, RTF_ADDRCONF
	var names []string
	for line := range strings.Lines(routes) {
		f := strings.Fields(line) // destination, length, source, length, gateway, metric, 2 counts, flags, interface
		if len(f) != 10 || f[1] != "00" {
			continue
		}
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err == nil && flags&advertised == advertised && !slices.Contains(names, f[9]) {
			names = append(names, f[9])
		}
	}
	return names
}
