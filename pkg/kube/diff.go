package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Difference is an object that is not as it is to be.
type Difference struct {
	Object Object
	Have   string // how it is, in words; never a value of a field
}

// Diff tells which of the objects are not what applying their documents would make of them:
// absent, made by somebody else, applied from another document, or changed by somebody since,
// with the fields that differ. The last is found by a dry run of the apply, which the API
// answers and does not keep. Nothing is changed. An object whose admission webhook refuses dry
// runs is compared by its annotation AppliedHash alone.
func (c *Client) Diff(ctx context.Context, objects []Object) ([]Difference, error) {
	kinds := resources{client: c}
	var out []Difference
	for _, o := range objects {
		have, err := c.differs(ctx, &kinds, o)
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", o, err)
		}
		if have != "" {
			out = append(out, Difference{o, have})
		}
	}
	return out, nil
}

// differs is how the object differs from its document, empty when it does not.
func (c *Client) differs(ctx context.Context, kinds *resources, o Object) (string, error) {
	path, err := kinds.path(ctx, o)
	if errors.Is(err, errNotServed) {
		return "absent", nil
	}
	if err != nil {
		return "", err
	}
	live, err := c.do(ctx, request{method: http.MethodGet, path: path})
	if IsNotFound(err) {
		return "absent", nil
	}
	if err != nil {
		return "", err
	}
	var has meta
	if err := json.Unmarshal(live, &has); err != nil {
		return "", fmt.Errorf("decode the answer: %w", err)
	}
	switch has.Metadata.Annotations[AppliedHash] {
	case o.Hash:
	case "":
		return "not applied by nodeagent", nil
	default:
		return "applied from another document", nil
	}
	would, err := c.patch(ctx, path, o, true)
	var conflicts *ConflictError
	switch {
	case errors.As(err, &conflicts):
		return "changed: " + conflicts.Fields(), nil
	case noDryRun(err):
		return "", nil
	case err != nil:
		return "", err
	}
	fields, err := differingFields(live, would)
	if err != nil || len(fields) == 0 {
		return "", err
	}
	return "changed: " + shorten(fields), nil
}

// noDryRun says whether a webhook that may have side effects kept the API from a dry run.
func noDryRun(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusBadRequest && strings.Contains(status.Message, "does not support dry run")
}

// differingFields are the paths of the fields that differ, in order. What the API and the
// controllers write into each object is left out: the status, and what counts its changes.
func differingFields(live, would []byte) ([]string, error) {
	var a, b map[string]any
	if err := errors.Join(decodeExactly(live, &a), decodeExactly(would, &b)); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	for _, object := range []map[string]any{a, b} {
		delete(object, "status")
		if metadata, ok := object["metadata"].(map[string]any); ok {
			for _, key := range []string{"managedFields", "resourceVersion", "generation"} {
				delete(metadata, key)
			}
		}
	}
	return differing(nil, "", a, b), nil
}

// decodeExactly keeps numbers as they are written: a float64 would make equal what is not.
func decodeExactly(data []byte, into *map[string]any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(into)
}

// differing appends the paths below at whose values differ.
func differing(paths []string, at string, a, b any) []string {
	if reflect.DeepEqual(a, b) {
		return paths
	}
	mapA, isMap := a.(map[string]any)
	mapB, areMaps := b.(map[string]any)
	if isMap && areMaps {
		keys := map[string]bool{}
		for key := range mapA {
			keys[key] = true
		}
		for key := range mapB {
			keys[key] = true
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			paths = differing(paths, at+"."+key, mapA[key], mapB[key])
		}
		return paths
	}
	listA, isList := a.([]any)
	listB, areLists := b.([]any)
	if isList && areLists && len(listA) == len(listB) {
		for i := range listA {
			paths = differing(paths, at+"["+strconv.Itoa(i)+"]", listA[i], listB[i])
		}
		return paths
	}
	return append(paths, at)
}
