package certs

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	manifestsDir  = kubernetesDir + "/manifests"
	kubeletConfig = "/var/lib/kubelet/config.yaml"
)

// staticPod is as much of a static pod's manifest as says which files it is given.
type staticPod struct {
	Spec struct {
		Containers []struct {
			Command      []string `json:"command"`
			Args         []string `json:"args"`
			VolumeMounts []struct {
				Name      string `json:"name"`
				MountPath string `json:"mountPath"`
				SubPath   string `json:"subPath"`
			} `json:"volumeMounts"`
		} `json:"containers"`
		Volumes []struct {
			Name     string `json:"name"`
			HostPath *struct {
				Path string `json:"path"`
			} `json:"hostPath"`
		} `json:"volumes"`
	} `json:"spec"`
}

// namedByPod are the files of the host, certificates and kubeconfigs, that the flags of a static
// pod's containers name. A manifest that cannot be read names none: whoever lists static pods
// tells of it.
func namedByPod(data []byte) []string {
	var pod staticPod
	if yaml.Unmarshal(data, &pod) != nil {
		return nil
	}
	volumes := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.HostPath != nil {
			volumes[v.Name] = v.HostPath.Path
		}
	}
	var out []string
	for _, c := range pod.Spec.Containers {
		mounts := map[string]string{} // mount path → the host's
		for _, m := range c.VolumeMounts {
			mounts[path.Clean(m.MountPath)] = ""
			if on := volumes[m.Name]; on != "" {
				mounts[path.Clean(m.MountPath)] = path.Join(on, m.SubPath)
			}
		}
		args := append(append([]string(nil), c.Command...), c.Args...)
		for i, arg := range args {
			name, value, ok := strings.Cut(arg, "=")
			if !ok && i+1 < len(args) {
				value = args[i+1]
			}
			if strings.HasPrefix(name, "-") && namesCertificates(name, value) {
				if file := onHost(path.Clean(value), mounts); file != "" {
					out = append(out, file)
				}
			}
		}
	}
	return out
}

// namesCertificates says that a flag's value is a file with certificates.
func namesCertificates(flag, value string) bool {
	return path.IsAbs(value) && (isCertificateName(value) || strings.HasSuffix(flag, "kubeconfig"))
}

// onHost is the host's file that a container sees as file, "" when it is none of the host's.
func onHost(file string, mounts map[string]string) string {
	for at := file; ; at = path.Dir(at) {
		if on, ok := mounts[at]; ok {
			if on == "" {
				return ""
			}
			return path.Join("/", on, strings.TrimPrefix(file, at))
		}
		if at == path.Dir(at) {
			return ""
		}
	}
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
