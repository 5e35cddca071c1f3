package kube

import (
	"context"
	"fmt"
	"net/url"
	"time"
)

// Node is what the API says of a node.
type Node struct {
	Name           string
	UID            string
	Labels         map[string]string
	Taints         []Taint
	Unschedulable  bool
	Conditions     []Condition
	KubeletVersion string // as in "v1.36.3"
}

// Taint keeps pods off a node.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Effect string `json:"effect"`
}

// Condition is one of a node's conditions. Status is "True", "False" or "Unknown".
type Condition struct {
	Type    string    `json:"type"`
	Status  string    `json:"status"`
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"lastTransitionTime"`
}

// True says whether the condition holds.
func (c Condition) True() bool { return c.Status == "True" }

// Ready is the condition Ready, which is Unknown for a node that has never reported it.
func (n Node) Ready() Condition {
	for _, c := range n.Conditions {
		if c.Type == "Ready" {
			return c
		}
	}
	return Condition{Type: "Ready", Status: "Unknown", Reason: "NeverReported", Message: "kubelet has not reported yet"}
}

// Wrong are the conditions that are not as they should be: Ready that is not True, which is there
// for a node that has never reported it too, and any other that is not False, since a condition of
// a node names a trouble (MemoryPressure, and what a node problem detector adds).
func (n Node) Wrong() []Condition {
	var wrong []Condition
	if ready := n.Ready(); !ready.True() {
		wrong = append(wrong, ready)
	}
	for _, c := range n.Conditions {
		if c.Type != "Ready" && c.Status != "False" {
			wrong = append(wrong, c)
		}
	}
	return wrong
}

// Node reads one node. IsNotFound tells the error of one that the API does not know.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	if !isSegment(name) {
		return Node{}, fmt.Errorf("read node %q: not a node's name", name)
	}
	var got struct {
		Metadata struct {
			Name   string            `json:"name"`
			UID    string            `json:"uid"`
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec struct {
			Taints        []Taint `json:"taints"`
			Unschedulable bool    `json:"unschedulable"`
		} `json:"spec"`
		Status struct {
			Conditions []Condition `json:"conditions"`
			NodeInfo   struct {
				KubeletVersion string `json:"kubeletVersion"`
			} `json:"nodeInfo"`
		} `json:"status"`
	}
	if err := c.get(ctx, request{path: "/api/v1/nodes/" + url.PathEscape(name)}, &got); err != nil {
		return Node{}, fmt.Errorf("read node %s: %w", name, err)
	}
	return Node{
		Name:           got.Metadata.Name,
		UID:            got.Metadata.UID,
		Labels:         got.Metadata.Labels,
		Taints:         got.Spec.Taints,
		Unschedulable:  got.Spec.Unschedulable,
		Conditions:     got.Status.Conditions,
		KubeletVersion: got.Status.NodeInfo.KubeletVersion,
	}, nil
}
