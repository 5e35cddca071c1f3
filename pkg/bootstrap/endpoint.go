package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/kube"
)

// ForeignCluster says whether endpoint ("host" or "host:port", 6443 when there is none) is
// answered over TLS by somebody who is not this host. An endpoint whose every address is one
// of this host's is its own; a name that is not in the DNS yet is nobody's.
func ForeignCluster(ctx context.Context, endpoint string) (bool, error) {
	name, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		name, port = strings.Trim(endpoint, "[]"), "6443"
	}
	own, err := ownAddresses()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	var dnsError *net.DNSError
	if err != nil {
		if errors.As(err, &dnsError) && dnsError.IsNotFound {
			return false, nil
		}
		return false, fmt.Errorf("resolve %s: %w", name, err)
	}
	for _, address := range addresses {
		if slices.Contains(own, address.Unmap()) {
			continue
		}
		answers, err := kube.AnswersTLS(ctx, net.JoinHostPort(address.Unmap().String(), port))
		if err != nil || answers {
			return answers, err
		}
	}
	return false, nil
}

func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own, nil
}
