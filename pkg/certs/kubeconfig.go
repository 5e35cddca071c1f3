package certs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

// kubeconfig is as much of a kubeconfig as certificates need. Keys and tokens are not decoded.
type kubeconfig struct {
	Kind     string `json:"kind"`
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			Data string `json:"certificate-authority-data"`
			File string `json:"certificate-authority"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			Data string `json:"client-certificate-data"`
			File string `json:"client-certificate"`
		} `json:"user"`
	} `json:"users"`
}

// source is one place in a kubeconfig that holds certificates, or names a file that does.
type source struct {
	owner string // "user \"x\"", for errors
	user  string // empty for a cluster's CA
	kind  Kind
	pem   []byte
	file  string // as written, when the kubeconfig names one
}

var lineNumber = regexp.MustCompile(`line \d+`)

var errNotKubeconfig = errors.New("is not a kubeconfig")

// readKubeconfig finds where a kubeconfig has its certificates. The error joins what is wrong
// with it; what could be found is returned all the same. No error quotes the data: a YAML
// parser's own message may.
func readKubeconfig(data []byte) ([]source, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errEmpty
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		if line := lineNumber.FindString(err.Error()); line != "" {
			return nil, fmt.Errorf("%w: not valid YAML at %s", errNotKubeconfig, line)
		}
		return nil, fmt.Errorf("%w: not YAML, or a field has the wrong type", errNotKubeconfig)
	}
	if k.Kind != "Config" && k.Kind != "" || len(k.Clusters)+len(k.Users) == 0 {
		return nil, errNotKubeconfig
	}
	var (
		out  []source
		errs []error
		seen = map[string]bool{}
	)
	add := func(s source, data string) {
		var err error
		switch {
		case seen[s.owner]:
			err = errors.New("is there twice")
		case data != "": // the data wins over the file, as in kubectl
			s.file = ""
			if s.pem, err = base64.StdEncoding.DecodeString(data); err != nil {
				err = errors.New("its certificate is not base64")
			}
		case s.file == "":
			return // a token, or another way to sign in
		}
		seen[s.owner] = true
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.owner, err))
			return
		}
		out = append(out, s)
	}
	for _, c := range k.Clusters {
		add(source{owner: fmt.Sprintf("cluster %q", c.Name), kind: CA, file: c.Cluster.File}, c.Cluster.Data)
	}
	for _, u := range k.Users {
		add(source{owner: fmt.Sprintf("user %q", u.Name), user: u.Name, kind: Kubeconfig, file: u.User.File}, u.User.Data)
	}
	return out, errors.Join(errs...)
}

// ours are the kubeconfigs that kubeadm writes. One of these that is no kubeconfig is a
// problem; another *.conf may be anything, such as a cloud provider's.
var ours = []string{"admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf", "kubelet.conf", "bootstrap-kubelet.conf"}

// kubeconfigs reads the kubeconfigs of a directory. It comes last: a file that one of them
// names and that is listed already is not listed again.
func (s *scan) kubeconfigs(dir string) {
	entries, err := s.host.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.problem(dir, err)
		return
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".conf" {
			s.kubeconfig(filepath.Join(dir, e.Name()))
		}
	}
}

func (s *scan) kubeconfig(path string) {
	data, err := s.read(path)
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		s.problem(path, err)
		return
	}
	sources, err := readKubeconfig(data)
	if err != nil && !isOurs(path, data) {
		return
	}
	if err != nil {
		s.problem(path, err)
	}
	clusterCA := 0
	for _, src := range sources {
		if src.file != "" {
			s.named(path, src)
			continue
		}
		got, err := readPEM(src.pem)
		if err != nil {
			s.problem(path, fmt.Errorf("%s: %w", src.owner, err))
		}
		// The CAs of several clusters share path, user and kind: they count as one bundle.
		if src.kind == CA {
			for i := range got.certificates {
				got.certificates[i].Index += clusterCA
			}
			clusterCA += len(got.certificates)
		}
		s.add(path, src.user, src.kind, got.certificates)
	}
}

func isOurs(path string, data []byte) bool {
	return slices.Contains(ours, filepath.Base(path)) ||
		bytes.Contains(data, []byte("client-certificate")) || bytes.Contains(data, []byte("certificate-authority"))
}

// named reads the file that a kubeconfig names, if it is not listed already. The path is
// relative to the kubeconfig's directory.
func (s *scan) named(config string, src source) {
	path := src.file
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(config), path)
	}
	path = filepath.Clean(path)
	if s.seen[path] {
		if there, err := s.host.Exists(path); err != nil || there {
			return // read before, and any problem with it has been told
		}
	}
	data, err := s.read(path)
	if err != nil {
		err = fmt.Errorf("%s of %s names it: %w", src.owner, config, withoutPath(err))
	}
	s.contents(path, src.user, src.kind, data, err)
}
