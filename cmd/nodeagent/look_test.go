package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// goodNode is what an API server says of a node that is well.
const goodNode = `{"kind":"Node","metadata":{"name":"node-1"},"spec":{},"status":{"nodeInfo":{"kubeletVersion":"v1.36.3"},
	"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True","reason":"KubeletReady","message":"posting ready status"}]}}`

// badNode is one that is not.
const badNode = `{"kind":"Node","metadata":{"name":"node-1"},"spec":{"unschedulable":true},"status":{"nodeInfo":{"kubeletVersion":"v1.36.3"},
	"conditions":[{"type":"DiskPressure","status":"True","reason":"KubeletHasDiskPressure","message":"the disk is full"},
	{"type":"Ready","status":"False","reason":"KubeletNotReady","message":"no network"}]}}`

// live is a running machine below a scratch root: a control plane that was made by kubeadm, with
// an API server and a container runtime that answer as the test says, and units likewise.
type live struct {
	*machine
	node  string // what the API says; "" for a server that has gone
	cri   *criServer
	units map[string]systemd.State
}

type criServer struct {
	runtime.UnimplementedRuntimeServiceServer
	states map[string]runtime.ContainerState // by static pod; one that is not there has no container
	err    error
}

func (c *criServer) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "2.4.2"}, c.err
}

func (c *criServer) Status(context.Context, *runtime.StatusRequest) (*runtime.StatusResponse, error) {
	return &runtime.StatusResponse{}, c.err
}

func (c *criServer) ListPodSandbox(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	var reply runtime.ListPodSandboxResponse
	for name := range c.states {
		reply.Items = append(reply.Items, &runtime.PodSandbox{
			Id: name, Metadata: &runtime.PodSandboxMetadata{Name: name + "-node-1", Namespace: "kube-system"},
			State: runtime.PodSandboxState_SANDBOX_READY, Annotations: map[string]string{"kubernetes.io/config.source": "file"},
		})
	}
	return &reply, c.err
}

func (c *criServer) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	var reply runtime.ListContainersResponse
	for name, state := range c.states {
		reply.Containers = append(reply.Containers, &runtime.Container{
			Id: "0123456789abcdef-" + name, PodSandboxId: name, Metadata: &runtime.ContainerMetadata{Name: name, Attempt: 3},
			State: state, CreatedAt: time.Now().Add(-time.Hour).UnixNano(),
		})
	}
	return &reply, c.err
}

var (
	wellUnit     = systemd.State{LoadState: "loaded", ActiveState: "active", SubState: "running", UnitFileState: "enabled"}
	disabledUnit = systemd.State{LoadState: "loaded", ActiveState: "active", SubState: "running", UnitFileState: "disabled"}
	failedUnit   = systemd.State{LoadState: "loaded", ActiveState: "failed", SubState: "failed", UnitFileState: "enabled"}
)

func newLive(t *testing.T) *live {
	t.Helper()
	l := &live{
		node: goodNode, cri: &criServer{states: map[string]runtime.ContainerState{}},
		units: map[string]systemd.State{"containerd.service": wellUnit, "kubelet.service": wellUnit},
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/nodes/node-1" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, l.node)
	}))
	l.machine = liveMachine(t, server.Listener.Addr().String())
	l.unit = func(_ context.Context, name string) (systemd.State, error) {
		if state, ok := l.units[name]; ok {
			return state, nil
		}
		return systemd.State{LoadState: "not-found", ActiveState: "inactive"}, nil
	}
	dir := filepath.Join(l.host.Root, certstest.Dir, "pki")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)

	cri := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(cri, l.cri)
	listener := listenUnix(t, l.host, bootstrap.ContainerdSocket)
	go func() { _ = cri.Serve(listener) }()
	t.Cleanup(cri.Stop)

	for _, name := range []string{"etcd", "kube-apiserver"} {
		write(t, l.host, bootstrap.ManifestDir+"/"+name+".yaml",
			"kind: Pod\nmetadata: {name: "+name+", namespace: kube-system}\nspec: {containers: [{name: "+name+"}]}\n")
		l.cri.states[name] = runtime.ContainerState_CONTAINER_RUNNING
	}
	return l
}

// liveMachine is a control plane whose kubeconfigs lead to address.
func liveMachine(t *testing.T, address string) *machine {
	t.Helper()
	// Not t.TempDir: a socket's path may have 108 characters.
	root, err := os.MkdirTemp("", "live") //nolint:usetesting // as said
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := certstest.Write(root, certstest.Options{Now: time.Now(), Server: "https://" + address, Kubelet: true}); err != nil {
		t.Fatal(err)
	}
	h := &host.Host{Root: root, Exec: func(_ context.Context, c host.Command) ([]byte, error) {
		return []byte("v1.36.3\n"), nil
	}}
	write(t, h, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	cfg := config.Default()
	cfg.Role, cfg.Node.Name = bootstrap.ControlPlane, "node-1"
	m, err := newMachine(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func listenUnix(t *testing.T, h *host.Host, path string) net.Listener {
	t.Helper()
	if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(h.Root, path))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// page is status as an operator reads it.
func page(t *testing.T, s agent.Status) string {
	t.Helper()
	var out bytes.Buffer
	if err := writeStatus(&out, s, terminal{}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(out.String(), "\n", " ; ")), " ")
}

func wantAll(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is missing in\n%s", word, text)
		}
	}
}

