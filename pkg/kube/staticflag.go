package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// FileFlag is a flag of a static pod's program whose value is an absolute path.
type FileFlag struct {
	Name  string // without dashes
	Value string // as the program sees it, in its container
	File  string // where that lies on the host; "" where no volume of the host's holds it
}

// staticPod is as much of a static pod's manifest as says which files it is given.
type staticPod struct {
	Spec struct {
		Containers []staticContainer `json:"containers"`
		Volumes    []struct {
			Name     string `json:"name"`
			HostPath *struct {
				Path string `json:"path"`
			} `json:"hostPath"`
		} `json:"volumes"`
	} `json:"spec"`
}

type staticContainer struct {
	Command      []string `json:"command"`
	Args         []string `json:"args"`
	VolumeMounts []struct {
		Name      string `json:"name"`
		MountPath string `json:"mountPath"`
		SubPath   string `json:"subPath"`
	} `json:"volumeMounts"`
}

// FileFlags are those of all containers in the manifest of a static pod, "--name=value" or with the value
// as the next argument.
func FileFlags(manifest []byte) ([]FileFlag, error) {
	var pod staticPod
	if err := yaml.Unmarshal(manifest, &pod); err != nil {
		return nil, fmt.Errorf("decode static pod: %w", err)
	}
	volumes := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.HostPath != nil {
			volumes[v.Name] = v.HostPath.Path
		}
	}
	var flags []FileFlag
	for _, c := range pod.Spec.Containers {
		mounts := c.mounts(volumes)
		args := append(append([]string(nil), c.Command...), c.Args...)
		for i, arg := range args {
			name, value, given := strings.Cut(arg, "=")
			if !given && i+1 < len(args) {
				value = args[i+1]
			}
			if strings.HasPrefix(name, "-") && path.IsAbs(value) {
				flags = append(flags, FileFlag{strings.TrimLeft(name, "-"), value, onHost(path.Clean(value), mounts)})
			}
		}
	}
	return flags, nil
}

// mounts are the host's paths by where the container sees them, "" of a volume that is not the host's.
func (c staticContainer) mounts(volumes map[string]string) map[string]string {
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[path.Clean(m.MountPath)] = ""
		if on := volumes[m.Name]; on != "" {
			mounts[path.Clean(m.MountPath)] = path.Join(on, m.SubPath)
		}
	}
	return mounts
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

// StaticPodFile is where on the host the file lies that a flag of a static pod's program names. It is
// "" where there is no such manifest or flag, and the flag's own value where no volume of the host's
// holds it.
func StaticPodFile(h *host.Host, manifest, flag string) (string, error) {
	data, err := h.ReadFile(manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	flags, err := FileFlags(data)
	if err != nil {
		return "", fmt.Errorf("read manifest %s: %w", manifest, err)
	}
	file := ""
	for _, f := range flags {
		if f.Name == flag { // the last one counts
			file = cmp.Or(f.File, f.Value)
		}
	}
	return file, nil
}
