//go:build integration

package controlplane_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/test/controlplane"
	"github.com/nodeagent/nodeagent/test/docblock"
)

// network is an add-on as they come: kinds that the API fills with defaults of many sorts, a
// Secret in clear, a custom resource before its kind, a pod before its namespace.
const network = `
apiVersion: nodeagent.test/v1
kind: Pool
metadata: {name: first}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: labnet}
spec:
  tolerations: [{operator: Exists}]
  containers: [{name: c, image: example.invalid/none}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: net, namespace: labnet}
spec:
  selector: {matchLabels: {app: net}}
  template:
    metadata: {labels: {app: net}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      initContainers:
      - {name: install, image: example.invalid/none, command: [cp], volumeMounts: [{name: bin, mountPath: /opt/cni/bin}]}
      containers:
      - {name: run, image: example.invalid/none, resources: {requests: {cpu: 10m}}, env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]}
      volumes: [{name: bin, hostPath: {path: /opt/cni/bin, type: DirectoryOrCreate}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: labnet}
spec:
  selector: {matchLabels: {app: controller}}
  template:
    metadata: {labels: {app: controller}}
    spec:
      tolerations: [{operator: Exists}]
      containers: [{name: run, image: example.invalid/none, ports: [{containerPort: 80}], readinessProbe: {httpGet: {path: /, port: 80}}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: labnet}
spec:
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec: {tolerations: [{operator: Exists}], containers: [{name: run, image: example.invalid/none}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: labnet}
spec:
  template:
    metadata: {labels: {app: migrate}}
    spec: {restartPolicy: Never, tolerations: [{operator: Exists}], containers: [{name: run, image: example.invalid/none}]}
---
{apiVersion: v1, kind: Service, metadata: {name: controller, namespace: labnet}, spec: {selector: {app: controller}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: labnet}, data: {mode: quiet, mtu: "1400"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: psk, namespace: labnet}, stringData: {key: "of the test"}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: net, namespace: labnet}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: net}, rules: [{apiGroups: [""], resources: [nodes], verbs: [get, list]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: net}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: net}
subjects: [{kind: ServiceAccount, name: net, namespace: labnet}]
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: net, namespace: labnet}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: net}}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.nodeagent.test}
spec:
  group: nodeagent.test
  scope: Cluster
  names: {kind: Pool, plural: pools}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {cidr: {type: string}, block: {type: integer, default: 26}}}}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: labnet}}
`

const addonDir = "/etc/nodeagent/addons"

