package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// fieldManager owns what is applied, in the API's managed fields.
	fieldManager = "nodeagent"
	// applyTimeout bounds an apply whose ctx has no earlier end.
	applyTimeout = 5 * time.Minute
	retryEvery   = 500 * time.Millisecond
)

// ApplyManifests makes the objects so by server-side apply as the field manager "nodeagent",
// taking fields over from other managers. Namespaces and CustomResourceDefinitions go first,
// the rest in the given order. A kind that the API does not serve yet (its CRD was made a
// moment ago), a namespace that is not there yet and an API that is not available are waited
// for, within ctx and at most five minutes; the error then is the last one met. An object that
// the API refuses ends it at once. Applying the same objects again changes nothing.
func (c *Client) ApplyManifests(ctx context.Context, objects []Object) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	kinds := resources{client: c}
	for _, o := range inOrder(objects) {
		if err := c.applyPatiently(ctx, &kinds, o); err != nil {
			return fmt.Errorf("apply %s: %w", o, err)
		}
	}
	return nil
}

// inOrder is the objects with those first that others cannot be made without.
func inOrder(objects []Object) []Object {
	rank := func(o Object) int {
		switch {
		case o.Kind == "Namespace" && o.APIVersion == "v1":
			return 0
		case o.Kind == "CustomResourceDefinition" && strings.HasPrefix(o.APIVersion, "apiextensions.k8s.io/"):
			return 1
		}
		return 2
	}
	out := slices.Clone(objects)
	slices.SortStableFunc(out, func(a, b Object) int { return rank(a) - rank(b) })
	return out
}

func (c *Client) applyPatiently(ctx context.Context, kinds *resources, o Object) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	var last error
	for {
		err := c.apply(ctx, kinds, o)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && last != nil:
			return fmt.Errorf("%w (gave up: %w)", last, context.Cause(ctx))
		case !passing(err):
			return err
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up: %w)", last, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (c *Client) apply(ctx context.Context, kinds *resources, o Object) error {
	path, err := kinds.path(ctx, o)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, request{
		method:      http.MethodPatch,
		path:        path,
		query:       url.Values{"fieldManager": {fieldManager}, "force": {"true"}, "fieldValidation": {"Strict"}},
		contentType: "application/apply-patch+yaml", // JSON is YAML
		body:        o.JSON,
	})
	return err
}

// errNotServed is a kind that the API does not serve, or not yet.
var errNotServed = errors.New("the API does not serve this kind")

// badPatch begins the message of a document that does not fit its kind's schema. The API
// answers it with a bare 500, as it does when etcd has changed its leader.
const badPatch = "failed to create typed patch object"

// passing says whether an error may be gone at the next try.
func passing(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		if strings.HasPrefix(status.Message, badPatch) {
			return false
		}
		return status.Code == http.StatusNotFound || status.Code == http.StatusTooManyRequests || status.Code >= 500
	}
	for _, e := range []error{errNotServed, syscall.ECONNREFUSED, syscall.ECONNRESET, io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Difference is an object that is not as its document says.
type Difference struct {
	Object Object
	Have   string // "absent", "applied from another document" or "not applied by nodeagent"
}

// Diff tells which of the objects are absent or were last applied from another document. It
// goes by the annotation AppliedHash and changes nothing.
func (c *Client) Diff(ctx context.Context, objects []Object) ([]Difference, error) {
	kinds := resources{client: c}
	var out []Difference
	for _, o := range objects {
		have, err := c.appliedHash(ctx, &kinds, o)
		switch {
		case errors.Is(err, errNotServed) || IsNotFound(err):
			out = append(out, Difference{o, "absent"})
		case err != nil:
			return nil, fmt.Errorf("look for %s: %w", o, err)
		case have == "":
			out = append(out, Difference{o, "not applied by nodeagent"})
		case have != o.Hash:
			out = append(out, Difference{o, "applied from another document"})
		}
	}
	return out, nil
}

func (c *Client) appliedHash(ctx context.Context, kinds *resources, o Object) (string, error) {
	path, err := kinds.path(ctx, o)
	if err != nil {
		return "", err
	}
	var got struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	// The metadata alone: a ConfigMap may be large, and a Secret is nobody's business.
	err = c.get(ctx, request{path: path, accept: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}, &got)
	return got.Metadata.Annotations[AppliedHash], err
}

// resources finds an object's path by the API's discovery, one request for each apiVersion and
// one more whenever a kind is not in what was read before.
type resources struct {
	client *Client
	known  map[string]map[string]resource // by apiVersion and kind
}

type resource struct {
	Name       string `json:"name"` // plural, as in the path
	Kind       string `json:"kind"`
	Namespaced bool   `json:"namespaced"`
}

func (r *resources) path(ctx context.Context, o Object) (string, error) {
	root := "/apis/" + o.APIVersion
	if !strings.Contains(o.APIVersion, "/") {
		root = "/api/" + o.APIVersion
	}
	found, ok := r.known[o.APIVersion][o.Kind]
	if !ok {
		kinds, err := r.discover(ctx, root)
		if IsNotFound(err) {
			return "", fmt.Errorf("%w: %s of %s", errNotServed, o.Kind, o.APIVersion)
		}
		if err != nil {
			return "", err
		}
		if r.known == nil {
			r.known = map[string]map[string]resource{}
		}
		r.known[o.APIVersion] = kinds
		if found, ok = kinds[o.Kind]; !ok {
			return "", fmt.Errorf("%w: %s of %s", errNotServed, o.Kind, o.APIVersion)
		}
	}
	path := "/" + url.PathEscape(found.Name) + "/" + url.PathEscape(o.Name)
	switch {
	case !found.Namespaced:
		return root + path, nil
	case o.Namespace == "":
		return root + "/namespaces/default" + path, nil
	}
	return root + "/namespaces/" + url.PathEscape(o.Namespace) + path, nil
}

func (r *resources) discover(ctx context.Context, root string) (map[string]resource, error) {
	var list struct {
		Resources []resource `json:"resources"`
	}
	if err := r.client.get(ctx, request{path: root}, &list); err != nil {
		return nil, err
	}
	kinds := map[string]resource{}
	for _, one := range list.Resources {
		if !strings.Contains(one.Name, "/") { // "pods/status" is a part of a resource
			kinds[one.Kind] = one
		}
	}
	return kinds, nil
}
