package bootstrap

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// oldRuntime serves the CRI of containerd 1.7.
type oldRuntime struct {
	runtime.UnimplementedRuntimeServiceServer
}

func (oldRuntime) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "1.7.35"}, nil
}

// newRuntime serves that of containerd 2.
type newRuntime struct {
	oldRuntime
	driver runtime.CgroupDriver
	err    error
}

func (r newRuntime) RuntimeConfig(context.Context, *runtime.RuntimeConfigRequest) (*runtime.RuntimeConfigResponse, error) {
	return &runtime.RuntimeConfigResponse{Linux: &runtime.LinuxRuntimeConfiguration{CgroupDriver: r.driver}}, r.err
}

func TestRuntimeConfig(t *testing.T) {
	for name, test := range map[string]struct {
		server runtime.RuntimeServiceServer
		ignore []string
		want   string // the change, or
		err    string
	}{
		"2.x": {server: newRuntime{driver: runtime.CgroupDriver_SYSTEMD}},
		"1.7": {server: oldRuntime{}, want: `ContainerRuntimeVersion: "containerd 1.7.35, which has no RuntimeConfig in its CRI" → "containerd 2.0 or newer (packages.containerd: containerd.io, of Docker's repository), or packages.kubernetesVersion 1.36"`},
		"1.7, ignored": {server: oldRuntime{}, ignore: []string{"ContainerRuntimeVersion"},
			want: `ContainerRuntimeVersion: "containerd 1.7.35, which has no RuntimeConfig in its CRI" → "containerd 2.0 or newer (packages.containerd: containerd.io, of Docker's repository), or packages.kubernetesVersion 1.36"`},
		"cgroupfs":    {server: newRuntime{driver: runtime.CgroupDriver_CGROUPFS}, err: "has the cgroup driver cgroupfs"},
		"starting":    {server: newRuntime{err: status.Error(codes.Unavailable, "not yet")}, err: "not yet"},
		"without CRI": {err: "it serves no CRI"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &host.Host{Root: t.TempDir()}
			if err := h.MkdirAll("/run/containerd", 0o755); err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("unix", filepath.Join(h.Root, containerdSocket))
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			if test.server != nil {
				runtime.RegisterRuntimeServiceServer(server, test.server)
			}
			go func() { _ = server.Serve(listener) }()
			defer server.Stop()
			changes, err := RuntimeConfig(h, test.ignore).Check(t.Context())
			if test.err != "" {
				wantError(t, err, test.err)
				if !errors.As(err, new(step.Blocked)) {
					t.Errorf("%v does not wait", err)
				}
				return
			}
			got := ""
			for _, c := range changes {
				got += c.String()
				if c.Manual != (test.ignore != nil) {
					t.Errorf("%+v", c)
				}
			}
			if err != nil || got != test.want {
				t.Errorf("got %s, %v\nwant %s", got, err, test.want)
			}
		})
	}
}

// Before containerd is there nothing can be said, and nothing is wrong.
func TestRuntimeConfigWaits(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	var blocked step.Blocked
	if _, err := RuntimeConfig(h, nil).Check(t.Context()); !errors.As(err, &blocked) || blocked.On != "containerd" {
		t.Errorf("not installed: %v", err)
	}
	h.Offline = true
	if _, err := RuntimeConfig(h, nil).Check(t.Context()); !errors.As(err, &blocked) || blocked.On != step.Boot {
		t.Errorf("an image: %v", err)
	}
}
