package kube

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// selector is a label selector.
type selector struct {
	MatchLabels      map[string]string `json:"matchLabels"`
	MatchExpressions []struct {
		Key      string   `json:"key"`
		Operator string   `json:"operator"`
		Values   []string `json:"values"`
	} `json:"matchExpressions"`
}

// query is the selector as a request has it.
func (s selector) query() string {
	var terms []string
	for key, value := range s.MatchLabels {
		terms = append(terms, key+"="+value)
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case "In", "NotIn":
			terms = append(terms, e.Key+" "+strings.ToLower(e.Operator)+" ("+strings.Join(e.Values, ",")+")")
		case "Exists":
			terms = append(terms, e.Key)
		case "DoesNotExist":
			terms = append(terms, "!"+e.Key)
		}
	}
	slices.Sort(terms)
	return strings.Join(terms, ",")
}

// pod is what tells why one does not come up.
type pod struct {
	Metadata struct {
		Name              string     `json:"name"`
		DeletionTimestamp *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Status struct {
		Phase                 string         `json:"phase"`
		Reason                string         `json:"reason"`
		Message               string         `json:"message"`
		Conditions            []Condition    `json:"conditions"`
		InitContainerStatuses []podContainer `json:"initContainerStatuses"`
		ContainerStatuses     []podContainer `json:"containerStatuses"`
	} `json:"status"`
}

type podContainer struct {
	Name      string         `json:"name"`
	Ready     bool           `json:"ready"`
	State     containerState `json:"state"`
	LastState containerState `json:"lastState"`
}

type containerState struct {
	Waiting    *struct{ Reason, Message string }
	Terminated *struct {
		ExitCode        int
		Reason, Message string
	}
}

// reason is why the pod is not ready, as far as it says so itself.
func (p pod) reason() string {
	if p.Status.Phase == "Failed" && p.Status.Reason != "" {
		return brief(p.Status.Reason + ": " + p.Status.Message)
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if why := c.reason(); why != "" {
			return "container " + c.Name + ": " + why
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == "PodScheduled" && c.Status == "False" {
			return brief(c.Reason + ": " + c.Message)
		}
	}
	return ""
}

// reason is why a container does not run; that it is yet to be made is no reason.
func (c podContainer) reason() string {
	waiting, ended := c.State.Waiting, c.State.Terminated
	if waiting != nil && waiting.Reason != "" && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing" {
		why := brief(strings.TrimSuffix(waiting.Reason+": "+waiting.Message, ": "))
		if last := c.LastState.Terminated; last != nil {
			why += fmt.Sprintf(" (last exit code %d)", last.ExitCode)
		}
		return why
	}
	if ended != nil && ended.ExitCode != 0 {
		return brief(strings.TrimSuffix(fmt.Sprintf("exited with %d: %s", ended.ExitCode, ended.Message), ": "))
	}
	return ""
}

// ready says whether the pod is, or has done its work.
func (p pod) ready() bool {
	return p.Status.Phase == "Succeeded" || slices.ContainsFunc(p.Status.Conditions, func(c Condition) bool { return c.Type == "Ready" && c.True() })
}

// podsLimit bounds how many pods are looked through for a reason.
const podsLimit = "50"

// podsReason is why one of a workload's pods does not come up, from what the pod says or else
// the last warning about it; or, where there are none, the last warning about the workload.
func (c *Client) podsReason(ctx context.Context, w workload) (string, error) {
	namespace := "/api/v1/namespaces/" + url.PathEscape(w.Metadata.Namespace)
	var list struct{ Items []pod }
	err := c.get(ctx, request{path: namespace + "/pods", query: url.Values{"labelSelector": {w.Spec.Selector.query()}, "limit": {podsLimit}}}, &list)
	if err != nil {
		return "", err
	}
	waiting := slices.DeleteFunc(list.Items, func(p pod) bool { return p.ready() || p.Metadata.DeletionTimestamp != nil })
	for _, p := range waiting {
		if why := p.reason(); why != "" {
			return "pod " + p.Metadata.Name + ": " + why, nil
		}
	}
	if len(waiting) == 0 {
		return c.lastWarning(ctx, namespace, w.Kind, w.Metadata.Name)
	}
	why, err := c.lastWarning(ctx, namespace, "Pod", waiting[0].Metadata.Name)
	if err != nil || why == "" {
		return "pod " + waiting[0].Metadata.Name + ": " + strings.ToLower(waiting[0].Status.Phase), err
	}
	return "pod " + waiting[0].Metadata.Name + ": " + why, nil
}

// lastWarning is the newest event of this type about an object, or nothing.
func (c *Client) lastWarning(ctx context.Context, namespace, kind, name string) (string, error) {
	var list struct {
		Items []struct {
			Reason   string `json:"reason"`
			Message  string `json:"message"`
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
			} `json:"metadata"`
		}
	}
	about := "type=Warning,involvedObject.kind=" + kind + ",involvedObject.name=" + name
	err := c.get(ctx, request{path: namespace + "/events", query: url.Values{"fieldSelector": {about}}}, &list)
	if err != nil {
		return "", err
	}
	newest, last := "", uint64(0)
	for _, e := range list.Items {
		// An event that comes again is written again.
		if version, err := strconv.ParseUint(e.Metadata.ResourceVersion, 10, 64); err == nil && version >= last {
			newest, last = brief(e.Reason+": "+e.Message), version
		}
	}
	return newest, nil
}
