package bootstrap

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// What apt says depends on how the resolver and the network fail, not only on that they do;
// the words are apt's own.
func TestAptHints(t *testing.T) {
	for says, want := range map[string]string{
		"E: Failed to fetch http://r.example/k8s/InRelease  Could not resolve 'r.example'":                                                               "check DNS",
		"E: Failed to fetch http://r.example/k8s/InRelease  Temporary failure resolving 'r.example'":                                                     "check DNS",
		"E: Failed to fetch http://r.example/k8s/InRelease  System error resolving 'r.example:http'":                                                     "check DNS",
		"E: Failed to fetch http://r.example/k8s/InRelease  Something wicked happened resolving 'r.example:http' (-5 - No address)":                      "check DNS",
		"E: Failed to fetch https://r.example/k8s/InRelease  Could not connect to r.example:443 (192.0.2.1), connection timed out":                       "routes",
		"E: Failed to fetch https://r.example/k8s/InRelease  Cannot initiate the connection to r.example:443 (2001:db8::1). - connect (101: …)":          "routes",
		"E: Failed to fetch https://r.example/k8s/InRelease  Connection timed out [IP: 192.0.2.1 443]":                                                   "routes",
		"E: Failed to fetch https://r.example/k8s/InRelease  Certificate verification failed: The certificate is NOT trusted.":                           "packages.repository.url",
		"E: The repository 'https://r.example/k8s  Release' does not have a Release file.":                                                               "the repository is not there",
		"W: GPG error: https://r.example/k8s  InRelease: couldn't be verified because the public key is not available: NO_PUBKEY 234654DA9A296436":       keyArmored,
		"E: Failed to fetch https://r.example/k8s/amd64/kubelet.deb  Hash Sum mismatch":                                                                  "incomplete",
		"E: You don't have enough free space in /var/cache/apt/archives/.":                                                                               "the disk is full",
		"dpkg: error processing package kubelet (--configure): installed kubelet package post-installation script subprocess returned error exit status": "",
	} {
		lines := errorLines(says + "\n")
		if len(lines) != 1 {
			t.Errorf("%s: is not taken for an error", says)
			continue
		}
		hint := (&aptError{ended: &systemd.UnitError{}, lines: lines}).hint()
		if want == "" && hint != "" || !strings.Contains(hint, want) {
			t.Errorf("%s: the hint is %q, want one with %q", says, hint, want)
		}
	}
}
