package kube

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

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
