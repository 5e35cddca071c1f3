package kube

import (
	"context"
	"fmt"
	"net/http"
)

// Exists says whether the API has an object at path, as in /api/v1/namespaces/kube-system. It
// reads the object's metadata only.
func (c *Client) Exists(ctx context.Context, path string) (bool, error) {
	_, err := c.do(ctx, request{
		method: http.MethodGet, path: path,
		accept: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
	})
	if IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", path, err)
	}
	return true, nil
}
