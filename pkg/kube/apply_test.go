package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/kube"
)

const addon = `
apiVersion: example.com/v1
kind: Widget
metadata: {name: one, namespace: addon}
spec: {size: 9007199254740993}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: b}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
---
apiVersion: v1
kind: Namespace
metadata: {name: addon}
`

func parse(t *testing.T, manifest string) []kube.Object {
	t.Helper()
	objects, err := kube.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// within is a deadline that only a test that hangs meets.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func differences(t *testing.T, c *kube.Client, objects []kube.Object) []string {
	t.Helper()
	diff, err := c.Diff(t.Context(), objects)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range diff {
		out = append(out, d.Object.String()+": "+d.Have)
	}
	return out
}

func TestApply(t *testing.T) {
	a := newAPI()
	a.serve("/apis/example.com/v1", `{"name":"widgets","kind":"Widget","namespaced":true}`)
	c := connect(t, serve(t, a), admin)
	objects := parse(t, addon)

	want := []string{"Widget addon/one: absent", "ConfigMap settings: absent", "CustomResourceDefinition widgets.example.com: absent", "Namespace addon: absent"}
	if diff := cmp.Diff(want, differences(t, c, objects)); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	for _, call := range a.said() {
		if !strings.HasPrefix(call, "GET ") && !strings.Contains(call, "dryRun=All") {
			t.Errorf("Diff sent %s", call)
		}
	}
	a.calls = nil
	if err := c.ApplyManifests(within(t), objects); err != nil {
		t.Fatal(err)
	}
	const how = "?fieldManager=nodeagent&fieldValidation=Strict application/apply-patch+yaml as kubernetes-admin"
	const as = " as kubernetes-admin"
	wantCalls := []string{
		"GET /api/v1" + as, "PATCH /api/v1/namespaces/addon" + how,
		"GET /apis/apiextensions.k8s.io/v1" + as, "PATCH /apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com" + how,
		"GET /apis/example.com/v1" + as, "PATCH /apis/example.com/v1/namespaces/addon/widgets/one" + how,
		"PATCH /api/v1/namespaces/default/configmaps/settings" + how,
	}
	if diff := cmp.Diff(wantCalls, a.said()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if left := differences(t, c, objects); left != nil {
		t.Errorf("after apply: %v", left)
	}

	changed := parse(t, strings.ReplaceAll(addon, "a: b", "a: c"))
	if diff := cmp.Diff([]string{"ConfigMap settings: applied from another document"}, differences(t, c, changed)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	same := parse(t, "# a comment and another order of keys change nothing\n"+strings.ReplaceAll(addon, "apiVersion: v1\nkind: ConfigMap", "kind: ConfigMap\napiVersion: v1"))
	if left := differences(t, c, same); left != nil {
		t.Errorf("same content: %v", left)
	}
	delete(a.objects["/api/v1/namespaces/addon"]["metadata"].(map[string]any)["annotations"].(map[string]any), kube.AppliedHash)
	if diff := cmp.Diff([]string{"Namespace addon: not applied by nodeagent"}, differences(t, c, objects)); diff != "" {
		t.Errorf("somebody else's (-want +got):\n%s", diff)
	}
}

// What somebody has changed is told by its fields, never by their values.
func TestDiffTellsFields(t *testing.T) {
	const path = "/api/v1/namespaces/default/configmaps/settings"
	const manifest = `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, labels: {a: x}}, data: {a: x, b: x, c: x}, list: [{a: x}, {b: 9007199254740993}]}`
	a := newAPI()
	c := connect(t, serve(t, a), admin)
	change := func(part string, value any) func(map[string]any) {
		return func(o map[string]any) { o[part] = value }
	}
	for name, tt := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"nothing":        {func(map[string]any) {}, ""},
		"status":         {change("status", "secret"), ""},
		"a value":        {change("data", map[string]any{"a": "x", "b": "secret", "c": "x"}), ".data.b"},
		"one removed":    {change("data", map[string]any{"a": "x", "c": "x"}), ".data.b"},
		"all removed":    {func(o map[string]any) { delete(o, "data") }, ".data"},
		"in a list":      {change("list", []any{map[string]any{"a": "x"}, map[string]any{"b": json.Number("9007199254740992")}}), ".list[1].b"},
		"a longer list":  {change("list", []any{}), ".list"},
		"another type":   {change("data", "secret"), ".data"},
		"more than many": {func(o map[string]any) { o["data"], o["list"] = map[string]any{}, nil }, ".data.a, .data.b, .data.c and 1 more"},
		"bookkeeping": {func(o map[string]any) {
			m := o["metadata"].(map[string]any)
			m["generation"], m["resourceVersion"], m["managedFields"] = 7, "8", []any{}
		}, ""},
		"a label": {func(o map[string]any) { o["metadata"].(map[string]any)["labels"] = map[string]any{"a": "y"} }, ".metadata.labels.a"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := parse(t, manifest)
			if err := c.ApplyManifests(within(t), objects); err != nil {
				t.Fatal(err)
			}
			tt.change(a.objects[path])
			var want []string
			if tt.want != "" {
				want = []string{"ConfigMap settings: changed: " + tt.want}
			}
			if diff := cmp.Diff(want, differences(t, c, objects)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

const conflictAnswer = `{"kind": "Status", "code": 409, "reason": "Conflict", "message": "Apply failed with 2 conflicts", "details": {"causes": [
	{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using v1", "field": ".data.a"},
	{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" with subresource \"scale\" using v1", "field": ".spec.replicas"}]}}`

// A field that somebody else has set is not taken from him.
func TestConflict(t *testing.T) {
	const path = "/api/v1/namespaces/addon"
	a := newAPI()
	c := connect(t, serve(t, a), admin)
	objects := parse(t, "{apiVersion: v1, kind: Namespace, metadata: {name: addon}}")
	if err := c.ApplyManifests(within(t), objects); err != nil {
		t.Fatal(err)
	}
	a.answers[path] = conflictAnswer
	want := []string{"Namespace addon: changed: .data.a is set by kubectl-edit, .spec.replicas is set by kubectl"}
	if diff := cmp.Diff(want, differences(t, c, objects)); diff != "" {
		t.Error(diff)
	}
	err := c.ApplyManifests(within(t), objects)
	var conflict *kube.ConflictError
	if !errors.As(err, &conflict) || len(conflict.Conflicts) != 2 || conflict.Conflicts[0] != (kube.Conflict{Manager: "kubectl-edit", Field: ".data.a"}) {
		t.Errorf("%v", err)
	}
	if want := "apply Namespace addon: .data.a is set by kubectl-edit, .spec.replicas is set by kubectl; leave it out"; !strings.HasPrefix(text(err), want) {
		t.Errorf("%v", err)
	}
}

// A webhook that may have side effects refuses dry runs: then the annotation has to do.
func TestDiffWithoutDryRun(t *testing.T) {
	a := newAPI()
	c := connect(t, serve(t, a), admin)
	objects := parse(t, "{apiVersion: v1, kind: Namespace, metadata: {name: addon}}")
	if err := c.ApplyManifests(within(t), objects); err != nil {
		t.Fatal(err)
	}
	for code, message := range map[int]string{400: `admission webhook "x" does not support dry run`, 422: "is invalid"} {
		a.answers["/api/v1/namespaces/addon"] = fmt.Sprintf(`{"kind": "Status", "code": %d, "message": %q}`, code, message)
		a.answerCode = code
		diff, err := c.Diff(t.Context(), objects)
		if wants := code != 400; (err != nil) != wants || len(diff) > 0 {
			t.Errorf("%s: %v, %v", message, diff, err)
		}
	}
}

// An object that has to wait does not keep those behind it, which may be what it waits for.
func TestApplyGoesOnBehindWhatWaits(t *testing.T) {
	a := newAPI()
	c := connect(t, serve(t, a), admin)
	done := make(chan error, 1)
	go func() {
		done <- c.ApplyManifests(within(t), parse(t, "{apiVersion: example.com/v1, kind: Widget, metadata: {name: one}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}"))
	}()
	waitFor(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.objects["/api/v1/namespaces/default/configmaps/settings"] != nil
	})
	a.mu.Lock()
	a.serve("/apis/example.com/v1", `{"name":"widgets","kind":"Widget","namespaced":true}`)
	a.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What may be there a moment later is waited for.
func TestApplyWaits(t *testing.T) {
	const widget = "/apis/example.com/v1/namespaces/addon/widgets/one"
	for name, prepare := range map[string]func(*api){
		"group not served yet": func(a *api) { a.refuse["/apis/example.com/v1"] = []int{404, 404} },
		"namespace not there":  func(a *api) { a.refuse[widget] = []int{404} },
		"busy":                 func(a *api) { a.refuse[widget] = []int{429, 503} },
		"webhook not up":       func(a *api) { a.refuse[widget] = []int{500} },
		"discovery not up":     func(a *api) { a.refuse["/apis/example.com/v1"] = []int{503} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAPI()
			a.serve("/apis/example.com/v1", `{"name":"widgets","kind":"Widget","namespaced":true}`)
			prepare(a)
			c := connect(t, serve(t, a), admin)
			if err := c.ApplyManifests(within(t), parse(t, addon)); err != nil {
				t.Fatal(err)
			}
			if _, ok := a.objects[widget]; !ok {
				t.Error("the widget is not there")
			}
		})
	}
}

// The kind of a CRD made a moment ago appears in a group that was read before.
func TestApplyFindsNewKindInKnownGroup(t *testing.T) {
	a := newAPI()
	a.serve("/apis/example.com/v1", `{"name":"gadgets","kind":"Gadget","namespaced":false}`)
	c := connect(t, serve(t, a), admin)
	done := make(chan error, 1)
	go func() {
		done <- c.ApplyManifests(within(t), parse(t, "{apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}}\n---\n"+addon))
	}()
	waitFor(t, func() bool { return strings.Count(strings.Join(a.said(), "\n"), "GET /apis/example.com/v1 ") >= 2 })
	a.mu.Lock()
	a.serve("/apis/example.com/v1", `{"name":"widgets","kind":"Widget","namespaced":true}`)
	a.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("did not come about within ten seconds")
}

func TestApplyGivesUp(t *testing.T) {
	a := newAPI() // serves no Widget
	c := connect(t, serve(t, a), admin)
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	err := c.ApplyManifests(ctx, parse(t, addon))
	want := "apply Widget addon/one: the API does not serve this kind: Widget of example.com/v1 (gave up: context deadline exceeded)"
	if text(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// What the API refuses is not tried again, and nothing comes after it.
func TestApplyRefused(t *testing.T) {
	for _, code := range []int{400, 403, 409, 422} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			a := newAPI()
			a.refuse["/api/v1/namespaces/addon"] = []int{code}
			c := connect(t, serve(t, a), admin)
			if err := c.ApplyManifests(within(t), parse(t, addon)); text(err) != "apply Namespace addon: refused by the test" {
				t.Errorf("error %v", err)
			}
			if calls := a.said(); len(calls) != 2 {
				t.Errorf("calls: %v", calls)
			}
		})
	}
}

// A document that does not fit the schema is answered with a 500, and is refused all the same.
func TestApplyBadPatch(t *testing.T) {
	const message = "failed to create typed patch object (addon; v1, Kind=Namespace): .dta: field not declared in schema"
	var patches atomic.Int32
	h := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			reply(w, map[string]any{"resources": []map[string]any{{"name": "namespaces", "kind": "Namespace"}}})
			return
		}
		patches.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
		reply(w, map[string]any{"kind": "Status", "message": message, "code": 500})
	}))
	err := connect(t, h, admin).ApplyManifests(within(t), parse(t, addon))
	if text(err) != "apply Namespace addon: "+message || patches.Load() != 1 {
		t.Errorf("after %d tries: %v", patches.Load(), err)
	}
}