func TestStatusOfANode(t *testing.T) {
	l := newLive(t)
	s := l.status(t.Context(), time.Now())
	wantAll(t, page(t, s), "node-1 is well: nothing is known to be wrong, 1 warning ;",
		"Warning file /var/lib/nodeagent/backups holds no snapshot of etcd yet ; type: nodeagent snapshot save ;",
		"Kubernetes v1.36.3, Ready ;", "Units 2 of 2 running ;", "Static pods 2 of 2 running ;")
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, string(data), `"apiVersion":"nodeagent/v1"`,
		`"node":{"name":"node-1","known":true,"kubeletVersion":"v1.36.3","ready":true,"unschedulable":false,"conditions":[]}`,
		`{"unit":"kubelet.service","loadState":"loaded","activeState":"active","subState":"running","unitFileState":"enabled"}`,
		`"verdict":"well"`, `{"name":"etcd","manifest":"/etc/kubernetes/manifests/etcd.yaml","state":"running","restarts":3,"since":"`)
}

// Everything that can be wrong is told, with what to type.
func TestStatusOfABadNode(t *testing.T) {
	l := newLive(t)
	l.node = badNode
	l.units["kubelet.service"], l.units["containerd.service"] = failedUnit, disabledUnit
	l.cri.states = map[string]runtime.ContainerState{"etcd": runtime.ContainerState_CONTAINER_EXITED, "left": runtime.ContainerState_CONTAINER_RUNNING}
	wantAll(t, page(t, l.status(t.Context(), time.Now())),
		"node-1 is not well: 6 problems, 3 warnings ;",
		"Kubernetes v1.36.3, not Ready, unschedulable ;", "; DiskPressure is True: KubeletHasDiskPressure: the disk is full ;",
		"Problem condition Ready of node node-1 is False: KubeletNotReady: no network ; type: journalctl -u kubelet ;", "type: kubectl uncordon node-1",
		"Problem unit kubelet.service is failed (failed), enabled ; type: journalctl -u kubelet.service",
		"Warning unit containerd.service is not started at the next boot: it is disabled ; type: systemctl enable containerd.service",
		"Problem static pod etcd: its container is exited, after 3 restarts ; type: crictl logs 0123456789abc ;",
		"Units 0 of 2 running ; containerd.service active (running), disabled ; kubelet.service failed (failed), enabled ;",
		"Static pods 0 of 3 running ; etcd exited, 3 restarts, for ",
		"Problem static pod kube-apiserver does not run: there is no container of it", "Problem static pod left runs, and there is no manifest of it")

	l.cri.err = errors.New("not now")
	delete(l.units, "kubelet.service")
	wantAll(t, page(t, l.status(t.Context(), time.Now())), "; etcd unknown, ", "Problem containerd does not say which pods it has: ",
		"; kubelet.service not-found", "Problem unit kubelet.service is not-found")
}

// While the host is being made, what is not there yet is no problem.
func TestStatusWhileBootstrapping(t *testing.T) {
	l := newLive(t)
	l.node, l.cri.err = badNode, errors.New("not now")
	l.units = nil
	write(t, l.host, "/var/lib/nodeagent/bootstrapping", "0123456789abcdef0123456789abcdef\n")
	wantAll(t, page(t, l.status(t.Context(), time.Now())), "node-1 is not ready: it is being made: 0 of ", "bootstrapping", "not Ready", "; kubelet.service not-found")
	if s := l.status(t.Context(), time.Now()); s.Verdict != agent.Unfinished || len(s.Problems) > 0 {
		t.Errorf("%s, %v", s.Verdict, s.Problems)
	}
}

// An API server, a container runtime and a systemd that take a connection and never answer: status
// says so, and soon.
func TestStatusWhenNothingAnswers(t *testing.T) {
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	m := liveMachine(t, api.Addr().String())
	defer listenUnix(t, m.host, bootstrap.ContainerdSocket).Close()
	write(t, m.host, bootstrap.ManifestDir+"/etcd.yaml", "kind: Pod\nmetadata: {name: etcd}\nspec: {}\n")
	m.unit = func(ctx context.Context, _ string) (systemd.State, error) {
		<-ctx.Done()
		return systemd.State{}, context.Cause(ctx)
	}
	answered := make(chan agent.Status, 1)
	go func() { answered <- m.status(t.Context(), time.Now()) }()
	select {
	case s := <-answered:
		wantAll(t, page(t, s), "Kubernetes the API does not say how the node is: https://"+api.Addr().String()+": no answer within 3s",
			"; kubelet.service not known: no answer within 3s", "Static pods 0 of 1 running ; etcd unknown", "Certificates 2", "Problem containerd does not say which pods it has")
		if s.Node == nil || s.Node.Known {
			t.Errorf("%+v", s.Node)
		}
	case <-time.After(5 * lookTimeout): // far less than a request's own limit
		t.Fatal("status has not answered")
	}
}

