package kube_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/kube"
)

// rollout asks about one object of a kind whose spec and status are as given.
func rollout(t *testing.T, a *api, c *kube.Client, kind, rest string) string {
	t.Helper()
	groups := map[string]string{"Job": "batch/v1", "CustomResourceDefinition": "apiextensions.k8s.io/v1"}
	version, path := "apps/v1", "/apis/apps/v1/namespaces/net/"+strings.ToLower(kind)+"s/one"
	if v, ok := groups[kind]; ok {
		version, path = v, "/apis/"+v+"/namespaces/net/"+strings.ToLower(kind)+"s/one"
	}
	if kind == "CustomResourceDefinition" {
		path = "/apis/" + version + "/customresourcedefinitions/one"
	}
	object := map[string]any{}
	text := `{"kind": "` + kind + `", "metadata": {"name": "one", "namespace": "net", "generation": 2}, ` + rest + `}`
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	a.objects[path] = object
	left, err := c.Rollouts(t.Context(), parse(t, "{apiVersion: v1, kind: Namespace, metadata: {name: net}}\n---\n{apiVersion: "+version+", kind: "+kind+", metadata: {name: one, namespace: net}}"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) == 0 {
		return ""
	}
	return left[0].Have
}

func TestRollouts(t *testing.T) {
	a := newAPI()
	c := connect(t, serve(t, a), admin)
	for _, tt := range []struct{ kind, rest, want string }{
		{"Deployment", `"status": {"observedGeneration": 1, "updatedReplicas": 1, "replicas": 1, "availableReplicas": 1}`, "not seen by its controller yet"},
		{"Deployment", `"status": {"observedGeneration": 2}`, "0 of 1 updated"},
		{"Deployment", `"spec": {"replicas": 3}, "status": {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3, "availableReplicas": 3}`, "2 of 3 updated"},
		{"Deployment", `"status": {"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota\nis used up"}]}`, "0 of 1 updated: quota is used up"},
		{"Deployment", `"status": {"observedGeneration": 2, "updatedReplicas": 1, "replicas": 2, "availableReplicas": 2}`, "1 old ones end"},
		{"Deployment", `"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 1}`, "1 of 2 available"},
		{"Deployment", `"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}`, ""},
		{"Deployment", `"spec": {"replicas": 0}, "status": {"observedGeneration": 2}`, ""},
		{"DaemonSet", `"status": {"observedGeneration": 1}`, "not seen by its controller yet"},
		{"DaemonSet", `"status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 2}`, "1 of 2 updated"},
		{"DaemonSet", `"spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 2}`, ""},
		{"DaemonSet", `"status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}`, "1 of 2 available"},
		{"DaemonSet", `"status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}`, ""},
		{"StatefulSet", `"status": {"observedGeneration": 1}`, "not seen by its controller yet"},
		{"StatefulSet", `"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "readyReplicas": 1}`, "1 of 2 ready"},
		{"StatefulSet", `"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}`, "1 of 2 updated"},
		{"StatefulSet", `"spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"observedGeneration": 2, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "b"}`, ""},
		{"StatefulSet", `"spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 1}}}, "status": {"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}`, "1 of 2 updated"},
		{"StatefulSet", `"spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 1}}}, "status": {"observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 2, "currentRevision": "a", "updateRevision": "b"}`, ""},
		{"StatefulSet", `"status": {"observedGeneration": 2, "readyReplicas": 1, "currentRevision": "b", "updateRevision": "b"}`, ""},
		{"Job", `"status": {}`, "not complete, 0 pods at work, 0 failed"},
		{"Job", `"status": {"active": 1, "failed": 2}`, "not complete, 1 pods at work, 2 failed"},
		{"Job", `"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]}`, "failed: BackoffLimitExceeded: too often; delete it, and it is made again"},
		{"Job", `"status": {"conditions": [{"type": "Complete", "status": "True"}]}`, ""},
		{"Job", `"spec": {"suspend": true}`, ""},
		{"CustomResourceDefinition", `"status": {}`, "not established"},
		{"CustomResourceDefinition", `"status": {"conditions": [{"type": "NamesAccepted", "status": "False", "reason": "Taken", "message": "x"}, {"type": "Established", "status": "False"}]}`, "not established: Taken: x"},
		{"CustomResourceDefinition", `"status": {"conditions": [{"type": "Established", "status": "True"}]}`, ""},
	} {
		if got := rollout(t, a, c, tt.kind, tt.rest); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.kind, tt.rest, got, tt.want)
		}
	}
}

// Why a pod does not come up stands beside how many are missing.
func TestRolloutReasons(t *testing.T) {
	a := newAPI()
	c := connect(t, serve(t, a), admin)
	const running = `{"metadata": {"name": "old"}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "Bad"}}}]}}`
	const ending = `{"metadata": {"name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "Bad"}}}]}}`
	const created = `{"metadata": {"name": "new"}, "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}}`
	const events = `{"reason": "Old", "message": "x", "metadata": {"resourceVersion": "9"}}, {"reason": "FailedCreatePodSandBox", "message": "no network", "metadata": {"resourceVersion": "10"}}`
	for name, tt := range map[string]struct{ pods, events, want string }{
		"image":     {running + "," + ending + `, {"metadata": {"name": "new"}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}}`, "", "pod new: container c: ErrImagePull: not found"},
		"crashes":   {`{"metadata": {"name": "new"}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, "lastState": {"terminated": {"exitCode": 3}}}]}}`, "", "pod new: container c: CrashLoopBackOff: back-off (last exit code 3)"},
		"init":      {`{"metadata": {"name": "new"}, "status": {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1}}}], "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}]}}`, "", "pod new: container i: exited with 1"},
		"no node":   {`{"metadata": {"name": "new"}, "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}}`, "", "pod new: Unschedulable: 0/1 nodes"},
		"evicted":   {`{"metadata": {"name": "new"}, "status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}}`, "", "pod new: Evicted: disk"},
		"by event":  {created, events, "pod new: FailedCreatePodSandBox: no network"},
		"no reason": {created, "", "pod new: pending"},
		"no pods":   {running, events, "FailedCreatePodSandBox: no network"},
		"nothing":   {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a.lists["/api/v1/namespaces/net/pods?labelSelector=app%3Dx%2Ctier+in+%28a%2Cb%29&limit=50"] = tt.pods
			about, who := "Pod", "new"
			if !strings.Contains(tt.pods, `"new"`) {
				about, who = "DaemonSet", "one"
			}
			a.lists["/api/v1/namespaces/net/events?fieldSelector=type%3DWarning%2CinvolvedObject.kind%3D"+about+"%2CinvolvedObject.name%3D"+who] = tt.events
			got := rollout(t, a, c, "DaemonSet", `"spec": {"selector": {"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]}},
				"status": {"observedGeneration": 2, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1}`)
			want := "0 of 1 available"
			if tt.want != "" {
				want += ": " + tt.want
			}
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// An object that is not there has not rolled out, and the error tells it.
func TestRolloutsAbsent(t *testing.T) {
	c := connect(t, serve(t, newAPI()), admin)
	_, err := c.Rollouts(t.Context(), parse(t, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: one, namespace: net}}"))
	if !kube.IsNotFound(err) || !strings.Contains(text(err), "look at Deployment net/one") {
		t.Error(err)
	}
}
