package certs_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/certs"
	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

var update = flag.Bool("update", false, "write the golden files")

var now = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

// machine is a host with a kubeadm PKI.
func machine(t *testing.T, o certstest.Options) *host.Host {
	t.Helper()
	root := t.TempDir()
	o.Now = now
	if err := certstest.Write(root, o); err != nil {
		t.Fatal(err)
	}
	return host.New(root)
}

func put(t *testing.T, h *host.Host, path, data string) {
	t.Helper()
	real := filepath.Join(h.Root, path)
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(real, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, h *host.Host, target, path string) {
	t.Helper()
	real := filepath.Join(h.Root, path)
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, real); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, h *host.Host, path string) string {
	t.Helper()
	data, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func inventory(t *testing.T, h *host.Host) ([]certs.Certificate, []certs.Problem) {
	t.Helper()
	list, problems, err := certs.Inventory(h)
	if err != nil {
		t.Fatal(err)
	}
	return list, problems
}

// names is the inventory as "path user kind index" lines.
func names(list []certs.Certificate) []string {
	var out []string
	for _, c := range list {
		out = append(out, fmt.Sprintf("%s %s %s %d", c.Path, c.User, c.Kind, c.Index))
	}
	return out
}

func texts(problems []certs.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

func table(list []certs.Certificate) []byte {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PATH\tUSER\tKIND\tINDEX\tCA\tSUBJECT\tISSUER\tNOT BEFORE\tNOT AFTER\tSANS")
	for _, c := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%v\t%s\t%s\t%s\t%s\t%s\n", c.Path, c.User, c.Kind, c.Index, c.IsCA, c.Subject, c.Issuer,
			c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), strings.Join(c.SANs, ","))
	}
	_ = w.Flush()
	return out.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got, -update writes it):\n%s", path, diff)
	}
}

func TestInventoryGolden(t *testing.T) {
	for name, kubelet := range map[string]bool{"fresh.golden": false, "finished.golden": true} {
		t.Run(name, func(t *testing.T) {
			h := machine(t, certstest.Options{Kubelet: kubelet, Validity: map[string]time.Duration{
				"admin.conf": 10 * 24 * time.Hour, "pki/etcd/server.crt": -time.Hour,
			}})
			list, problems := inventory(t, h)
			if len(problems) > 0 {
				t.Errorf("problems with sound files: %v", problems)
			}
			golden(t, name, table(list))
		})
	}
}

func TestSerialIsThatOfTheCertificate(t *testing.T) {
	h := machine(t, certstest.Options{})
	list, _ := inventory(t, h)
	seen := map[string]string{}
	for _, c := range list {
		if c.Serial == "" || len(c.Serial)%2 != 0 || c.Serial != strings.ToUpper(c.Serial) {
			t.Errorf("%s: serial %q is not as openssl prints it", c.Path, c.Serial)
		}
		if c.Kind == certs.CA { // the kubeconfigs hold the same one
			continue
		}
		if other := seen[c.Serial]; other != "" {
			t.Errorf("%s and %s: one serial %s", c.Path, other, c.Serial)
		}
		seen[c.Serial] = c.Path
	}
}

// A node without certificates, such as a worker before its join, has an empty inventory.
func TestNothingThere(t *testing.T) {
	list, problems := inventory(t, host.New(t.TempDir()))
	if len(list)+len(problems) > 0 {
		t.Errorf("list %v, problems %v", list, problems)
	}
}

func TestRootIsNoDirectory(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "typo")
	if _, _, err := certs.Inventory(host.New(missing)); !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing root: %v", err)
	}
	h := host.New(t.TempDir())
	put(t, h, "/file", "x")
	if _, _, err := certs.Inventory(host.New(filepath.Join(h.Root, "file"))); err == nil {
		t.Error("a file as the root: no error")
	}
}

const pki = "/etc/kubernetes/pki"

