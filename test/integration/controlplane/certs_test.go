//go:build integration

package controlplane_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/certs"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/controlplane"
)

// expiration is what `kubeadm certs check-expiration -o json` says, by path.
func expiration(t *testing.T, c *controlplane.ControlPlane) map[string]time.Time {
	t.Helper()
	type entry struct {
		Name    string    `json:"name"`
		Date    time.Time `json:"expirationDate"`
		Missing bool      `json:"missing"`
	}
	var report struct {
		Certificates []entry `json:"certificates"`
		Authorities  []entry `json:"certificateAuthorities"`
	}
	if err := json.Unmarshal([]byte(c.Kubeadm(t, "certs", "check-expiration", "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	dates := map[string]time.Time{}
	for _, e := range slices.Concat(report.Certificates, report.Authorities) {
		if e.Missing {
			t.Fatalf("kubeadm misses %s", e.Name)
		}
		dates[pathOf(e.Name)] = e.Date
	}
	return dates
}

// pathOf is where the certificate lies that kubeadm calls name.
func pathOf(name string) string {
	if strings.HasSuffix(name, ".conf") {
		return filepath.Join("/etc/kubernetes", name)
	}
	if member, ok := strings.CutPrefix(name, "etcd-"); ok {
		return filepath.Join("/etc/kubernetes/pki/etcd", member+".crt")
	}
	return filepath.Join("/etc/kubernetes/pki", name+".crt")
}

// nameOf is what kubeadm calls the certificate at path.
func nameOf(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".crt")
	if strings.Contains(path, "/pki/etcd/") {
		return "etcd-" + name
	}
	return name
}

func inventory(t *testing.T) map[string]time.Time {
	t.Helper()
	list, problems, err := certs.Inventory(host.New("/"))
	if err != nil || len(problems) > 0 {
		t.Fatalf("inventory: %v, problems: %v", err, problems)
	}
	dates := map[string]time.Time{}
	for _, c := range list {
		// kubeadm leaves out kubelet.conf and the CA inside each kubeconfig.
		inKubeconfig := strings.HasSuffix(c.Path, ".conf")
		if c.Path == "/etc/kubernetes/kubelet.conf" || inKubeconfig && c.IsCA {
			continue
		}
		if _, twice := dates[c.Path]; twice {
			t.Errorf("%s is listed twice", c.Path)
		}
		dates[c.Path] = c.NotAfter
	}
	return dates
}

// The inventory and kubeadm know the same certificates and the same dates. Each certificate is
// given a date of its own first, so that taking one for another would show.
func TestCertificatesAsKubeadmSeesThem(t *testing.T) {
	c := controlplane.New(t)
	for i, path := range slices.Sorted(maps.Keys(expiration(t, c))) {
		name := nameOf(path)
		if strings.HasSuffix(name, "ca") {
			continue // kubeadm does not renew these
		}
		c.Kubeadm(t, "certs", "renew", name, "--config", validFor(t, 1000+24*i))
	}
	want := expiration(t, c)
	const authorities = 3 // made in one second
	if distinct := slices.Compact(slices.SortedFunc(maps.Values(want), time.Time.Compare)); len(distinct) <= len(want)-authorities {
		t.Fatalf("the certificates do not end on different dates: %v", want)
	}
	if diff := cmp.Diff(want, inventory(t)); diff != "" {
		t.Errorf("kubeadm's dates (-) and ours (+):\n%s", diff)
	}
}

// validFor writes a kubeadm configuration whose certificates end after so many hours.
func validFor(t *testing.T, hours int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeadm.yaml")
	config := controlplane.KubeadmConfig + fmt.Sprintf("certificateValidityPeriod: %dh\n", hours)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
