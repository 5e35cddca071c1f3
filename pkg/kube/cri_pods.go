package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Pod is a pod as the container runtime has it: its newest sandbox.
type Pod struct {
	Name, Namespace string
	// Static says that the kubelet has it from a file of this host.
	Static     bool
	Ready      bool // its sandbox is
	Containers []Container
}

// Container is the newest of a pod's containers of one name.
type Container struct {
	Name, ID string
	State    string // "created", "running", "exited" or "unknown"
	Restarts int    // as the kubelet counts them
	Created  time.Time
}

// sourceAnnotation is where the kubelet says what it has a pod from.
const sourceAnnotation = "kubernetes.io/config.source"

// ListPods asks the container runtime that listens on socket, a path of the host, for the pods
// that it has, the one of each name that was made last. It needs neither the API nor the kubelet.
func ListPods(ctx context.Context, h *host.Host, socket string) (pods []Pod, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := dialRuntime(h, socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := runtime.NewRuntimeServiceClient(conn)
	sandboxes, err := client.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pods at %s: %w", socket, err)
	}
	containers, err := client.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers at %s: %w", socket, err)
	}
	return podsOf(sandboxes.GetItems(), containers.GetContainers()), nil
}

func podsOf(sandboxes []*runtime.PodSandbox, containers []*runtime.Container) []Pod {
	type key struct{ namespace, name string }
	newest := map[key]*runtime.PodSandbox{}
	var order []key
	for _, s := range sandboxes {
		k := key{s.GetMetadata().GetNamespace(), s.GetMetadata().GetName()}
		had, there := newest[k]
		if !there {
			order = append(order, k)
		}
		if !there || s.CreatedAt > had.CreatedAt {
			newest[k] = s
		}
	}
	var pods []Pod
	for _, k := range order {
		s := newest[k]
		pods = append(pods, Pod{
			Name: k.name, Namespace: k.namespace, Static: s.Annotations[sourceAnnotation] == "file",
			Ready: s.State == runtime.PodSandboxState_SANDBOX_READY, Containers: containersOf(s.Id, containers),
		})
	}
	return pods
}

func containersOf(sandbox string, containers []*runtime.Container) []Container {
	var out []Container
	at := map[string]int{}
	for _, c := range containers {
		if c.PodSandboxId != sandbox {
			continue
		}
		one := Container{
			Name: c.GetMetadata().GetName(), ID: c.Id, Restarts: int(c.GetMetadata().GetAttempt()),
			State: strings.ToLower(strings.TrimPrefix(c.State.String(), "CONTAINER_")), Created: time.Unix(0, c.CreatedAt),
		}
		i, there := at[one.Name]
		switch {
		case !there:
			at[one.Name] = len(out)
			out = append(out, one)
		case one.Created.After(out[i].Created):
			out[i] = one
		}
	}
	return out
}
