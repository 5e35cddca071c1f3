package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// StaticPodFile is where on the host the file lies that a flag of a static pod's program names:
// inside its container the path may be another. It is "" where there is no such manifest or flag,
// and the flag's own value where no volume of the host's holds it.
func StaticPodFile(h *host.Host, manifest, flag string) (string, error) {
	data, err := h.ReadFile(manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	var pod struct {
		Spec struct {
			Containers []struct {
				Command      []string `json:"command"`
				Args         []string `json:"args"`
				VolumeMounts []struct {
					Name      string `json:"name"`
					MountPath string `json:"mountPath"`
				} `json:"volumeMounts"`
			} `json:"containers"`
			Volumes []struct {
				Name     string `json:"name"`
				HostPath struct {
					Path string `json:"path"`
				} `json:"hostPath"`
			} `json:"volumes"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &pod); err != nil {
		return "", fmt.Errorf("read manifest: decode %s: %w", manifest, err)
	}
	volumes := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = v.HostPath.Path
	}
	for _, c := range pod.Spec.Containers {
		file := ""
		for _, arg := range append(c.Command, c.Args...) {
			if value, ok := strings.CutPrefix(arg, "--"+flag+"="); ok {
				file = value
			}
		}
		if !path.IsAbs(file) {
			continue
		}
		longest := ""
		onHost := file
		for _, m := range c.VolumeMounts {
			inside, ok := strings.CutPrefix(file, strings.TrimSuffix(m.MountPath, "/"))
			if !ok || inside != "" && inside[0] != '/' || len(m.MountPath) <= len(longest) || volumes[m.Name] == "" {
				continue
			}
			longest, onHost = m.MountPath, path.Clean(volumes[m.Name]+inside)
		}
		return onHost, nil
	}
	return "", nil
}
