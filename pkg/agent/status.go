package agent

import (
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// Status is one page about the node: what `nodeagent status` prints and the web page shows.
// Its JSON is versioned by APIVersion.
type Status struct {
	APIVersion   string              `json:"apiVersion"` // "nodeagent/v1"
	Host         string              `json:"host"`
	Role         string              `json:"role"`
	Version      string              `json:"version"` // the agent's
	Standing     Standing            `json:"standing"`
	Now          time.Time           `json:"now"`
	Node         *NodeStatus         `json:"node,omitempty"` // none on a host that is in no cluster, and on an image
	Units        []UnitStatus        `json:"units"`
	StaticPods   []StaticPodStatus   `json:"staticPods"`
	Steps        []StepStatus        `json:"steps"`
	Jobs         []JobStatus         `json:"jobs"`
	Certificates []CertificateStatus `json:"certificates"`
	Snapshots    []SnapshotStatus    `json:"snapshots"`
	Problems     []Problem           `json:"problems"`
}

// NodeStatus is what the API says of this host's Node.
type NodeStatus struct {
	Name           string            `json:"name"`
	Known          bool              `json:"known"`           // the API has answered
	Error          string            `json:"error,omitempty"` // why it is not known
	KubeletVersion string            `json:"kubeletVersion,omitempty"`
	Ready          bool              `json:"ready"`
	Unschedulable  bool              `json:"unschedulable"`
	Conditions     []ConditionStatus `json:"conditions"` // that are not as they should be, Ready among them
}

// ConditionStatus is one condition of a Node.
type ConditionStatus struct {
	Type    string    `json:"type"`
	Status  string    `json:"status"` // True, False or Unknown
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since,omitzero"`
}

// UnitStatus is a unit in systemd's own words.
type UnitStatus struct {
	Unit          string    `json:"unit"`
	LoadState     string    `json:"loadState,omitempty"`
	ActiveState   string    `json:"activeState,omitempty"`
	SubState      string    `json:"subState,omitempty"`
	UnitFileState string    `json:"unitFileState,omitempty"`
	Since         time.Time `json:"since,omitzero"`  // it is in this state
	Error         string    `json:"error,omitempty"` // why systemd has not said
}

// Good says that the unit is up, running and enabled.
func (u UnitStatus) Good() bool {
	return u.Error == "" && (u.ActiveState == "active" || u.ActiveState == "reloading") && u.UnitFileState == "enabled"
}

// String is how the unit is, as in "active (running), enabled".
func (u UnitStatus) String() string {
	switch {
	case u.Error != "":
		return "not known: " + u.Error
	case u.LoadState != "loaded":
		return u.LoadState
	}
	return u.ActiveState + " (" + u.SubState + "), " + u.UnitFileState
}

// StaticPodStatus is a pod that the kubelet runs from a file of this host, as the container
// runtime has it: it is known while the API is down.
type StaticPodStatus struct {
	Name      string    `json:"name"`
	Manifest  string    `json:"manifest,omitempty"`  // none for a pod that runs on although its file is gone
	State     string    `json:"state"`               // running, created, exited, absent, broken (the manifest) or unknown
	Container string    `json:"container,omitempty"` // the id of the one that does not run
	Restarts  int       `json:"restarts"`
	Since     time.Time `json:"since,omitzero"` // its newest container was made
}

// Good says that the pod runs and that its manifest is there.
func (p StaticPodStatus) Good() bool { return p.State == "running" && p.Manifest != "" }

// StepStatus is the last result of a step.
type StepStatus struct {
	Name    string        `json:"name"`
	Outcome step.Outcome  `json:"outcome"`
	Changes []step.Change `json:"changes,omitempty"`
	Error   string        `json:"error,omitempty"`
	At      time.Time     `json:"at,omitzero"`
}

// JobStatus is a job's last run and when it is due.
type JobStatus struct {
	Name string `json:"name"`
	JobState
}

// CertificateStatus is a file's certificate that expires first.
type CertificateStatus struct {
	Path     string    `json:"path"`
	User     string    `json:"user,omitempty"`
	Kind     string    `json:"kind"`
	NotAfter time.Time `json:"notAfter"`
}

// SnapshotStatus is a verified snapshot in a store.
type SnapshotStatus struct {
	Name     string    `json:"name"`
	Store    string    `json:"store"`
	Taken    time.Time `json:"taken"`
	Size     int64     `json:"sizeBytes"`
	Revision int64     `json:"revision"`
}

// Problem is something that is wrong and what to type about it.
type Problem struct {
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}
