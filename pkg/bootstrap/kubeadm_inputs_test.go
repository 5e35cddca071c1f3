package bootstrap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// What kubeadm 1.36 itself takes, and all that it would ignore, read wrongly or trust.
func TestPatches(t *testing.T) {
	const dir = "/etc/nodeagent/patches"
	patch := func(name, text string) func(*testing.T, *host.Host) {
		return func(t *testing.T, h *host.Host) { put(t, h, dir+"/"+name, text, 0o644) }
	}
	for name, test := range map[string]struct {
		arrange func(*testing.T, *host.Host)
		minor   string
		want    string
	}{
		"none yet":           {func(*testing.T, *host.Host) {}, "1.36", ""},
		"one":                {patch("kube-apiserver.yaml", "spec: {}\n"), "1.36", ""},
		"suffix and type":    {patch("kubeletconfiguration0+json.json", "[]"), "1.36", ""},
		"dashes":             {patch("kube-controller-manager-more+merge.yaml", "spec: {}\n"), "1.36", ""},
		"coredns":            {patch("corednsdeployment+strategic.yaml", "spec: {}\n"), "1.36", ""},
		"kube-proxy, 1.37":   {patch("kubeproxydaemonset.yaml", "spec: {}\n"), "1.37", ""},
		"kube-proxy":         {patch("kubeproxydaemonset.yaml", "spec: {}\n"), "1.36", "kubeproxydaemonset.yaml: kubeadm patches kube-proxy from 1.37 on"},
		"another target":     {patch("kubelet.yaml", "a: b\n"), "1.36", dir + "/kubelet.yaml is not named as kubeadm names a patch: TARGET[SUFFIX]"},
		"another type":       {patch("etcd+patch.yaml", "a: b\n"), "1.36", "is not named as"},
		"no type":            {patch("etcd+.yaml", "a: b\n"), "1.36", "is not named as"},
		"another extension":  {patch("etcd.yml", "a: b\n"), "1.36", "is not named as"},
		"an editor's backup": {patch("etcd.yaml~", "a: b\n"), "1.36", "is not named as"},
		"a point":            {patch("etcd.old.yaml", "a: b\n"), "1.36", "is not named as"},
		"empty":              {patch("etcd.yaml", "# later\n"), "1.36", "etcd.yaml is empty"},
		"no YAML":            {patch("etcd.yaml", "a: [\n"), "1.36", "etcd.yaml is neither YAML nor JSON"},
		"a directory in it":  {patch("etcd.yaml/etcd.yaml", "a: b\n"), "1.36", "is a directory"},
		"others write it":    {func(t *testing.T, h *host.Host) { put(t, h, dir+"/etcd.yaml", "a: b\n", 0o666) }, "1.36", "others can write it"},
		"others write the directory": {func(t *testing.T, h *host.Host) {
			if err := os.Chmod(filepath.Join(h.Root, dir), 0o775); err != nil {
				t.Fatal(err)
			}
		}, "1.36", "others can write directory"},
		"others write above it": {func(t *testing.T, h *host.Host) {
			put(t, h, dir+"/etcd.yaml", "a: b\n", 0o644)
			if err := os.Chmod(filepath.Join(h.Root, "/etc/nodeagent"), 0o777); err != nil {
				t.Fatal(err)
			}
		}, "1.36", "others can replace what lies in it"},
		"a link": {func(t *testing.T, h *host.Host) {
			remove(t, h, dir)
			put(t, h, "/srv/etcd.yaml", "a: b\n", 0o644)
			link(t, h, dir, "/srv")
		}, "1.36", dir + " is not a directory"},
		"absent": {func(t *testing.T, h *host.Host) { remove(t, h, dir) }, "1.36", "look at kubeadm.patches: "},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if err := l.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			test.arrange(t, l.Host)
			i := l.init(KubeadmConfig{Patches: dir})
			i.Minor = test.minor
			if err := i.inputs(); test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// pair is a certificate that signs itself, and its key.
func pair(t *testing.T) (crt, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func TestExternalEtcdFiles(t *testing.T) {
	const external = "etcd: {external: {endpoints: ['https://192.0.2.20:2379'], caFile: /e/ca.crt, certFile: /e/c.crt, keyFile: /e/c.key}}"
	crt, key := pair(t)
	other, _ := pair(t)
	for name, test := range map[string]struct {
		arrange func(*testing.T, *host.Host)
		want    []string
	}{
		"good":           {func(*testing.T, *host.Host) {}, nil},
		"absent":         {func(t *testing.T, h *host.Host) { remove(t, h, "/e") }, []string{"external.caFile: ", "external.certFile: ", "external.keyFile: ", "no such file"}},
		"no certificate": {func(t *testing.T, h *host.Host) { put(t, h, "/e/ca.crt", "x", 0o644) }, []string{"external.caFile: /e/ca.crt: "}},
		"another's":      {func(t *testing.T, h *host.Host) { put(t, h, "/e/c.crt", other, 0o644) }, []string{"external.certFile: /e/c.crt and /e/c.key: ", "does not match"}},
		"everybody's key": {func(t *testing.T, h *host.Host) {
			remove(t, h, "/e/c.key")
			put(t, h, "/e/c.key", key, 0o644)
		}, []string{"external.keyFile: ", "others can read or write it (mode 0644); chmod 0600 /"}},
		"a key to write": {func(t *testing.T, h *host.Host) {
			remove(t, h, "/e/c.crt")
			put(t, h, "/e/c.crt", crt, 0o666)
		}, []string{"external.certFile: ", "others can write it"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			put(t, l.Host, "/e/ca.crt", crt, 0o644)
			put(t, l.Host, "/e/c.crt", crt, 0o644)
			put(t, l.Host, "/e/c.key", key, 0o600)
			test.arrange(t, l.Host)
			err := l.init(KubeadmConfig{ClusterConfiguration: passthrough(t, external)}).inputs()
			wantError(t, err, test.want...)
			if test.want == nil && err != nil {
				t.Error(err)
			}
		})
	}
	relative := KubeadmConfig{ClusterConfiguration: passthrough(t, "etcd: {external: {certFile: c.crt, keyFile: 'credential:key'}}")}
	wantError(t, newLab(t).init(relative).inputs(), "external.certFile: ", `external.keyFile: "credential:key" is not an absolute path`)
}

func TestAuditPolicyFile(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"good":         {"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n", 0o600, ""},
		"another kind": {"apiVersion: v1\nkind: Pod\n", 0o600, "/p is no audit policy"},
		"no YAML":      {"{", 0o600, "/p is no audit policy"},
		"to write":     {"kind: Policy\n", 0o666, "others can write it"},
		"absent":       {"", 0, "look at kubeadm.hardening.auditPolicyFile: "},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if test.mode != 0 {
				put(t, l.Host, "/p", test.text, test.mode)
			}
			err := l.init(KubeadmConfig{Hardening: HardeningConfig{AuditPolicyFile: "/p"}}).inputs()
			if test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
