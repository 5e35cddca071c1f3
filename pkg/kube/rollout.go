package kube

import (
	"context"
	"fmt"
	"strings"
)

// Rollouts tells which of the objects have not come to what they are for: Deployments,
// DaemonSets and StatefulSets whose present generation is not rolled out and available (as
// `kubectl rollout status` judges it), Jobs that are not complete,
// CustomResourceDefinitions that are not established. Objects of other kinds are passed over.
// Have says how far it is and, where one can be told, why a pod does not come up. An object
// that is not there is an error that IsNotFound tells.
func (c *Client) Rollouts(ctx context.Context, objects []Object) ([]Difference, error) {
	kinds := resources{client: c}
	var out []Difference
	for _, o := range objects {
		judge := judges[o.groupKind()]
		if judge == nil {
			continue
		}
		path, err := kinds.path(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", o, err)
		}
		var w workload
		if err := c.get(ctx, request{path: path}, &w); err != nil {
			return nil, fmt.Errorf("look at %s: %w", o, err)
		}
		have := judge(w)
		if have == "" {
			continue
		}
		if w.hasPods() {
			// A reason is a help, and not what was asked for: without one it is said so far.
			if reason, err := c.podsReason(ctx, w); err == nil && reason != "" {
				have += ": " + reason
			}
		}
		out = append(out, Difference{o, have})
	}
	return out, nil
}

// groupKind is "Deployment.apps": what an object is, whatever its version.
func (o Object) groupKind() string {
	group, _, grouped := strings.Cut(o.APIVersion, "/")
	if !grouped {
		return o.Kind
	}
	return o.Kind + "." + group
}

// judges say what a kind's object still lacks, empty for nothing.
var judges = map[string]func(workload) string{
	"Deployment.apps":  deployment,
	"DaemonSet.apps":   daemonSet,
	"StatefulSet.apps": statefulSet,
	"Job.batch":        job,
	"CustomResourceDefinition.apiextensions.k8s.io": definition,
}

// workload has the fields of all the kinds that are judged.
type workload struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name       string `json:"name"`
		Namespace  string `json:"namespace"`
		Generation int64  `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Replicas       *int     `json:"replicas"`
		Suspend        bool     `json:"suspend"`
		Selector       selector `json:"selector"`
		UpdateStrategy struct {
			Type          string `json:"type"`
			RollingUpdate struct {
				Partition int `json:"partition"`
			} `json:"rollingUpdate"`
		} `json:"updateStrategy"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration     int64       `json:"observedGeneration"`
		Replicas               int         `json:"replicas"`
		ReadyReplicas          int         `json:"readyReplicas"`
		UpdatedReplicas        int         `json:"updatedReplicas"`
		AvailableReplicas      int         `json:"availableReplicas"`
		DesiredNumberScheduled int         `json:"desiredNumberScheduled"`
		UpdatedNumberScheduled int         `json:"updatedNumberScheduled"`
		NumberAvailable        int         `json:"numberAvailable"`
		CurrentRevision        string      `json:"currentRevision"`
		UpdateRevision         string      `json:"updateRevision"`
		Active                 int         `json:"active"`
		Failed                 int         `json:"failed"`
		Conditions             []Condition `json:"conditions"`
	} `json:"status"`
}

func (w workload) hasPods() bool { return w.Kind != "CustomResourceDefinition" }

func (w workload) condition(kind string) Condition {
	for _, c := range w.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return Condition{Type: kind, Status: "Unknown"}
}

// replicas is how many are wanted; the API's default is one.
func (w workload) replicas() int {
	if w.Spec.Replicas == nil {
		return 1
	}
	return *w.Spec.Replicas
}

const notSeen = "not seen by its controller yet"

func (w workload) unseen() bool { return w.Status.ObservedGeneration < w.Metadata.Generation }

func deployment(w workload) string {
	want, s := w.replicas(), w.Status
	switch failure := w.condition("ReplicaFailure"); {
	case w.unseen():
		return notSeen
	case s.UpdatedReplicas < want && failure.True():
		return fmt.Sprintf("%d of %d updated: %s", s.UpdatedReplicas, want, brief(failure.Message))
	case s.UpdatedReplicas < want:
		return fmt.Sprintf("%d of %d updated", s.UpdatedReplicas, want)
	case s.Replicas > s.UpdatedReplicas:
		return fmt.Sprintf("%d old ones end", s.Replicas-s.UpdatedReplicas)
	case s.AvailableReplicas < s.UpdatedReplicas:
		return available(s.AvailableReplicas, want)
	}
	return ""
}

func daemonSet(w workload) string {
	want, s := w.Status.DesiredNumberScheduled, w.Status
	switch {
	case w.unseen():
		return notSeen
	case s.UpdatedNumberScheduled < want && w.Spec.UpdateStrategy.Type != "OnDelete":
		return fmt.Sprintf("%d of %d updated", s.UpdatedNumberScheduled, want)
	case s.NumberAvailable < want:
		return available(s.NumberAvailable, want)
	}
	return ""
}

func statefulSet(w workload) string {
	want, s := w.replicas(), w.Status
	onDelete, partition := w.Spec.UpdateStrategy.Type == "OnDelete", w.Spec.UpdateStrategy.RollingUpdate.Partition
	switch {
	case w.unseen():
		return notSeen
	case s.ReadyReplicas < want:
		return fmt.Sprintf("%d of %d ready", s.ReadyReplicas, want)
	case onDelete:
		return ""
	case partition > 0 && s.UpdatedReplicas < want-partition:
		return fmt.Sprintf("%d of %d updated", s.UpdatedReplicas, want-partition)
	case partition == 0 && s.UpdateRevision != s.CurrentRevision:
		return fmt.Sprintf("%d of %d updated", s.UpdatedReplicas, want)
	}
	return ""
}

func job(w workload) string {
	failed := w.condition("Failed")
	switch {
	case w.condition("Complete").True(), w.Spec.Suspend:
		return ""
	case failed.True():
		return "failed: " + brief(failed.Reason+": "+failed.Message) + "; delete it, and it is made again"
	}
	return fmt.Sprintf("not complete, %d pods at work, %d failed", w.Status.Active, w.Status.Failed)
}

func definition(w workload) string {
	if names := w.condition("NamesAccepted"); names.Status == "False" {
		return "not established: " + brief(names.Reason+": "+names.Message)
	}
	if established := w.condition("Established"); !established.True() {
		return "not established"
	}
	return ""
}

func available(have, want int) string { return fmt.Sprintf("%d of %d available", have, want) }

// brief is a message of the API on one line that fits a terminal or two.
func brief(message string) string {
	const most = 240
	line := strings.Join(strings.Fields(message), " ")
	if runes := []rune(line); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return line
}