// TestBrokenFiles has one file of a kind each; want is what is told of it, list what is still
// found in it.
func TestBrokenFiles(t *testing.T) {
	source := machine(t, certstest.Options{})
	certificate := read(t, source, pki+"/apiserver.crt")
	expired := read(t, machine(t, certstest.Options{Validity: map[string]time.Duration{"pki/apiserver.crt": -time.Hour}}), pki+"/apiserver.crt")
	authority := read(t, source, pki+"/ca.crt")
	key := read(t, source, pki+"/apiserver.key")
	garbage := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not DER")}))
	half := certificate[:len(certificate)/2]
	const path, name = pki + "/x.crt", pki + "/x.crt"

	tests := map[string]struct {
		path     string
		data     string
		list     []string
		problems []string
	}{
		"sound":                {path, certificate, []string{name + "  pki 0"}, nil},
		"CRLF":                 {path, strings.ReplaceAll(certificate, "\n", "\r\n"), []string{name + "  pki 0"}, nil},
		"text before":          {path, "subject=CN=x\n" + certificate, []string{name + "  pki 0"}, nil},
		"key and certificate":  {path, key + certificate, []string{name + "  pki 0"}, nil},
		"chain":                {path, certificate + authority, []string{name + "  pki 0", name + "  pki 1"}, nil},
		"two authorities":      {path, authority + authority, []string{name + "  ca 0", name + "  ca 1"}, nil},
		"expired one first":    {path, expired + certificate, []string{name + "  pki 0", name + "  pki 1"}, nil},
		"empty":                {path, "", nil, []string{name + ": is empty"}},
		"blank":                {path, "\n \n", nil, []string{name + ": is empty"}},
		"no PEM":               {path, "hello", nil, []string{name + ": holds no certificate"}},
		"key only":             {path, key, nil, []string{name + ": holds no certificate"}},
		"key only, pem":        {pki + "/x-key.pem", key, nil, nil},
		"empty, pem":           {pki + "/x.pem", "", nil, []string{pki + "/x.pem: is empty"}},
		"certificate, pem":     {pki + "/etcd/client.pem", certificate, []string{pki + "/etcd/client.pem  pki 0"}, nil},
		"cut":                  {path, half, nil, []string{name + ": a CERTIFICATE block is cut short or damaged"}},
		"second cut":           {path, certificate + half, []string{name + "  pki 0"}, []string{name + ": a CERTIFICATE block is cut short or damaged"}},
		"no DER":               {path, garbage, nil, []string{name + ": certificate 0: x509: malformed certificate"}},
		"no DER, then sound":   {path, garbage + certificate, []string{name + "  pki 1"}, []string{name + ": certificate 0: x509: malformed certificate"}},
		"too large":            {path, strings.Repeat("x", 1<<20+1), nil, []string{name + ": is larger than 1048576 bytes"}},
		"another name":         {pki + "/x.txt", certificate, nil, nil},
		"kubelet key only":     {"/var/lib/kubelet/pki/kubelet-client-current.pem", key, nil, []string{"/var/lib/kubelet/pki/kubelet-client-current.pem: holds no certificate"}},
		"kubelet, both":        {"/var/lib/kubelet/pki/kubelet-client-current.pem", certificate + key, []string{"/var/lib/kubelet/pki/kubelet-client-current.pem  kubelet-client 0"}, nil},
		"kubelet, signed":      {"/var/lib/kubelet/pki/kubelet-server-current.pem", certificate + key, []string{"/var/lib/kubelet/pki/kubelet-server-current.pem  kubelet-server 0"}, nil},
		"kubelet, self-signed": {"/var/lib/kubelet/pki/kubelet.crt", certificate + authority, []string{"/var/lib/kubelet/pki/kubelet.crt  kubelet-server 0", "/var/lib/kubelet/pki/kubelet.crt  kubelet-server 1"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := host.New(t.TempDir())
			put(t, h, tt.path, tt.data)
			list, problems := inventory(t, h)
			if diff := cmp.Diff(tt.list, names(list)); diff != "" {
				t.Errorf("list (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.problems, texts(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// What cannot be read is told, and the rest of the inventory is there.
func TestUnreadable(t *testing.T) {
	tests := map[string]struct {
		make func(t *testing.T, h *host.Host)
		want string
	}{
		"directory named as a file": {func(t *testing.T, h *host.Host) { put(t, h, pki+"/x.crt/y.crt", "x") }, pki + "/x.crt: is a directory"},
		"dangling link":             {func(t *testing.T, h *host.Host) { link(t, h, "gone", pki+"/x.crt") }, pki + "/x.crt: is a link that points at nothing"},
		"link to itself":            {func(t *testing.T, h *host.Host) { link(t, h, "x.crt", pki+"/x.crt") }, pki + "/x.crt: too many levels of symbolic links"},
		"dangling kubeconfig": {func(t *testing.T, h *host.Host) { link(t, h, "gone", "/etc/kubernetes/my.conf") },
			"/etc/kubernetes/my.conf: is a link that points at nothing"},
		"named pipe": {func(t *testing.T, h *host.Host) {
			if err := syscall.Mkfifo(filepath.Join(h.Root, pki, "x.crt"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, pki + "/x.crt: is not a regular file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := machine(t, certstest.Options{})
			before, _ := inventory(t, h)
			tt.make(t, h)
			list, problems := inventory(t, h)
			if diff := cmp.Diff([]string{tt.want}, texts(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, list); diff != "" {
				t.Errorf("list (-before +after):\n%s", diff)
			}
		})
	}
}

// A directory that is a file, or a circle of links, is a problem of its own.
func TestUnreadableDirectory(t *testing.T) {
	h := host.New(t.TempDir())
	put(t, h, pki, "x")
	link(t, h, "pki", "/var/lib/kubelet/pki")
	_, problems := inventory(t, h)
	want := []string{
		pki + ": not a directory",
		"/var/lib/kubelet/pki/kubelet-client-current.pem: too many levels of symbolic links",
		"/var/lib/kubelet/pki/kubelet-server-current.pem: too many levels of symbolic links",
		"/var/lib/kubelet/pki/kubelet.crt: too many levels of symbolic links",
	}
	if diff := cmp.Diff(want, texts(problems)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestLinksInThePKI(t *testing.T) {
	h := machine(t, certstest.Options{})
	before, _ := inventory(t, h)
	link(t, h, ".", pki+"/circle")
	link(t, h, "etcd", pki+"/aaa") // sorts before what it points at, which keeps its name
	put(t, h, "/srv/more/extra.crt", read(t, h, pki+"/apiserver.crt"))
	link(t, h, "/srv/more", pki+"/more")
	link(t, h, "/srv/more/extra.crt", pki+"/linked.crt")
	list, problems := inventory(t, h)
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	var added []string
	for _, n := range names(list) {
		if !strings.Contains(strings.Join(names(before), "\n"), n) {
			added = append(added, n)
		}
	}
	if diff := cmp.Diff([]string{pki + "/linked.crt  pki 0", pki + "/more/extra.crt  pki 0"}, added); diff != "" {
		t.Errorf("added (-want +got):\n%s", diff)
	}
	if len(list) != len(before)+2 {
		t.Errorf("%d certificates before the links, %d after", len(before), len(list))
	}
}

func TestByFile(t *testing.T) {
	h := machine(t, certstest.Options{Validity: map[string]time.Duration{"pki/apiserver.crt": -time.Hour}})
	put(t, h, pki+"/bundle.crt", read(t, h, pki+"/front-proxy-client.crt")+read(t, h, pki+"/apiserver.crt")+read(t, h, pki+"/ca.crt"))
	list, _ := inventory(t, h)
	rows := certs.ByFile(list)
	if len(rows) != len(list)-2 {
		t.Errorf("%d rows of %d certificates, of which three are in one file", len(rows), len(list))
	}
	for i, r := range rows {
		if i > 0 && rows[i-1].Path > r.Path {
			t.Errorf("%s comes after %s", r.Path, rows[i-1].Path)
		}
		if r.Path == pki+"/bundle.crt" && (r.Index != 1 || !r.NotAfter.Equal(now.Add(-time.Hour))) {
			t.Errorf("the bundle ends with certificate %d on %v, want 1 on %v", r.Index, r.NotAfter, now.Add(-time.Hour))
		}
	}
}

// Nothing that an inventory returns may hold a private key.
func TestNoKeys(t *testing.T) {
	h := machine(t, certstest.Options{Kubelet: true})
	put(t, h, pki+"/broken.crt", read(t, h, pki+"/apiserver.key")+"-----BEGIN CERTIFICATE-----\nAAAA\n")
	list, problems := inventory(t, h)
	out, err := json.Marshal(map[string]any{"certificates": list, "problems": problems})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "cut short") {
		t.Errorf("the problem is not in the output: %s", out)
	}
	if strings.Contains(string(out), "PRIVATE") || strings.Contains(string(out), "LS0t") {
		t.Errorf("the output holds PEM: %s", out)
	}
}

func TestConfig(t *testing.T) {
	if err := certs.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default is refused: %v", err)
	}
	for renew, want := range map[string]string{
		"auto":  `renew: "auto" is not in this version: use "off"`,
		"":      `renew: "" is not known: use "off"`,
		"never": `renew: "never" is not known: use "off"`,
	} {
		if err := (certs.Config{Renew: renew}).Validate(); err == nil || err.Error() != want {
			t.Errorf("renew %q: %v, want %s", renew, err, want)
		}
	}
}
