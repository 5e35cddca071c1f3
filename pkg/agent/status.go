package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// Status is one page about the node: what `nodeagent status` prints and the web page shows.
// Its JSON is versioned by APIVersion: fields are added to a version, never renamed or removed.
// docs/status.schema.json is written from these types and the comments of their fields.
type Status struct {
	APIVersion   string              `json:"apiVersion"`     // the version of this format, "nodeagent/v1"
	Verdict      Verdict             `json:"verdict"`        // is this node all right
	Summary      string              `json:"summary"`        // the verdict in a few words, for people
	Host         string              `json:"host"`           // the node's name
	Role         string              `json:"role"`           // control-plane, worker or etcd; empty without a configuration
	Version      string              `json:"version"`        // the version of the agent
	Standing     Standing            `json:"standing"`       // what the agent may do to this host
	Now          time.Time           `json:"now"`            // when this was gathered
	Problems     []Problem           `json:"problems"`       // what is wrong and what to type, errors first
	Node         *NodeStatus         `json:"node,omitempty"` // what the API says of the node; none on a host that is in no cluster, and on an image
	Units        []UnitStatus        `json:"units"`          // the units that this host lives by; none for an image
	StaticPods   []StaticPodStatus   `json:"staticPods"`     // the static pods of this host; none for an image
	StepsTotal   int                 `json:"stepsTotal"`     // how many steps this host has
	Steps        []StepStatus        `json:"steps"`          // the steps that have run, in their order
	Jobs         []JobStatus         `json:"jobs"`           // the jobs that have run or are planned, by name
	Certificates []CertificateStatus `json:"certificates"`   // the one of each file and user that expires first, by path
	Snapshots    []SnapshotStatus    `json:"snapshots"`      // the verified snapshots of etcd, store by store, the newest first
	RemoteStores []RemoteStatus      `json:"remoteStores"`   // the stores of snapshots that are not on this host, as they were when they were last asked
	BackupNotes  []string            `json:"backupNotes"`    // what the backups do not protect from, as configured: it stands as long as that does
}

// Verdict answers the question of the page.
type Verdict string

const (
	// Well: nothing is wrong; there may be warnings.
	Well Verdict = "well"
	// Wrong: something is, and Problems says what.
	Wrong Verdict = "wrong"
	// Unfinished: the host is not made yet, and nothing stands in the way.
	Unfinished Verdict = "unfinished"
	// Idle: nobody has written a configuration.
	Idle Verdict = "idle"
)

// Severity says how bad a problem is.
type Severity string

const (
	// Error makes the verdict "wrong".
	Error Severity = "error"
	// Warning is to be looked at soon; the node is well with it.
	Warning Severity = "warning"
)

// Judge puts errors before warnings, and fills Verdict and Summary from the rest.
func (s *Status) Judge() {
	slices.SortStableFunc(s.Problems, func(a, b Problem) int { return cmp.Compare(a.Severity, b.Severity) })
	errors, warnings := s.count(Error), s.count(Warning)
	done := 0
	for _, st := range s.Steps {
		if st.Good() {
			done++
		}
	}
	progress := fmt.Sprintf("%d of %d steps are done", done, s.StepsTotal)
	switch {
	case s.Standing == Unconfigured:
		s.Verdict, s.Summary = Idle, "there is no configuration"
	case errors > 0:
		s.Verdict, s.Summary = Wrong, number(errors, "problem")
	case s.Standing == Bootstrapped || s.Standing == Adopted:
		s.Verdict, s.Summary = Well, "nothing is known to be wrong"
	case s.Standing == Bootstrapping:
		s.Verdict, s.Summary = Unfinished, "it is being made: "+progress
	default:
		s.Verdict, s.Summary = Unfinished, "it is not made yet: "+progress
	}
	if warnings > 0 {
		s.Summary += ", " + number(warnings, "warning")
	}
}

func (s *Status) count(severity Severity) (n int) {
	for _, p := range s.Problems {
		if p.Severity == severity {
			n++
		}
	}
	return n
}

