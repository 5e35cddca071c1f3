// Package certs knows the certificates of a kubeadm host: where they lie, what they say and
// when they end. It never keeps, prints or returns a private key, also where one shares a file
// with a certificate.
package certs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Kind is what a certificate is there for. It is a label of metrics.
type Kind string

// The kinds. A file whose first certificate is a CA's is of kind CA, and so is the CA that a
// kubeconfig trusts: those are not renewed as the others are.
const (
	CA            Kind = "ca"
	PKI           Kind = "pki"            // below /etc/kubernetes/pki, no CA
	Kubeconfig    Kind = "kubeconfig"     // the client certificate of a kubeconfig's user
	KubeletClient Kind = "kubelet-client" // kubelet's own, which it rotates
	KubeletServer Kind = "kubelet-server" // kubelet's serving certificate
)

// Certificate is one certificate in one place. What names it is Path, User, Kind and Index.
type Certificate struct {
	Path      string    `json:"path"`           // the file, as the machine sees it
	User      string    `json:"user,omitempty"` // the kubeconfig user whose certificate it is
	Kind      Kind      `json:"kind"`
	Index     int       `json:"index"` // its place in a file of several; 0 is the leaf
	IsCA      bool      `json:"isCA"`
	Subject   string    `json:"subject"` // common name
	Issuer    string    `json:"issuer"`  // common name
	SANs      []string  `json:"sans,omitempty"`
	Serial    string    `json:"serial"` // hexadecimal, as openssl prints it
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// Problem is a file, or a part of one, that should hold a certificate and could not be read as
// one. Err says nothing of the file's contents.
type Problem struct {
	Path string
	Err  error
}

func (p Problem) String() string { return fmt.Sprintf("%s: %v", p.Path, p.Err) }

// MarshalJSON writes the error as its text.
func (p Problem) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Path  string `json:"path"`
		Error string `json:"error"`
	}{p.Path, p.Err.Error()})
}

// Where a kubeadm host has its certificates.
const (
	kubernetesDir = "/etc/kubernetes"
	pkiDir        = kubernetesDir + "/pki"
	kubeletDir    = "/var/lib/kubelet/pki"
)

// Inventory lists every certificate of a kubeadm host: the *.crt and *.pem files below
// /etc/kubernetes/pki, those in or named by the kubeconfigs /etc/kubernetes/*.conf, kubelet's, and
// what the static pods and the kubelet's configuration name. It is sorted by path, user, kind and
// index.
//
// Directories and files that are not there are no certificates: a worker has no pki. A file
// that is there and cannot be read is a Problem
// and does not end the inventory, and what else a broken file holds is listed all the same. So is
// a file that a kubeconfig, a static pod's flag or the kubelet's configuration names and that is
// not there.
// The error is of a root that is no directory.
func Inventory(h *host.Host) ([]Certificate, []Problem, error) {
	info, err := h.Stat("/")
	if err == nil && !info.IsDir() {
		err = errors.New("is not a directory")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list certificates below %s: %w", h.Root, withoutPath(err))
	}
	s := &scan{host: h, seen: map[string]bool{}}
	s.tree(pkiDir)
	s.file(kubeletDir+"/kubelet-client-current.pem", KubeletClient)
	s.file(kubeletDir+"/kubelet-server-current.pem", KubeletServer)
	s.file(kubeletDir+"/kubelet.crt", KubeletServer)
	s.kubeconfigs(kubernetesDir)
	s.users()

	slices.SortFunc(s.list, compare)
	slices.SortStableFunc(s.problems, func(a, b Problem) int { return cmp.Compare(a.Path, b.Path) })
	return s.list, s.problems, nil
}

// ByFile is one certificate of the list for each path, user and kind: the one that ends first,
// since a chain is worth what its shortest-lived member is. The order of an inventory is kept.
func ByFile(list []Certificate) []Certificate {
	type key struct {
		path, user string
		kind       Kind
	}
	var out []Certificate
	at := map[key]int{}
	for _, c := range list {
		k := key{c.Path, c.User, c.Kind}
		i, ok := at[k]
		switch {
		case !ok:
			at[k] = len(out)
			out = append(out, c)
		case c.NotAfter.Before(out[i].NotAfter):
			out[i] = c
		}
	}
	return out
}

func compare(a, b Certificate) int {
	return cmp.Or(
		cmp.Compare(a.Path, b.Path),
		cmp.Compare(a.User, b.User),
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Index, b.Index),
	)
}

// withoutPath is the cause of a file's error, for a place that names the file already.
func withoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