// In an image nobody is asked.
func TestStatusOfAnImage(t *testing.T) {
	l := newLive(t)
	l.host.Offline = true
	s := l.status(t.Context(), time.Now())
	if s.Node != nil || len(s.Units)+len(s.StaticPods) > 0 {
		t.Errorf("%+v", s)
	}
}

func TestAlike(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var steps []agent.StepStatus
	for i, name := range []string{"kernel/swap", "kernel/modules", "packages/repository", "packages", "kubeadm/a", "kubeadm/b", "kubeadm/c", "kubeadm/d", "kernel/sysctl"} {
		st := agent.StepStatus{Name: name, Outcome: step.Clean, At: now.Add(time.Duration(i-9) * time.Second)}
		if name == "kubeadm/c" {
			st.Outcome = step.Failed
		}
		steps = append(steps, st)
	}
	var got []string
	for _, group := range alike(steps) {
		got = append(got, fmt.Sprint(alikeName(group), " ", group[0].Outcome, " ", agent.Ago(oldest(group), now)))
	}
	want := []string{"kernel (2 steps) clean 9s ago", "packages (2 steps) clean 7s ago", "kubeadm (2 steps) clean 5s ago", "kubeadm/c failed 3s ago", "kubeadm/d clean 2s ago", "kernel/sysctl clean 1s ago"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// liveSession is a daemon's session on a machine, and its metrics' page.
func liveSession(t *testing.T, m *machine) (*session, func() string) {
	t.Helper()
	d := &daemon{host: m.host, metrics: metrics.New("", ""), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	return &session{daemon: d, machine: m}, func() string {
		w := httptest.NewRecorder()
		promhttp.HandlerFor(d.metrics.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return w.Body.String()
	}
}

func TestLookAtNode(t *testing.T) {
	l := newLive(t)
	write(t, l.host, "/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
	write(t, l.host, "/proc/sys/kernel/osrelease", "6.1.0-1-amd64\n")
	if err := l.host.WriteFile("/usr/bin/kubeadm", []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, metrics := liveSession(t, l.machine)
	look := func(words ...string) {
		t.Helper()
		if err := s.lookAtNode(t.Context()); err != nil {
			t.Error(err)
		}
		wantAll(t, metrics(), words...)
	}
	const info = `nodeagent_node_info{containerd="2.4.2",kernel="6.1.0-1-amd64",kubeadm="v1.36.3",kubelet="v1.36.3",os="Debian GNU/Linux 12 (bookworm)"} 1`
	look("nodeagent_node_ready 1", "nodeagent_node_status_known 1", info,
		`nodeagent_unit_state{state="active",unit="kubelet.service"} 1`, `nodeagent_unit_enabled{unit="containerd.service"} 1`)
	l.node = badNode
	look("nodeagent_node_ready 0", "nodeagent_node_status_known 1", info)

	// What does not answer: the versions stay as they were.
	l.node, l.cri.err = "no JSON", errors.New("no")
	l.units["kubelet.service"] = failedUnit
	look("nodeagent_node_ready 0", "nodeagent_node_status_known 0", info,
		`nodeagent_unit_state{state="failed",unit="kubelet.service"} 1`, `nodeagent_unit_state{state="active",unit="kubelet.service"} 0`)
	if strings.Count(metrics(), "\nnodeagent_node_info{") != 1 {
		t.Errorf("several versions:\n%s", metrics())
	}

	// A systemd that does not answer is the job's failure, and no unit is up.
	l.unit = func(context.Context, string) (systemd.State, error) { return systemd.State{}, errors.New("no bus") }
	if err := s.lookAtNode(t.Context()); err == nil || !strings.Contains(err.Error(), "no bus") {
		t.Errorf("%v", err)
	}
	if strings.Contains(metrics(), "service\"} 1") {
		t.Errorf("a unit is up:\n%s", metrics())
	}
}

// An external etcd's unit is looked at where this host has it.
func TestUnitsOfExternalEtcd(t *testing.T) {
	l := newLive(t)
	external, err := bootstrap.NewPassthrough("etcd: {external: {endpoints: [https://192.0.2.1:2379]}}")
	if err != nil {
		t.Fatal(err)
	}
	l.cfg.Kubeadm.ClusterConfiguration = external
	s, metrics := liveSession(t, l.machine)
	for _, there := range []bool{false, true, false} {
		if delete(l.units, "etcd.service"); there {
			l.units["etcd.service"] = wellUnit
		}
		if err := s.lookAtNode(t.Context()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(metrics(), `unit="etcd.service"`) != there {
			t.Errorf("there %v:\n%s", there, metrics())
		}
	}
	l.cfg.Role = bootstrap.Etcd
	if names, _ := stepsConfig(l.cfg).Units(); !slices.Equal(names, []string{"etcd.service"}) {
		t.Errorf("%v", names)
	}
}