func number(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Title is the first line: the node and the verdict.
func (s Status) Title() string {
	return s.Host + map[Verdict]string{Well: " is well", Wrong: " is not well", Unfinished: " is not ready", Idle: " is idle"}[s.Verdict]
}

// NextSnapshot is when the next is due; zero when that is not known.
func (s Status) NextSnapshot() time.Time {
	for _, j := range s.Jobs {
		if j.Name == SnapshotJob {
			return j.Next
		}
	}
	return time.Time{}
}

// SnapshotJob is the name of the job that takes snapshots of etcd.
const SnapshotJob = "snapshot"

// NodeStatus is what the API says of this host's Node.
type NodeStatus struct {
	Name           string            `json:"name"`                     // of the node in the API
	Known          bool              `json:"known"`                    // the API has answered
	Error          string            `json:"error,omitempty"`          // why it is not known
	KubeletVersion string            `json:"kubeletVersion,omitempty"` // as in v1.36.3
	Ready          bool              `json:"ready"`                    // its condition of that name is True
	Unschedulable  bool              `json:"unschedulable"`            // it takes no new pods
	Conditions     []ConditionStatus `json:"conditions"`               // those that are not as they should be, Ready among them
}

// ConditionStatus is one condition of a Node.
type ConditionStatus struct {
	Type    string    `json:"type"`           // as in Ready, DiskPressure
	Status  string    `json:"status"`         // True, False or Unknown
	Reason  string    `json:"reason"`         // why, in a word
	Message string    `json:"message"`        // why, in a sentence
	Since   time.Time `json:"since,omitzero"` // since when it has this status
}

// UnitStatus is a unit in systemd's own words.
type UnitStatus struct {
	Unit          string    `json:"unit"`                    // as in kubelet.service
	LoadState     string    `json:"loadState,omitempty"`     // loaded, not-found, masked and so on
	ActiveState   string    `json:"activeState,omitempty"`   // active, failed and so on
	SubState      string    `json:"subState,omitempty"`      // as in running
	UnitFileState string    `json:"unitFileState,omitempty"` // enabled, disabled and so on
	Since         time.Time `json:"since,omitzero"`          // since when it is in this state
	Error         string    `json:"error,omitempty"`         // why systemd has not said
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
	Name      string    `json:"name"`                // its name, without the node's
	Manifest  string    `json:"manifest,omitempty"`  // the file; none for a pod that runs on although its file is gone
	State     string    `json:"state"`               // running, created, exited, absent, broken (the manifest) or unknown
	Container string    `json:"container,omitempty"` // the id of the container that does not run
	Restarts  int       `json:"restarts"`            // how often its container was restarted
	Since     time.Time `json:"since,omitzero"`      // when its newest container was made
}

// Good says that the pod runs and that its manifest is there.
func (p StaticPodStatus) Good() bool { return p.State == "running" && p.Manifest != "" }

// StepStatus is the last result of a step.
type StepStatus struct {
	Name    string        `json:"name"`              // as --only takes it
	Outcome step.Outcome  `json:"outcome"`           // clean, applied, differs, waiting, stopped or failed
	Changes []step.Change `json:"changes,omitempty"` // how the host differed
	Error   string        `json:"error,omitempty"`   // why it failed, stopped or waits
	At      time.Time     `json:"at,omitzero"`       // when that was
}

// Good says that the host was found or made as the step wants it.
func (s StepStatus) Good() bool { return s.Outcome == step.Clean || s.Outcome == step.Applied }

// JobStatus is a job's last run and when it is due.
type JobStatus struct {
	Name string `json:"name"` // snapshot, drill, certificates, drift, node, or "upload" and a store
	JobState
}

// CertificateStatus is a file's certificate that expires first.
type CertificateStatus struct {
	Path      string    `json:"path"`           // the file
	User      string    `json:"user,omitempty"` // the user of the kubeconfig whose certificate it is
	Kind      string    `json:"kind"`           // ca, pki, kubeconfig, kubelet-client or kubelet-server
	NotBefore time.Time `json:"notBefore"`      // it is valid from then on
	NotAfter  time.Time `json:"notAfter"`       // it is valid until then
}

// How long before its end a certificate is a warning, and an error: as the alerts have it.
const (
	CertificateWarning = 28 * 24 * time.Hour
	CertificateError   = 14 * 24 * time.Hour
)

// State is "early", "expired", "error", "warning" or "good", by whether and how long it is valid.
func (c CertificateStatus) State(now time.Time) string {
	switch left := c.NotAfter.Sub(now); {
	case now.Before(c.NotBefore):
		return "early"
	case left <= 0:
		return "expired"
	case left < CertificateError:
		return string(Error)
	case left < CertificateWarning:
		return string(Warning)
	}
	return "good"
}

// SnapshotStatus is a verified snapshot in a store.
type SnapshotStatus struct {
	Name     string    `json:"name"`      // the name of the file
	Store    string    `json:"store"`     // the store it lies in
	Taken    time.Time `json:"taken"`     // when it was taken and verified: one that could not be verified is not kept
	Size     int64     `json:"sizeBytes"` // how large the database in it is
	SHA256   string    `json:"sha256"`    // of the file as it is stored, in hexadecimal
	Revision int64     `json:"revision"`  // the revision of etcd in it

	Encrypted bool `json:"encrypted"` // only who has an identity reads it
	// Proven is how far its last proof goes: "restored", or "object" of one that is encrypted and was not opened; empty before.
	Proven         string    `json:"proven,omitempty"`
	ProvenAt       time.Time `json:"provenAt,omitzero"`        // when the drill ended that proved it
	ProvenBy       string    `json:"provenBy,omitempty"`       // the host that ran the drill
	RestoreSeconds float64   `json:"restoreSeconds,omitempty"` // how long the drill took to restore and open it
}

// RemoteStatus is a store that is not on this host. It is not asked for this: what is told of it was
// found at the last upload, or look.
type RemoteStatus struct {
	Store  string          `json:"store"`            // which store
	Asked  time.Time       `json:"asked,omitzero"`   // when it last answered: what it holds is as of then
	Stored int             `json:"stored"`           // how many snapshots of this cluster it holds, whichever host took them
	Newest *SnapshotStatus `json:"newest,omitempty"` // the newest of them; none where it holds none, or has never answered

	Proven *SnapshotStatus `json:"proven,omitempty"` // the newest of them that a drill has proven

	Waiting      int       `json:"waiting"`               // snapshots on this host that wait to be uploaded to it
	WaitingBytes int64     `json:"waitingBytes"`          // how much they take of this host's disk
	WaitingSince time.Time `json:"waitingSince,omitzero"` // when the oldest of them was taken
	Attempt      time.Time `json:"attempt,omitzero"`      // when an upload to it was last tried, or it was last asked
	Reason       string    `json:"reason,omitempty"`      // why that failed, in a word: refused, timeout, denied and so on; empty when it did not
	Error        string    `json:"error,omitempty"`       // why that failed
}

// Problem is something that is wrong and what to type about it.
type Problem struct {
	Severity Severity `json:"severity"` // error or warning
	What     string   `json:"what"`     // what is wrong, in a sentence
	Remedy   string   `json:"remedy"`   // the command to type or the file to look at
}
