package certs_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestKubeconfigs(t *testing.T) {
	source := machine(t, certstest.Options{})
	certificate := read(t, source, pki+"/apiserver-kubelet-client.crt")
	authority := read(t, source, pki+"/ca.crt")
	key := read(t, source, pki+"/apiserver.key")
	const admin = "/etc/kubernetes/admin.conf"
	user := func(name, line string) string { return "- name: " + name + "\n  user: {" + line + "}\n" }
	embedded := "client-certificate-data: " + b64(certificate) + ", client-key-data: " + b64(key)

	tests := map[string]struct {
		path     string
		data     string
		list     []string
		problems []string
	}{
		"embedded":        {admin, "kind: Config\nusers:\n" + user("a", embedded), []string{admin + " a kubeconfig 0"}, nil},
		"JSON":            {admin, `{"kind":"Config","users":[{"name":"a","user":{"client-certificate-data":"` + b64(certificate) + `"}}]}`, []string{admin + " a kubeconfig 0"}, nil},
		"no kind":         {admin, "users:\n" + user("a", embedded), []string{admin + " a kubeconfig 0"}, nil},
		"chain":           {admin, "users:\n" + user("a", "client-certificate-data: "+b64(certificate+authority)), []string{admin + " a kubeconfig 0", admin + " a kubeconfig 1"}, nil},
		"token":           {admin, "kind: Config\nusers:\n" + user("a", "token: secret"), nil, nil},
		"no certificate":  {admin, "kind: Config\nusers:\n" + user("a", ""), nil, nil},
		"two users":       {admin, "users:\n" + user("b", embedded) + user("a", embedded), []string{admin + " a kubeconfig 0", admin + " b kubeconfig 0"}, nil},
		"one user twice":  {admin, "users:\n" + user("a", embedded) + user("a", embedded), []string{admin + " a kubeconfig 0"}, []string{admin + `: user "a": is there twice`}},
		"two clusters":    {admin, "clusters:\n- name: a\n  cluster: {certificate-authority-data: " + b64(authority) + "}\n- name: b\n  cluster: {certificate-authority-data: " + b64(authority) + "}\n", []string{admin + "  ca 0", admin + "  ca 1"}, nil},
		"not base64":      {admin, "users:\n" + user("a", "client-certificate-data: '***'"), nil, []string{admin + `: user "a": its certificate is not base64`}},
		"cut":             {admin, "users:\n" + user("a", "client-certificate-data: "+b64(certificate[:100])), nil, []string{admin + `: user "a": a CERTIFICATE block is cut short or damaged`}},
		"a key instead":   {admin, "users:\n" + user("a", "client-certificate-data: "+b64(key)), nil, []string{admin + `: user "a": holds no certificate`}},
		"empty":           {admin, "", nil, []string{admin + ": is empty"}},
		"another kind":    {admin, "kind: Pod\nusers: []\n", nil, []string{admin + ": is not a kubeconfig"}},
		"not YAML":        {admin, "users:\n\t- x", nil, []string{admin + ": is not a kubeconfig: not valid YAML at line 2"}},
		"wrong type":      {admin, "users: 7", nil, []string{admin + ": is not a kubeconfig: not YAML, or a field has the wrong type"}},
		"somebody else's": {"/etc/kubernetes/cloud.conf", "[Global]\nauth-url=https://x\n", nil, nil},
		"another's, YAML": {"/etc/kubernetes/audit.conf", "kind: Policy\n", nil, nil},
		"own name":        {"/etc/kubernetes/ops.conf", "kind: Config\nusers:\n" + user("a", embedded), []string{"/etc/kubernetes/ops.conf a kubeconfig 0"}, nil},
		"own name, cut":   {"/etc/kubernetes/ops.conf", "users:\n- user:\n    client-certificate-data: [", nil, []string{"/etc/kubernetes/ops.conf: is not a kubeconfig: not valid YAML at line 3"}},
		"missing file":    {admin, "users:\n" + user("a", "client-certificate: /gone.pem"), nil, []string{`/gone.pem: user "a" of ` + admin + " names it: is not there"}},
		"both":            {admin, "users:\n" + user("a", "client-certificate: /gone.pem, "+embedded), []string{admin + " a kubeconfig 0"}, nil},
		"another suffix":  {"/etc/kubernetes/admin.conf.bak", "users:\n" + user("a", embedded), nil, nil},
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

// A file that a kubeconfig names is listed under its own path, and once.
func TestNamedFiles(t *testing.T) {
	h := machine(t, certstest.Options{})
	put(t, h, "/etc/kubernetes/client.pem", read(t, h, pki+"/apiserver-kubelet-client.crt"))
	put(t, h, "/srv/ca.pem", read(t, h, pki+"/ca.crt"))
	before, _ := inventory(t, h)
	put(t, h, "/etc/kubernetes/a.conf", `kind: Config
clusters:
- {name: known, cluster: {certificate-authority: pki/ca.crt}}
- {name: own, cluster: {certificate-authority: /srv/ca.pem}}
users:
- {name: relative, user: {client-certificate: client.pem, client-key: client.key}}
- {name: known, user: {client-certificate: /etc/kubernetes/pki/../pki/apiserver-kubelet-client.crt}}
`)
	put(t, h, "/etc/kubernetes/b.conf", "users: [{name: other, user: {client-certificate: client.pem}}]")
	list, problems := inventory(t, h)
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	known := strings.Join(names(before), "\n")
	var added []string
	for _, n := range names(list) {
		if !strings.Contains(known, n) {
			added = append(added, n)
		}
	}
	want := []string{"/etc/kubernetes/client.pem relative kubeconfig 0", "/srv/ca.pem  ca 0"}
	if diff := cmp.Diff(want, added); diff != "" || len(list) != len(before)+2 {
		t.Errorf("added to %d of %d (-want +got):\n%s", len(before), len(list), diff)
	}
}

// After kubelet-finalize kubelet.conf names a file that is in the inventory by itself; once it
// is gone, that is a problem.
func TestKubeletCertificateGone(t *testing.T) {
	h := machine(t, certstest.Options{Kubelet: true})
	if err := h.Remove("/var/lib/kubelet/pki/kubelet-client-current.pem"); err != nil {
		t.Fatal(err)
	}
	_, problems := inventory(t, h)
	want := []string{`/var/lib/kubelet/pki/kubelet-client-current.pem: user "system:node:node-1" of /etc/kubernetes/kubelet.conf names it: is not there`}
	if diff := cmp.Diff(want, texts(problems)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
