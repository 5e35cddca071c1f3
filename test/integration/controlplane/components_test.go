//go:build integration

package controlplane_test

import (
	"testing"

	"github.com/nodeagent/nodeagent/test/controlplane"
)

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: fresh}
spec:
  tolerations: [{operator: Exists}]
  containers: [{name: c, image: example.invalid/none}]
`

// All four components work together: the controller manager makes a namespace's service
// account, without which no pod is admitted, and the scheduler finds the pod a node.
func TestControllerManagerAndScheduler(t *testing.T) {
	c := controlplane.Start(t)
	c.StartComponent(t, "kube-controller-manager")
	c.StartComponent(t, "kube-scheduler")
	ctx, client := connect(t)
	if err := client.ApplyManifests(ctx, parse(t, node)); err != nil {
		t.Fatal(err)
	}
	c.Kubectl(t, "uncordon", controlplane.NodeName)
	c.Kubectl(t, "patch", "node", controlplane.NodeName, "--subresource=status", "-p", `{"status":{"allocatable":{"pods":"9","cpu":"1","memory":"1Gi"}}}`)
	c.Kubectl(t, "create", "namespace", "fresh")
	c.Kubectl(t, "wait", "--for=create", "serviceaccount/default", "-n", "fresh", "--timeout=40s")
	if err := client.ApplyManifests(ctx, parse(t, pod)); err != nil {
		t.Fatal(err)
	}
	c.Kubectl(t, "wait", "--for=condition=PodScheduled", "pod/probe", "-n", "fresh", "--timeout=40s")
	if out := c.Kubectl(t, "get", "pod/probe", "-n", "fresh", "-o", "jsonpath={.spec.nodeName}"); out != controlplane.NodeName {
		t.Errorf("the pod is on %q", out)
	}
}