// A Diff that was refused an answer is an error, never "absent".
func TestDiffCannotTell(t *testing.T) {
	for _, path := range []string{"/api/v1/namespaces/addon", "/api/v1"} {
		a := newAPI()
		a.refuse[path] = []int{403}
		c := connect(t, serve(t, a), admin)
		diff, err := c.Diff(t.Context(), parse(t, "{apiVersion: v1, kind: Namespace, metadata: {name: addon}}"))
		if text(err) != "look for Namespace addon: refused by the test" {
			t.Errorf("%s: %v, %v", path, diff, err)
		}
	}
}

// flaky does something else than the API at its first apply.
type flaky struct {
	*api
	done  atomic.Bool
	first func(http.ResponseWriter)
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPatch && !f.done.Swap(true) {
		f.first(w)
		return
	}
	f.api.ServeHTTP(w, r)
}

// A connection that breaks and a service account that the controller manager is yet to make are
// waited for, and no object is forgotten.
func TestApplyAfterAFlaw(t *testing.T) {
	for name, first := range map[string]func(http.ResponseWriter){
		"connection": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"no account": func(w http.ResponseWriter) {
			status(w, http.StatusForbidden, `pods "early" is forbidden: error looking up service account labnet/default: serviceaccount "default" not found`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &flaky{api: newAPI(), first: first}
			objects := parse(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: one}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: two}}")
			h := serve(t, f)
			if err := connect(t, h, admin).ApplyManifests(within(t), objects); err != nil {
				t.Fatal(err)
			}
			if len(f.objects) != 2 {
				t.Errorf("objects: %v", f.objects)
			}
		})
	}
}
