package kube

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// fakeRuntime answers the CRI as it is told to.
type fakeRuntime struct {
	runtime.UnimplementedRuntimeServiceServer
	status     *runtime.StatusResponse
	sandboxes  []*runtime.PodSandbox
	containers []*runtime.Container
	err        error
}

func (f *fakeRuntime) ListPodSandbox(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	return &runtime.ListPodSandboxResponse{Items: f.sandboxes}, f.err
}

func (f *fakeRuntime) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return &runtime.ListContainersResponse{Containers: f.containers}, f.err
}

func (f *fakeRuntime) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "2.4.2"}, f.err
}

func (f *fakeRuntime) Status(_ context.Context, r *runtime.StatusRequest) (*runtime.StatusResponse, error) {
	if !r.Verbose {
		return nil, errors.New("not verbose")
	}
	return f.status, f.err
}

const testSocket = "/run/c.sock"

func serveRuntime(t *testing.T, f runtime.RuntimeServiceServer) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir()}
	if err := os.Mkdir(filepath.Join(h.Root, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(h.Root, testSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	if f != nil {
		runtime.RegisterRuntimeServiceServer(server, f)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return h
}

func answer(ready bool, info string) *runtime.StatusResponse {
	return &runtime.StatusResponse{
		Status: &runtime.RuntimeStatus{Conditions: []*runtime.RuntimeCondition{
			{Type: runtime.NetworkReady},
			{Type: runtime.RuntimeReady, Status: ready, Reason: "Why", Message: "it is not"},
		}},
		Info: map[string]string{"config": info},
	}
}

func TestAskRuntime(t *testing.T) {
	got, err := AskRuntime(t.Context(), serveRuntime(t, &fakeRuntime{status: answer(true, `{"sandboxImage":"x","cni":{"binDirs":["/a"]}}`)}), testSocket)
	if err != nil || got.Name != "containerd" || got.Version != "2.4.2" || got.NotReady != "" || got.Config["sandboxImage"] != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = AskRuntime(t.Context(), serveRuntime(t, &fakeRuntime{status: answer(false, "{}")}), testSocket)
	if err != nil || got.NotReady != "condition RuntimeReady is false: Why: it is not" {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = AskRuntime(t.Context(), serveRuntime(t, &fakeRuntime{status: &runtime.StatusResponse{}}), testSocket)
	if err != nil || got.NotReady == "" || got.Config != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAskRuntimeFails(t *testing.T) {
	if _, err := AskRuntime(t.Context(), serveRuntime(t, nil), testSocket); !errors.Is(err, ErrNoCRI) || !strings.HasPrefix(err.Error(), "ask the container runtime at /run/c.sock: ") {
		t.Errorf("without a CRI: %v", err)
	}
	_, err := AskRuntime(t.Context(), serveRuntime(t, &fakeRuntime{err: errors.New("server is not initialized yet")}), testSocket)
	if err == nil || errors.Is(err, ErrNoCRI) || !strings.Contains(err.Error(), "not initialized yet") {
		t.Errorf("too early: %v", err)
	}
	if _, err := AskRuntime(t.Context(), serveRuntime(t, &fakeRuntime{status: answer(true, "{")}), testSocket); err == nil || !strings.Contains(err.Error(), "read its configuration") {
		t.Errorf("no JSON: %v", err)
	}
	if _, err := AskRuntime(t.Context(), &host.Host{Root: t.TempDir()}, testSocket); err == nil || errors.Is(err, ErrNoCRI) {
		t.Errorf("nobody there: %v", err)
	}
}

// tellingRuntime has RuntimeConfig, as containerd 2 does.
type tellingRuntime struct {
	*fakeRuntime
	driver runtime.CgroupDriver
}

func (r tellingRuntime) RuntimeConfig(context.Context, *runtime.RuntimeConfigRequest) (*runtime.RuntimeConfigResponse, error) {
	return &runtime.RuntimeConfigResponse{Linux: &runtime.LinuxRuntimeConfiguration{CgroupDriver: r.driver}}, nil
}

func TestAskCgroupDriver(t *testing.T) {
	for driver, want := range map[runtime.CgroupDriver]string{runtime.CgroupDriver_SYSTEMD: "systemd", runtime.CgroupDriver_CGROUPFS: "cgroupfs"} {
		name, got, err := AskCgroupDriver(t.Context(), serveRuntime(t, tellingRuntime{&fakeRuntime{}, driver}), testSocket)
		if err != nil || got != want || name != "containerd 2.4.2" {
			t.Errorf("%q, %q, %v, want %q", name, got, err, want)
		}
	}
	name, _, err := AskCgroupDriver(t.Context(), serveRuntime(t, &fakeRuntime{}), testSocket)
	if !errors.Is(err, ErrNoRuntimeConfig) || name != "containerd 2.4.2" {
		t.Errorf("without RuntimeConfig: %q, %v", name, err)
	}
	if _, _, err := AskCgroupDriver(t.Context(), serveRuntime(t, nil), testSocket); !errors.Is(err, ErrNoCRI) || errors.Is(err, ErrNoRuntimeConfig) {
		t.Errorf("without CRI: %v", err)
	}
	for what, h := range map[string]*host.Host{
		"starting": serveRuntime(t, &fakeRuntime{err: errors.New("server is not initialized yet")}), "absent": {Root: t.TempDir()},
	} {
		if _, _, err := AskCgroupDriver(t.Context(), h, testSocket); err == nil || errors.Is(err, ErrNoCRI) || errors.Is(err, ErrNoRuntimeConfig) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
