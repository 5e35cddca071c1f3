package certs

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/kube"
)

const (
	manifestsDir  = kubernetesDir + "/manifests"
	kubeletConfig = "/var/lib/kubelet/config.yaml"
)

// namedByPod are the files of the host, certificates and kubeconfigs, that the flags of a static
// pod's containers name. A manifest that cannot be read names none: whoever lists static pods
// tells of it.
func namedByPod(data []byte) []string {
	flags, err := kube.FileFlags(data)
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range flags {
		if f.File != "" && (isCertificateName(f.Value) || strings.HasSuffix(f.Name, "kubeconfig")) {
			out = append(out, f.File)
		}
	}
	return out
}

// namedByKubelet are the certificates that the kubelet's configuration names.
func namedByKubelet(data []byte) []string {
	var c struct {
		TLSCertFile    string `json:"tlsCertFile"`
		Authentication struct {
			X509 struct {
				ClientCAFile string `json:"clientCAFile"`
			} `json:"x509"`
		} `json:"authentication"`
	}
	if yaml.Unmarshal(data, &c) != nil {
		return nil
	}
	var out []string
	for _, file := range []string{c.Authentication.X509.ClientCAFile, c.TLSCertFile} {
		if path.IsAbs(file) {
			out = append(out, path.Clean(file))
		}
	}
	return out
}

// users reads what the static pods and the kubelet are given. It comes last: what they name and
// is listed already is not listed again, and what they name and is gone, which no look through
// a directory can find, is a problem.
func (s *scan) users() {
	entries, err := s.host.ReadDir(manifestsDir)
	if err != nil {
		entries = nil // a host that runs no static pods; the directory's own troubles are not ours
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") { // the kubelet's own rule
			continue
		}
		s.usedBy(filepath.Join(manifestsDir, e.Name()), namedByPod)
	}
	s.usedBy(kubeletConfig, namedByKubelet)
}

// usedBy looks at what one file names.
func (s *scan) usedBy(by string, names func([]byte) []string) {
	info, err := s.host.Stat(by)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSize {
		return
	}
	data, err := s.host.ReadFile(by)
	if err != nil {
		return
	}
	for _, file := range names(data) {
		there, err := s.host.Exists(file)
		switch {
		case err != nil || !there && !s.told(file):
			s.problem(file, fmt.Errorf("%s names it: %w", by, cause(err)))
		case s.seen[file]:
		case isCertificateName(file):
			s.pkiFile(file)
		default:
			s.kubeconfig(file)
		}
	}
}

// cause is why a file is not there: the error of looking, or that it is gone.
func cause(err error) error {
	if err == nil {
		return errGone
	}
	return withoutPath(err)
}

// told says that something is known to be wrong with a file.
func (s *scan) told(path string) bool {
	for _, p := range s.problems {
		if p.Path == path {
			return true
		}
	}
	return false
}
