package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default}\ndata: {key: %q}\n", name, value)
}

func TestAddons(t *testing.T) {
	c := newCluster(t)
	put(t, c.Host, "/addons/b.yaml", configMap("b", "1")+"---\n"+configMap("c", "1"), 0o644)
	put(t, c.Host, "/addons/a.yml", configMap("a", "1"), 0o644)
	put(t, c.Host, "/addons/d.json", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d", "namespace": "default"}}`, 0o644)
	put(t, c.Host, "/addons/README", "no manifest: [", 0o644)
	put(t, c.Host, "/addons/below/e.yaml", "no manifest: [", 0o644)
	put(t, c.Host, "/addons/below.yaml/e.yaml", "no manifest: [", 0o644)
	put(t, c.Host, "/addons/.a.yaml", "no manifest: [", 0o644)
	put(t, c.Host, "/single", configMap("single", "1"), 0o644)
	s := Addons(c.Host, []string{"/single", "/addons"}, c.connect)

	changes, err := s.Check(t.Context())
	var order []string
	for _, change := range changes {
		order = append(order, change.Subject)
	}
	if want := "ConfigMap default/single,ConfigMap default/a,ConfigMap default/b,ConfigMap default/c,ConfigMap default/d"; err != nil || strings.Join(order, ",") != want {
		t.Errorf("%s, %v, want %s", order, err, want)
	}
	steptest.Converges(t, c.Host, s)
	if n := len(c.objects); n != 5 {
		t.Errorf("%d objects in the API", n)
	}
	// An edited manifest is a difference, an object that somebody has changed is another, and
	// nothing else is any: an object whose document is gone stays.
	const a, b = "/api/v1/namespaces/default/configmaps/a", "/api/v1/namespaces/default/configmaps/b"
	put(t, c.Host, "/addons/a.yml", configMap("a", "2"), 0o644)
	c.objects[b] = bytes.Replace(c.objects[b], []byte(`"key":"1"`), []byte(`"key":"edited"`), 1)
	if err := c.Remove("/addons/d.json"); err != nil {
		t.Fatal(err)
	}
	changes, err = s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []step.Change{
		{Subject: "ConfigMap default/a", Have: "applied from another document", Want: "applied"},
		{Subject: "ConfigMap default/b", Have: "changed: .data.key", Want: "applied"},
	}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
	steptest.Converges(t, c.Host, s)
	if !bytes.Contains(c.objects[a], []byte(`"key":"2"`)) || !bytes.Contains(c.objects[b], []byte(`"key":"1"`)) || len(c.objects) != 5 {
		t.Errorf("%s %s", c.objects[a], c.objects[b])
	}
}

func TestAddonsUnreadable(t *testing.T) {
	c := newCluster(t)
	put(t, c.Host, "/bad.yaml", "kind: [", 0o644)
	put(t, c.Host, "/others/a.yaml", configMap("a", "1"), 0o664)
	put(t, c.Host, "/open/a.yaml", configMap("a", "1"), 0o644)
	put(t, c.Host, "/twice/a.yaml", configMap("a", "1"), 0o644)
	put(t, c.Host, "/twice/b.yaml", strings.Replace(configMap("a", "2"), ", namespace: default", "", 1), 0o644)
	if err := os.Chmod(filepath.Join(c.Root, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"/none.yaml": {"read add-on: ", "/none.yaml", "no such file"},
		"/bad.yaml":  {"read add-on /bad.yaml: "},
		"/others":    {"read add-on: /others/a.yaml is not safe to go by: others can write it"},
		"/open":      {"read add-ons: directory /open is not safe to go by"},
		"/twice":     {"ConfigMap a is in /twice/a.yaml and in /twice/b.yaml"},
	} {
		_, err := Addons(c.Host, []string{path}, c.connect).Check(t.Context())
		wantError(t, err, want...)
	}
}

func TestAddonsReady(t *testing.T) {
	c := newCluster(t)
	const path = "/apis/apps/v1/namespaces/kube-system/daemonsets/net"
	put(t, c.Host, "/a.yaml", "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: net, namespace: kube-system}}", 0o644)
	s := AddonsReady(c.Host, []string{"/a.yaml"}, time.Minute, c.connect)
	if _, err := s.Check(t.Context()); !errors.Is(err, step.Blocked{On: AddonsStep}) {
		t.Errorf("before it is applied: %v", err)
	}
	says := func(available int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.objects[path] = json.RawMessage(fmt.Sprintf(`{"kind": "DaemonSet", "metadata": {"name": "net", "namespace": "kube-system", "generation": 1},
			"status": {"observedGeneration": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": %d}}`, available))
	}
	says(0)
	changes, err := s.Check(t.Context())
	want := []step.Change{{Subject: "DaemonSet kube-system/net", Have: "0 of 1 available", Want: "rolled out"}}
	if diff := cmp.Diff(want, changes); diff != "" || err != nil {
		t.Error(diff, err)
	}
	results, err := step.Apply(t.Context(), []step.Step{s}, func(e step.Event) {
		if e.Stage == step.Awaiting {
			says(1)
		}
	})
	if err != nil || results[0].Outcome != step.Applied || s.Name != AddonsReadyStep {
		t.Errorf("%+v, %v", results, err)
	}
	if changes, err := s.Check(t.Context()); err != nil || len(changes) > 0 {
		t.Error(changes, err)
	}
}

// What waits says what for when its time is over.
func TestAddonsReadyGivesUp(t *testing.T) {
	c := newCluster(t)
	put(t, c.Host, "/a.yaml", "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: net, namespace: kube-system}}", 0o644)
	c.objects["/apis/apps/v1/namespaces/kube-system/daemonsets/net"] = json.RawMessage(`{"kind": "DaemonSet", "metadata": {"name": "net", "generation": 1}}`)
	_, err := step.Apply(t.Context(), []step.Step{AddonsReady(c.Host, []string{"/a.yaml"}, time.Millisecond, c.connect)}, nil)
	if !errors.Is(err, step.ErrNotYet) {
		t.Error(err)
	}
	wantError(t, err, "addons/ready: ", "DaemonSet kube-system/net: not seen by its controller yet")
}
