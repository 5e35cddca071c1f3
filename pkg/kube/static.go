package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// The states of a static pod, beside those of its containers.
const (
	PodRunning = "running"
	// PodAbsent: its manifest is there, and the runtime has no such pod or container.
	PodAbsent = "absent"
	// PodUnknown: the container runtime does not say.
	PodUnknown = "unknown"
	// PodBroken: the kubelet cannot read the manifest.
	PodBroken = "broken"
)

// StaticPod is a pod that the kubelet runs from a file.
type StaticPod struct {
	Name      string // without the node's
	Manifest  string // "" for one that runs on although its file is gone
	State     string // running when all of its containers are; else that of one which is not
	Container string // the id of the container that does not run; "" when there is none
	Restarts  int    // of all its containers
	Since     time.Time
}

// StaticPods are those whose manifests lie in dir, and those that run without one, by name.
// pods are what the container runtime has on the node of that name; known is false when it has not
// said.
func StaticPods(h *host.Host, dir, node string, pods []Pod, known bool) ([]StaticPod, error) {
	var out []StaticPod
	entries, err := h.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read static pods: %w", err)
	}
	suffix := "-" + strings.ToLower(node)
	seen := map[string]bool{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() { // as the kubelet does
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := h.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read static pods: %w", err)
		}
		var pod podFile
		if yaml.Unmarshal(data, &pod) != nil || pod.Kind != "Pod" || pod.Metadata.Name == "" {
			out = append(out, StaticPod{Name: e.Name(), Manifest: path, State: PodBroken})
			continue
		}
		seen[pod.Metadata.Name+suffix] = true
		static := StaticPod{Name: pod.Metadata.Name, Manifest: path, State: PodUnknown}
		if known {
			static = pod.among(static, suffix, pods)
		}
		out = append(out, static)
	}
	for _, p := range pods {
		if p.Static && p.Ready && !seen[p.Name] {
			out = append(out, p.as(StaticPod{Name: strings.TrimSuffix(p.Name, suffix)}))
		}
	}
	slices.SortFunc(out, func(a, b StaticPod) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// podFile is what is read of a manifest.
type podFile struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		Containers []struct {
			Name string `json:"name"`
		} `json:"containers"`
	} `json:"spec"`
}

// among finds the manifest's pod.
func (f podFile) among(static StaticPod, suffix string, pods []Pod) StaticPod {
	namespace := cmp.Or(f.Metadata.Namespace, "default")
	i := slices.IndexFunc(pods, func(p Pod) bool {
		return p.Static && p.Name == f.Metadata.Name+suffix && p.Namespace == namespace
	})
	static.State = PodAbsent
	if i < 0 {
		return static
	}
	static = pods[i].as(static)
	for _, c := range f.Spec.Containers {
		if !slices.ContainsFunc(pods[i].Containers, func(have Container) bool { return have.Name == c.Name }) && static.State == PodRunning {
			static.State = PodAbsent
		}
	}
	return static
}

// as adds to static how the pod's containers are.
func (p Pod) as(static StaticPod) StaticPod {
	static.State = PodAbsent
	for i, c := range p.Containers {
		static.Restarts += c.Restarts
		if c.Created.After(static.Since) {
			static.Since = c.Created
		}
		switch {
		case c.State != PodRunning && static.Container == "":
			static.State, static.Container = c.State, c.ID
		case i == 0:
			static.State = PodRunning
		}
	}
	return static
}
