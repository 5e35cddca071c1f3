package kube

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/host"
)

const manifests = "/etc/kubernetes/manifests"

func manifest(t *testing.T, h *host.Host, file, text string) {
	t.Helper()
	if err := h.WriteFile(filepath.Join(manifests, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func podText(name string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: kube-system}\nspec: {containers: [{name: " + name + "}]}\n"
}

func sandbox(id, name string, at int64, ready bool) *runtime.PodSandbox {
	state := runtime.PodSandboxState_SANDBOX_NOTREADY
	if ready {
		state = runtime.PodSandboxState_SANDBOX_READY
	}
	return &runtime.PodSandbox{
		Id: id, Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "kube-system"}, State: state, CreatedAt: at,
		Annotations: map[string]string{"kubernetes.io/config.source": "file"},
	}
}

func container(id, sandbox, name string, attempt uint32, at int64, state runtime.ContainerState) *runtime.Container {
	return &runtime.Container{
		Id: id, PodSandboxId: sandbox, Metadata: &runtime.ContainerMetadata{Name: name, Attempt: attempt}, CreatedAt: at, State: state,
	}
}

const (
	running = runtime.ContainerState_CONTAINER_RUNNING
	exited  = runtime.ContainerState_CONTAINER_EXITED
	created = runtime.ContainerState_CONTAINER_CREATED
)

func TestListPodsAndStaticPods(t *testing.T) {
	h := serveRuntime(t, &fakeRuntime{
		sandboxes: []*runtime.PodSandbox{
			sandbox("s2", "etcd-node-1", 200, true), sandbox("s1", "etcd-node-1", 100, false), // one before it
			sandbox("s3", "kube-apiserver-node-1", 300, true),
			sandbox("s4", "kube-scheduler-node-1", 300, true),
			sandbox("s5", "gone-node-1", 300, true), sandbox("s6", "old-node-1", 300, false),
			{Id: "s7", Metadata: &runtime.PodSandboxMetadata{Name: "coredns", Namespace: "kube-system"}, State: runtime.PodSandboxState_SANDBOX_READY},
		},
		containers: []*runtime.Container{
			container("c1", "s1", "etcd", 9, 110, exited),
			container("c3", "s2", "etcd", 1, 230, running), container("c2", "s2", "etcd", 0, 210, exited),
			container("c4", "s3", "kube-apiserver", 4, 310, exited),
			container("c5", "s5", "gone", 0, 310, running), container("c6", "s6", "old", 0, 310, exited),
			container("c7", "s7", "coredns", 0, 310, running),
		},
	})
	for _, name := range []string{"etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"} {
		manifest(t, h, name+".yaml", podText(name))
	}
	manifest(t, h, ".kubelet-keep", "")
	manifest(t, h, "broken.yaml", "kind: Pod\nmetadata: {")
	if err := os.Mkdir(filepath.Join(h.Root, manifests, "directory"), 0o755); err != nil {
		t.Fatal(err)
	}

	pods, err := ListPods(t.Context(), h, testSocket)
	if err != nil || len(pods) != 6 {
		t.Fatalf("%+v, %v", pods, err)
	}
	got, err := StaticPods(h, manifests, "Node-1", pods, true)
	at := func(ns int64) time.Time { return time.Unix(0, ns) }
	want := []StaticPod{
		{Name: "broken.yaml", Manifest: manifests + "/broken.yaml", State: PodBroken},
		{Name: "etcd", Manifest: manifests + "/etcd.yaml", State: PodRunning, Restarts: 1, Since: at(230)},
		{Name: "gone", State: PodRunning, Since: at(310)},
		{Name: "kube-apiserver", Manifest: manifests + "/kube-apiserver.yaml", State: "exited", Container: "c4", Restarts: 4, Since: at(310)},
		{Name: "kube-controller-manager", Manifest: manifests + "/kube-controller-manager.yaml", State: PodAbsent},
		{Name: "kube-scheduler", Manifest: manifests + "/kube-scheduler.yaml", State: PodAbsent},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}

	got, err = StaticPods(h, manifests, "node-1", nil, false)
	if err != nil || len(got) != 5 || got[1].State != PodUnknown {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of several containers the one that does not run says how the pod is.
func TestStaticPodOfSeveralContainers(t *testing.T) {
	one := sandbox("s", "two-node-1", 1, true)
	for name, test := range map[string]struct {
		containers []*runtime.Container
		state, id  string
	}{
		"both run":         {[]*runtime.Container{container("a", "s", "a", 0, 1, running), container("b", "s", "b", 0, 1, running)}, PodRunning, ""},
		"the first is not": {[]*runtime.Container{container("a", "s", "a", 0, 1, exited), container("b", "s", "b", 0, 1, running)}, "exited", "a"},
		"the second not":   {[]*runtime.Container{container("a", "s", "a", 0, 1, running), container("b", "s", "b", 0, 1, created)}, "created", "b"},
		"one is missing":   {[]*runtime.Container{container("a", "s", "a", 0, 1, running)}, PodAbsent, ""},
		"none":             {nil, PodAbsent, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := host.New(t.TempDir())
			manifest(t, h, "two.yaml", "kind: Pod\nmetadata: {name: two, namespace: kube-system}\nspec: {containers: [{name: a}, {name: b}]}\n")
			got, err := StaticPods(h, manifests, "node-1", podsOf([]*runtime.PodSandbox{one}, test.containers), true)
			if err != nil || len(got) != 1 || got[0].State != test.state || got[0].Container != test.id {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestListPodsFails(t *testing.T) {
	if _, err := ListPods(t.Context(), serveRuntime(t, &fakeRuntime{err: errors.New("no")}), testSocket); err == nil {
		t.Error("a runtime that answers with an error")
	}
	if pods, err := StaticPods(host.New(t.TempDir()), manifests, "node-1", nil, true); err != nil || len(pods) > 0 {
		t.Errorf("a host without manifests: %v, %v", pods, err)
	}
}

func TestWrongConditions(t *testing.T) {
	n := Node{Conditions: []Condition{
		{Type: "MemoryPressure", Status: "False"}, {Type: "DiskPressure", Status: "True"}, {Type: "PIDPressure", Status: "Unknown"}, {Type: "Ready", Status: "True"},
	}}
	var got []string
	for _, c := range append(n.Wrong(), Node{}.Wrong()...) {
		got = append(got, c.Type+"="+c.Status)
	}
	if diff := cmp.Diff([]string{"DiskPressure=True", "PIDPressure=Unknown", "Ready=Unknown"}, got); diff != "" {
		t.Error(diff)
	}
}