func writeAddon(t *testing.T, manifest string) {
	t.Helper()
	if err := os.MkdirAll(addonDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(addonDir, "network.yaml"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The steps that apply add-ons and wait for them, with the controllers that make the pods. The
// test is their kubelet.
func TestAddons(t *testing.T) {
	c := controlplane.Start(t)
	c.StartComponent(t, "kube-controller-manager")
	c.StartComponent(t, "kube-scheduler")
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	c.Kubectl(t, "create", "-f", writeNode(t))
	c.Kubectl(t, "patch", "node", controlplane.NodeName, "--subresource=status", "-p", `{"status":{"allocatable":{"pods":"90","cpu":"1","memory":"1Gi"}}}`)

	h := host.New("/")
	connect := func() (*kube.Client, error) { return kube.Connect(h, controlplane.SuperAdmin) }
	apply := bootstrap.Addons(h, []string{addonDir}, connect)
	ready := bootstrap.AddonsReady(h, []string{addonDir}, 3*time.Minute, connect)
	writeAddon(t, network)

	if _, err := ready.Check(ctx); !errors.Is(err, step.Blocked{On: bootstrap.AddonsStep}) {
		t.Errorf("ready before they are applied: %v", err)
	}
	converges(ctx, t, apply)
	t.Run("rollout", func(t *testing.T) { testRollout(ctx, t, c, ready) })
	// After the controllers have written what they write.
	if changes, err := apply.Check(ctx); err != nil || len(changes) > 0 {
		t.Errorf("differs after the rollout: %v, %v", changes, err)
	}
	t.Run("changed manifest", func(t *testing.T) {
		writeAddon(t, strings.Replace(network, "requests: {cpu: 10m}", "requests: {cpu: 20m}", 1))
		differ(ctx, t, apply, "DaemonSet labnet/net: applied from another document")
		converges(ctx, t, apply)
		if left := rolling(ctx, t, ready); !strings.Contains(left, "DaemonSet labnet/net: ") {
			t.Errorf("a new template is rolled out at once: %s", left)
		}
		play(ctx, t, c, ready)
	})
	t.Run("edited in the API", func(t *testing.T) { testEdited(ctx, t, c, apply) })
	t.Run("no longer in the manifest", func(t *testing.T) {
		before, after, _ := strings.Cut(network, "{apiVersion: v1, kind: ConfigMap")
		_, after, _ = strings.Cut(after, "---\n")
		writeAddon(t, strings.Replace(before+after, "requests: {cpu: 10m}", "requests: {cpu: 20m}", 1))
		if changes, err := apply.Check(ctx); err != nil || len(changes) > 0 {
			t.Errorf("%v, %v", changes, err)
		}
		if out := c.Kubectl(t, "get", "configmap/settings", "-n", "labnet", "-o", "name"); out != "configmap/settings\n" {
			t.Errorf("the object is %q", out)
		}
	})
}

func writeNode(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte("{apiVersion: v1, kind: Node, metadata: {name: "+controlplane.NodeName+"}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// converges is what steptest does to a step on a directory; here it is done to a cluster.
func converges(ctx context.Context, t *testing.T, s step.Step) {
	t.Helper()
	results, err := step.Apply(ctx, []step.Step{s}, nil)
	if err != nil || results[0].Outcome != step.Applied {
		t.Fatalf("%+v, %v", results, err)
	}
	if err := s.Apply(ctx); err != nil {
		t.Errorf("second apply: %v", err)
	}
	if changes, err := s.Check(ctx); err != nil || len(changes) > 0 {
		t.Errorf("after the second apply: %v, %v", changes, err)
	}
}

func differ(ctx context.Context, t *testing.T, s step.Step, want ...string) {
	t.Helper()
	changes, err := s.Check(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.Subject+": "+c.Have)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// rolling is what is not rolled out, a line each.
func rolling(ctx context.Context, t *testing.T, s step.Step) string {
	t.Helper()
	changes, err := s.Check(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range changes {
		b.WriteString(c.Subject + ": " + c.Have + "\n")
	}
	return b.String()
}

// until repeats what the kubelet would do until the condition holds.
func until(ctx context.Context, t *testing.T, holds func() bool, do func()) {
	t.Helper()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatal("did not come about: ", context.Cause(ctx))
		case <-time.After(500 * time.Millisecond):
		}
		do()
	}
}

func testRollout(ctx context.Context, t *testing.T, c *controlplane.ControlPlane, ready step.Step) {
	const all = "DaemonSet labnet/net: 0 of 1 available: pod net-"
	last := ""
	until(ctx, t, func() bool { last = rolling(ctx, t, ready); return strings.Contains(last, all) }, func() {})
	for _, want := range []string{"Deployment labnet/controller: 0 of 1 available", "StatefulSet labnet/store: 0 of 1 ready", "Job labnet/migrate: not complete, "} {
		if !strings.Contains(last, want) {
			t.Errorf("no %q in\n%s", want, last)
		}
	}
	if strings.Contains(last, "CustomResourceDefinition") {
		t.Errorf("the definition is not established:\n%s", last)
	}
	pod := c.Kubectl(t, "get", "pods", "-n", "labnet", "-l", "app=net", "-o", "jsonpath={.items[0].metadata.name}")
	patchPod(t, c, pod, `{"status":{"phase":"Pending","initContainerStatuses":[{"name":"install","image":"x","imageID":"","restartCount":0,"ready":false,"state":{"waiting":{"reason":"ErrImagePull","message":"no such host"}}}]}}`)
	if last := rolling(ctx, t, ready); !strings.Contains(last, ": container install: ErrImagePull: no such host\n") {
		t.Errorf("an image that cannot be pulled: %s", last)
	}
	play(ctx, t, c, ready)
}

// play is the kubelet: all pods run, and the Job's have ended.
func play(ctx context.Context, t *testing.T, c *controlplane.ControlPlane, ready step.Step) {
	t.Helper()
	const running = `{"status":{"phase":"Running","initContainerStatuses":[],"conditions":[{"type":"Ready","status":"True"}]}}`
	const ended = `{"status":{"phase":"Succeeded"}}`
	until(ctx, t, func() bool { return rolling(ctx, t, ready) == "" }, func() {
		for pod := range strings.Lines(c.Kubectl(t, "get", "pods", "-n", "labnet", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.metadata.labels.app} {.metadata.deletionTimestamp} {.status.phase}{"\n"}{end}`)) {
			part := strings.Split(strings.TrimSpace(pod), " ")
			switch name, app, ending, phase := part[0], part[1], part[2], part[3]; {
			case ending != "":
				c.Kubectl(t, "delete", "pod", name, "-n", "labnet", "--grace-period=0", "--force", "--ignore-not-found")
			case phase != "Pending":
			case app == "migrate":
				patchPod(t, c, name, ended)
			default:
				patchPod(t, c, name, running)
			}
		}
	})
}

func patchPod(t *testing.T, c *controlplane.ControlPlane, name, status string) {
	t.Helper()
	c.Kubectl(t, "patch", "pod", name, "-n", "labnet", "--subresource=status", "-p", status)
}

func testEdited(ctx context.Context, t *testing.T, c *controlplane.ControlPlane, apply step.Step) {
	edit := func(kind, patch string) {
		t.Helper()
		c.Kubectl(t, "patch", "-n", "labnet", kind, "--type=merge", "--field-manager=kubectl-edit", "-p", patch)
	}
	// What is added, or is nobody's, is no difference; what is taken away is put back.
	edit("configmap/settings", `{"data":{"extra":"x","mtu":null}}`)
	differ(ctx, t, apply, "ConfigMap labnet/settings: changed: .data.mtu")
	converges(ctx, t, apply)
	if out := c.Kubectl(t, "get", "-n", "labnet", "configmap/settings", "-o", "jsonpath={.data.extra} {.data.mtu}"); out != "x 1400" {
		t.Errorf("the ConfigMap has %q", out)
	}
	c.Kubectl(t, "delete", "-n", "labnet", "service/controller")
	differ(ctx, t, apply, "Service labnet/controller: absent")
	converges(ctx, t, apply)

	// What somebody has set is not taken from him.
	edit("configmap/settings", `{"data":{"mode":"loud"}}`)
	c.Kubectl(t, "scale", "-n", "labnet", "deployment/controller", "--replicas=1") // which is said nowhere
	differ(ctx, t, apply, "ConfigMap labnet/settings: changed: .data.mode is set by kubectl-edit")
	_, err := step.Apply(ctx, []step.Step{apply}, nil)
	var conflict *kube.ConflictError
	if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "apply ConfigMap labnet/settings: .data.mode is set by kubectl-edit; ") {
		t.Errorf("apply: %v", err)
	}
	// As the error says.
	lines := docblock.Lines(t, "docs/addons.md", "When something differs", "/etc/nodeagent/flannel.yaml", addonDir+"/network.yaml")
	controlplane.Script(t, lines[0])
	if len(lines) != 2 || lines[1] != "nodeagent apply" {
		t.Errorf("docs/addons.md says %q", lines)
	}
	converges(ctx, t, apply)
	if out := c.Kubectl(t, "get", "-n", "labnet", "configmap/settings", "-o", "jsonpath={.data.mode}"); out != "quiet" {
		t.Errorf("the ConfigMap says %q", out)
	}
}
