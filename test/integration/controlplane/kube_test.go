//go:build integration

package controlplane_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/test/controlplane"
)

// The custom resource comes before its definition, the ConfigMap before its namespace.
const addon = `
apiVersion: nodeagent.test/v1
kind: Gadget
metadata: {name: first, namespace: addon}
spec: {size: 3}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: addon}
data: {mode: quiet}
---
# only a comment
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.nodeagent.test}
spec:
  group: nodeagent.test
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: addon}
`

const node = `
apiVersion: v1
kind: Node
metadata: {name: node1, labels: {color: red}}
spec:
  unschedulable: true
  taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]
`

func connect(t *testing.T) (context.Context, *kube.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	client, err := kube.Connect(host.New("/"), controlplane.SuperAdmin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return ctx, client
}

func parse(t *testing.T, manifest string) []kube.Object {
	t.Helper()
	objects, err := kube.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestKubeClient(t *testing.T) {
	c := controlplane.Start(t)
	ctx, client := connect(t)
	if err := client.Ready(ctx); err != nil {
		t.Errorf("Ready: %v", err)
	}
	if answers, err := kube.AnswersTLS(ctx, controlplane.Address+":6443"); err != nil || !answers {
		t.Errorf("AnswersTLS of the API server: %t, %v", answers, err)
	}
	if answers, err := kube.AnswersTLS(ctx, controlplane.Address+":6444"); err != nil || answers {
		t.Errorf("AnswersTLS of a port where nobody listens: %t, %v", answers, err)
	}
	t.Run("Node", func(t *testing.T) { testNode(t, ctx, client) })
	t.Run("ApplyManifests", func(t *testing.T) { testApply(t, ctx, client, c) })

	c.Stop(t)
	if err := client.Ready(ctx); err == nil {
		t.Error("Ready is nil after the API server has stopped")
	}
}

func testNode(t *testing.T, ctx context.Context, client *kube.Client) {
	if _, err := client.Node(ctx, controlplane.NodeName); !kube.IsNotFound(err) {
		t.Errorf("a node that is not there: %v, want not found", err)
	}
	if err := client.ApplyManifests(ctx, parse(t, node)); err != nil {
		t.Fatal(err)
	}
	n, err := client.Node(ctx, controlplane.NodeName)
	if err != nil {
		t.Fatal(err)
	}
	if n.Name != controlplane.NodeName || n.UID == "" || n.Labels["color"] != "red" || !n.Unschedulable || n.Ready().True() {
		t.Errorf("node is %+v", n)
	}
}

func testApply(t *testing.T, ctx context.Context, client *kube.Client, c *controlplane.ControlPlane) {
	objects := parse(t, addon)
	before, err := client.Diff(ctx, objects)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != len(objects) {
		t.Errorf("before: %d of %d objects differ: %v", len(before), len(objects), before)
	}
	if err := client.ApplyManifests(ctx, objects); err != nil {
		t.Fatal(err)
	}
	if out := c.Kubectl(t, "get", "gadget/first", "-n", "addon", "-o", "jsonpath={.spec.size}"); out != "3" {
		t.Errorf("the custom resource's size is %q, want 3", out)
	}
	assertApplied(t, ctx, client, objects)

	versions := func() string {
		return c.Kubectl(t, "get", "-o", "jsonpath={range .items[*]}{.kind}={.metadata.resourceVersion} {end}",
			"-n", "addon", "gadget/first", "configmap/settings") +
			c.Kubectl(t, "get", "-o", "jsonpath={range .items[*]}{.kind}={.metadata.generation} {end}",
				"namespace/addon", "crd/gadgets.nodeagent.test")
	}
	first := versions()
	if strings.Count(first, "=") != 4 {
		t.Fatalf("versions are %q", first)
	}
	if err := client.ApplyManifests(ctx, objects); err != nil {
		t.Fatal(err)
	}
	if second := versions(); second != first {
		t.Errorf("applying the same again changed something: %s, then %s", first, second)
	}

	changed := parse(t, strings.Replace(addon, "quiet", "loud", 1))
	diff, err := client.Diff(ctx, changed)
	if err != nil {
		t.Fatal(err)
	}
	if len(diff) != 1 || diff[0].Object.Kind != "ConfigMap" {
		t.Errorf("after a change to the ConfigMap: %v", diff)
	}
	if err := client.ApplyManifests(ctx, changed); err != nil {
		t.Fatal(err)
	}
	if out := c.Kubectl(t, "get", "cm/settings", "-n", "addon", "-o", "jsonpath={.data.mode}"); out != "loud" {
		t.Errorf("the ConfigMap says %q, want loud", out)
	}
	assertApplied(t, ctx, client, changed)
}

func assertApplied(t *testing.T, ctx context.Context, client *kube.Client, objects []kube.Object) {
	t.Helper()
	diff, err := client.Diff(ctx, objects)
	if err != nil {
		t.Fatal(err)
	}
	if len(diff) > 0 {
		t.Errorf("differs after apply: %v", diff)
	}
}
