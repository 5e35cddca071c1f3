package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// A configuration may be changed between two tries. As long as there are no static pods, what
// the one before has left is held against the one of now; once there are, the change comes too
// late for this control plane, and is a finding.

// names are those that the API server's certificate is for by the configuration. (kubeadm adds
// its own, which do not change.)
func (i Init) names(ctx context.Context) ([]string, error) {
	address, err := i.Address(ctx)
	if err != nil {
		return nil, err
	}
	names := append([]string{i.Cluster.NodeName, address.String()}, i.Cluster.Kubeadm.CertSANs...)
	if endpoint := endpointHost(i.Cluster.Kubeadm.ControlPlaneEndpoint); endpoint != "" {
		names = append(names, endpoint)
	}
	return names, nil
}

func endpointHost(endpoint string) string {
	if name, _, err := net.SplitHostPort(endpoint); err == nil {
		return name
	}
	return strings.Trim(endpoint, "[]")
}

// certificateFits is nil when the API server's certificate is for all names of the
// configuration, or is not there.
func (i Init) certificateFits(ctx context.Context) error {
	const name = "apiserver.crt"
	p := i.pki(i.pkiDir())
	data, err := p.read(name)
	if err != nil || data == nil {
		return err
	}
	crt, err := firstCertificate(data)
	if err != nil {
		return p.broken(pkiPair{"apiserver", "ca"}, name, err)
	}
	names, err := i.names(ctx)
	if err != nil {
		return err
	}
	for _, want := range names {
		fits := slices.Contains(crt.DNSNames, want)
		if addr, err := netip.ParseAddr(want); err == nil {
			fits = slices.ContainsFunc(crt.IPAddresses, func(ip net.IP) bool { return ip.Equal(addr.AsSlice()) })
		}
		if !fits {
			return p.broken(pkiPair{"apiserver", "ca"}, name, fmt.Errorf("it is not for %s, which the configuration asks for", want))
		}
	}
	return nil
}

// kubeconfigFits is nil for a kubeconfig whose server is this host, or the cluster's endpoint.
func (i Init) kubeconfigFits(ctx context.Context, server string) error {
	at, err := url.Parse(server)
	if err != nil {
		return errors.New("its server is no URL")
	}
	address, err := i.Address(ctx)
	if err != nil {
		return err
	}
	if host := at.Hostname(); host != address.String() && host != endpointHost(i.Cluster.Kubeadm.ControlPlaneEndpoint) {
		return fmt.Errorf("its server is %s, which the configuration does not name", host)
	}
	return nil
}

// changedTooLate is a finding while this host is being built from another configuration than
// the one of now.
func (i Init) changedTooLate(ctx context.Context) ([]step.Change, error) {
	building, err := i.Building()
	if err != nil || !building {
		return nil, err // what a finished control plane was made from is history
	}
	have, err := i.Host.ReadFile(kubeadmFile)
	if err != nil {
		return nil, fmt.Errorf("read kubeadm configuration: %w", err)
	}
	kubeadm, err := Program(i.Host, "kubeadm")
	if err != nil {
		return nil, err
	}
	want, err := i.render(ctx, kubeadm, tokenIn(have))
	if err != nil || bytes.Equal(have, want) {
		return nil, err
	}
	return []step.Change{{
		Subject: kubeadmFile, Manual: true,
		Have: "what the static pods in " + ManifestDir + " are made from",
		Want: "the configuration of now, which came after them: `diff` it with " + filepath.Base(kubeadmFile) + ", or begin anew with `kubeadm reset`",
	}}, nil
}
