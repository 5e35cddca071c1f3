package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// ErrNoCRI is a container runtime that answers, and does not serve the CRI: its plugin is
// switched off or did not load.
var ErrNoCRI = errors.New("it serves no CRI: the plugin is disabled or did not load, which its log says")

// RuntimeStatus is what a container runtime says of itself over the CRI.
type RuntimeStatus struct {
	Name, Version string // "containerd", "2.4.2"
	// NotReady is why it runs no pods, as the condition RuntimeReady says it; "" when it does.
	NotReady string
	// Config is the configuration that the daemon runs with, where it tells (containerd does);
	// nil otherwise.
	Config map[string]any
}

// AskRuntime asks the container runtime that listens on socket, a path of the host, as the
// kubelet does. A runtime without a CRI is ErrNoCRI.
func AskRuntime(ctx context.Context, h *host.Host, socket string) (RuntimeStatus, error) {
	answer, err := askRuntime(ctx, h, socket)
	if status.Code(errors.Unwrap(err)) == codes.Unimplemented || status.Code(err) == codes.Unimplemented {
		err = ErrNoCRI
	}
	if err != nil {
		return RuntimeStatus{}, fmt.Errorf("ask the container runtime at %s: %w", socket, err)
	}
	return answer, nil
}

// ErrNoRuntimeConfig is a container runtime that serves the CRI and not its RuntimeConfig, by
// which a kubelet learns the runtime's cgroup driver: containerd before 2.0.
var ErrNoRuntimeConfig = errors.New("it does not tell its cgroup driver: it has no RuntimeConfig")

// AskCgroupDriver asks the container runtime on socket, a path of the host, which cgroup driver
// it has: "systemd" or "cgroupfs". name is the runtime with its version, also where the error is
// ErrNoRuntimeConfig. A runtime without a CRI is ErrNoCRI.
func AskCgroupDriver(ctx context.Context, h *host.Host, socket string) (name, driver string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := dialRuntime(h, socket)
	if err != nil {
		return "", "", fmt.Errorf("ask the container runtime at %s: %w", socket, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := runtime.NewRuntimeServiceClient(conn)
	version, err := client.Version(ctx, &runtime.VersionRequest{})
	if status.Code(err) == codes.Unimplemented {
		err = ErrNoCRI
	}
	if err != nil {
		return "", "", fmt.Errorf("ask the container runtime at %s: %w", socket, err)
	}
	name = version.RuntimeName + " " + version.RuntimeVersion
	config, err := client.RuntimeConfig(ctx, &runtime.RuntimeConfigRequest{})
	if status.Code(err) == codes.Unimplemented {
		err = ErrNoRuntimeConfig
	}
	if err != nil {
		return name, "", fmt.Errorf("ask %s at %s: %w", name, socket, err)
	}
	return name, strings.ToLower(config.GetLinux().GetCgroupDriver().String()), nil
}

func askRuntime(ctx context.Context, h *host.Host, socket string) (answer RuntimeStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := dialRuntime(h, socket)
	if err != nil {
		return answer, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := runtime.NewRuntimeServiceClient(conn)
	version, err := client.Version(ctx, &runtime.VersionRequest{})
	if err != nil {
		return answer, err
	}
	reply, err := client.Status(ctx, &runtime.StatusRequest{Verbose: true})
	if err != nil {
		return answer, err
	}
	answer = RuntimeStatus{Name: version.RuntimeName, Version: version.RuntimeVersion, NotReady: "it does not say that it is ready"}
	for _, c := range reply.GetStatus().GetConditions() {
		if c.Type != runtime.RuntimeReady {
			continue
		}
		if answer.NotReady = ""; !c.Status {
			answer.NotReady = fmt.Sprintf("condition %s is false: %s: %s", c.Type, c.Reason, c.Message)
		}
	}
	if config, told := reply.Info["config"]; told {
		if err := json.Unmarshal([]byte(config), &answer.Config); err != nil {
			return answer, fmt.Errorf("read its configuration: %w", err)
		}
	}
	return answer, nil
}

// dialRuntime makes a connection to socket, a path of the host, which is opened by the first call.
func dialRuntime(h *host.Host, socket string) (*grpc.ClientConn, error) {
	path, err := h.Path(socket)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket of root's
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))
}
