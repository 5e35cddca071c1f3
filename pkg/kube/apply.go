package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// fieldManager owns what is applied, in the API's managed fields.
	fieldManager = "nodeagent"
	// applyTimeout bounds an apply whose ctx has no earlier end.
	applyTimeout = 5 * time.Minute
	retryEvery   = 500 * time.Millisecond
)

// ApplyManifests makes the objects so by server-side apply as the field manager "nodeagent".
// Namespaces and CustomResourceDefinitions go first, the rest in the given order. A kind that
// the API does not serve yet (its CRD was made a moment ago), a namespace that is not there
// yet, a webhook or an API that does not answer are waited for, within ctx and at most five
// minutes; meanwhile the objects behind are applied, since one of them may be what is waited
// for. The error then is the last one met. An object that the API refuses ends it at once; so
// does a field that another manager has set to something else, with a *ConflictError. Applying
// the same objects again changes nothing.
func (c *Client) ApplyManifests(ctx context.Context, objects []Object) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	kinds := resources{client: c}
	var last error // the first object's that has to be tried again
	for left := inOrder(objects); ; {
		waiting, err := c.applyRound(ctx, &kinds, left)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && last != nil:
			return fmt.Errorf("%w (gave up: %w)", last, context.Cause(ctx))
		case waiting == nil:
			return err
		}
		left, last = waiting, err
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up: %w)", last, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// applyRound applies what can be and returns what has to be tried again, with the first
// reason; or, of an object that the API refuses, its error alone.
func (c *Client) applyRound(ctx context.Context, kinds *resources, objects []Object) (waiting []Object, first error) {
	for i, o := range objects {
		err := c.apply(ctx, kinds, o)
		if err == nil {
			continue
		}
		err = fmt.Errorf("apply %s: %w", o, err)
		if !passing(err) {
			return nil, err
		}
		waiting = append(waiting, o)
		if first == nil {
			first = err
		}
		if !answered(err) { // nor would it the others
			return append(waiting, objects[i+1:]...), first
		}
	}
	return waiting, first
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

func (c *Client) apply(ctx context.Context, kinds *resources, o Object) error {
	path, err := kinds.path(ctx, o)
	if err != nil {
		return err
	}
	_, err = c.patch(ctx, path, o, false)
	return err
}

// patch sends the object's document to its path and returns what the API made of it, or, dry,
// would make of it.
func (c *Client) patch(ctx context.Context, path string, o Object, dry bool) ([]byte, error) {
	query := url.Values{"fieldManager": {fieldManager}, "fieldValidation": {"Strict"}}
	if dry {
		query.Set("dryRun", "All")
	}
	body, err := c.do(ctx, request{
		method: http.MethodPatch, path: path, query: query,
		contentType: "application/apply-patch+yaml", // JSON is YAML
		body:        o.JSON,
	})
	var status *StatusError
	if errors.As(err, &status) {
		if c := conflict(status.Code, body); c != nil {
			return nil, c
		}
	}
	return body, err
}

// answered says whether the error is the API's, which so is there.
func answered(err error) bool {
	var status *StatusError
	return errors.As(err, &status) || errors.Is(err, errNotServed)
}

// errNotServed is a kind that the API does not serve, or not yet.
var errNotServed = errors.New("the API does not serve this kind")

// noAccount is in the message that refuses a Pod whose service account is not there yet: a new
// namespace's default one is made by the controller manager.
const noAccount = "error looking up service account"

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
		if status.Code == http.StatusForbidden {
			return strings.Contains(status.Message, noAccount)
		}
		return status.Code == http.StatusNotFound || status.Code == http.StatusTooManyRequests || status.Code >= 500
	}
	var untrusted *tls.CertificateVerificationError
	var transport *url.Error
	switch {
	case errors.As(err, &untrusted):
		return false
	case errors.As(err, &transport):
		return true // refused, reset, sent away: the server starts, or ends
	}
	return errors.Is(err, errNotServed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}
