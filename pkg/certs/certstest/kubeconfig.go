package certstest

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

const (
	kubeletConf    = "kubelet.conf"
	kubeletCurrent = "kubelet-client-current.pem"
)

// user is a kubeconfig and the certificate in it.
type user struct {
	leaf
	user string // its name in the kubeconfig
}

func (w *writer) users() []user {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	node := "system:node:" + w.Node
	return []user{
		{leaf{file: "admin.conf", name: "kubernetes-admin", organization: "kubeadm:cluster-admins", usage: client}, "kubernetes-admin"},
		{leaf{file: "super-admin.conf", name: "kubernetes-super-admin", organization: "system:masters", usage: client}, "kubernetes-super-admin"},
		{leaf{file: "controller-manager.conf", name: "system:kube-controller-manager", usage: client}, "system:kube-controller-manager"},
		{leaf{file: "scheduler.conf", name: "system:kube-scheduler", usage: client}, "system:kube-scheduler"},
		{leaf{file: kubeletConf, name: node, organization: "system:nodes", usage: client}, node},
	}
}

// embedded is a user's certificate and key as they lie in a kubeconfig.
func embedded(p pair) string {
	return fmt.Sprintf("    client-certificate-data: %s\n    client-key-data: %s\n",
		base64.StdEncoding.EncodeToString(p.cert), base64.StdEncoding.EncodeToString(p.key))
}

func (w *writer) kubeconfig(ca *authority, u user, credentials string) []byte {
	context := u.user + "@kubernetes"
	return fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: %s
  name: %s
current-context: %s
kind: Config
users:
- name: %s
  user:
%s`, base64.StdEncoding.EncodeToString(ca.pem), w.Server, u.user, context, context, u.user, credentials)
}

// kubelet writes what kubelet keeps: its client certificate and key in one file behind a link,
// its serving certificate, and a kubelet.conf that names the link.
func (w *writer) kubelet(ca *authority) error {
	users := w.users()
	u := users[len(users)-1]
	client, err := w.issue(ca, u.leaf)
	if err != nil {
		return err
	}
	// kubelet makes a CA for its serving certificate and forgets the key; one of the cluster's
	// serves as well here.
	server, err := w.issue(ca, leaf{
		file: "kubelet.crt", name: fmt.Sprintf("%s@%d", w.Node, w.Now.Unix()),
		usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, dns: []string{w.Node},
	})
	if err != nil {
		return err
	}
	dated := "kubelet-client-" + w.Now.UTC().Format("2006-01-02-15-04-05") + ".pem"
	if err := w.put(KubeletDir, dated, append(client.cert, client.key...), 0o600); err != nil {
		return err
	}
	link := filepath.Join(w.root, KubeletDir, kubeletCurrent)
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		return err
	}
	// kubelet writes an absolute target.
	if err := os.Symlink("/"+filepath.Join(KubeletDir, dated), link); err != nil {
		return err
	}
	if err := w.put(KubeletDir, "kubelet.crt", append(server.cert, ca.pem...), 0o644); err != nil {
		return err
	}
	if err := w.put(KubeletDir, "kubelet.key", server.key, 0o600); err != nil {
		return err
	}
	current := "/" + filepath.Join(KubeletDir, kubeletCurrent)
	credentials := fmt.Sprintf("    client-certificate: %s\n    client-key: %s\n", current, current)
	return w.put(Dir, kubeletConf, w.kubeconfig(ca, u, credentials), 0o600)
}
