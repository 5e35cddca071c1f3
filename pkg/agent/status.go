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
	Steps        []StepStatus        `json:"steps"`
	Jobs         []JobStatus         `json:"jobs"`
	Certificates []CertificateStatus `json:"certificates"`
	Snapshots    []SnapshotStatus    `json:"snapshots"`
	Problems     []Problem           `json:"problems"`
}

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
