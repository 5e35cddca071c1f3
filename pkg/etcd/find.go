// Package etcd finds the etcd member of this host and connects to it.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Manifest is where kubeadm writes the static pod of a stacked etcd.
const Manifest = "/etc/kubernetes/manifests/etcd.yaml"

// Local is the etcd member of this host. Its files are named, not read: whoever dials reads them
// anew, and so uses renewed ones. It is good for as long as its process lives: find it again for
// each use.
type Local struct {
	// Name is the member's; DataDir is where its process sees its data. Both are empty where
	// only an endpoint is known.
	Name, DataDir string
	// PID is the process, 0 where none was found.
	PID int
	// Runs is what runs it, for people: "unit etc.service", "pod …", "container …"; "" where no
	// process was found.
	Runs string
	// Stacked says that it is the static pod of Manifest; others are made outside the cluster.
	Stacked bool
	// Endpoints are the URLs at which it may be reached from this host, the best first.
	Endpoints []string

	ca    file // what its certificate is verified against: the system's roots where it has no name
	pairs []pair
	// bare says that it asks no client for a certificate.
	bare   bool
	listen []*url.URL // where else it may be reached, if its certificate asks for it
	own    []file     // what it was started with
	here   network
}

// ErrNoMember is a host that no etcd is set up on. Unlike fs.ErrNotExist, which it comes with,
// it does not also stand for a certificate that is missing.
var ErrNoMember = errors.New("no etcd on this host")

// SeveralError is a host on which the member cannot be told from others.
type SeveralError struct {
	Members []string // each with what runs it and where it serves
}

func (e *SeveralError) Error() string {
	return "which of these is meant cannot be told: " + strings.Join(e.Members, "; ") + ": name its URL in backup.endpoints"
}

// FindLocal is Find where nothing is configured.
func FindLocal(h *host.Host) (Local, error) { return Find(context.Background(), h, Choice{}) }

// Find finds the member that runs on h: by what choice says, else the one process whose
// executable is etcd, else the static pod that kubelet is to run. A process of another user's
// login session, and one in a network of its own that publishes no address of this host, is
// only found by choice. Where there is none the error is ErrNoMember and fs.ErrNotExist, and
// where there are several it is a SeveralError.
func Find(ctx context.Context, h *host.Host, choice Choice) (Local, error) {
	l, err := find(ctx, h, choice, systemNetwork())
	if err != nil {
		return Local{}, fmt.Errorf("find etcd: %w", err)
	}
	return l, nil
}

func find(ctx context.Context, h *host.Host, choice Choice, here network) (Local, error) {
	running, err := processes(h)
	if err != nil {
		return Local{}, err
	}
	if len(choice.Endpoints) > 0 {
		return choice.find(ctx, h, running, here)
	}
	var ours, strangers []process
	for _, p := range running {
		if p.runs.session || p.apart && !p.published(ctx, here, running) {
			strangers = append(strangers, p)
		} else {
			ours = append(ours, p)
		}
	}
	if len(ours) == 0 {
		l, err := fromManifest(ctx, h, choice, here)
		if errors.Is(err, ErrNoMember) && len(strangers) > 0 {
			return Local{}, fmt.Errorf("%w: %s is not taken for this host's by itself: name its URL in backup.endpoints if it is", err, describe(strangers))
		}
		return l, err
	}
	if len(ours) > 1 {
		return Local{}, several(ours)
	}
	only := ours[0]
	if only.err != nil {
		return Local{}, fmt.Errorf("process %d, %s: %w", only.pid, only.runs, only.err)
	}
	only.stacked, err = isStacked(h, only)
	if err != nil {
		return Local{}, err
	}
	return only.local(only.endpoints(ctx, here), choice, here), nil
}

// published says that p, which runs in a network of its own, can be reached at an address of this
// host: one that a process of the host's own network serves is that one's, and theirs only has
// the same figures.
func (p process) published(ctx context.Context, here network, running []process) bool {
	for _, endpoint := range p.endpoints(ctx, here) {
		u := clientURLs(endpoint)[0]
		if isUnix(u) || !slices.ContainsFunc(running, func(other process) bool { return !other.apart && other.serves(ctx, here, u) }) {
			return true
		}
	}
	return false
}

// isStacked holds the only process against the static pod manifest. One that is none of it is an
// error: the static pod may be down for a moment, and the process a trial of somebody's.
func isStacked(h *host.Host, p process) (bool, error) {
	data, err := h.ReadFile(Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if p.runs.inPod() {
		return true, nil
	}
	static, err := parseManifest(data)
	if err == nil && fmt.Sprint(static.listen) == fmt.Sprint(p.listen) {
		return true, nil // by hand, or by a program that stands in for kubelet
	}
	return false, &SeveralError{Members: []string{p.describe(), "the static pod of " + Manifest + ", which does not run"}}
}

func fromManifest(ctx context.Context, h *host.Host, choice Choice, here network) (Local, error) {
	data, err := h.ReadFile(Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Local{}, fmt.Errorf("%w: %w", ErrNoMember, err)
	}
	if err != nil {
		return Local{}, err
	}
	s, err := parseManifest(data)
	if err != nil {
		return Local{}, fmt.Errorf("read %s: %w", Manifest, err)
	}
	p := process{settings: s, stacked: true}
	return p.local(p.endpoints(ctx, here), choice, here), nil
}

// local is how p is reached at endpoints.
func (p process) local(endpoints []string, choice Choice, here network) Local {
	l := Local{
		Name: p.name, DataDir: p.dataDir, PID: p.pid, Stacked: p.stacked, Endpoints: endpoints,
		pairs: p.clientPairs(), bare: !p.asksClients, listen: p.listen, here: here, own: p.own(),
	}
	if p.pid != 0 {
		l.Runs = p.runs.String()
	}
	if p.apart { // its addresses are not ours
		l.listen = nil
	}
	if p.caFile != "" {
		l.ca = file{p.pid, p.caFile}
	}
	choice.apply(&l)
	return l
}

func several(found []process) error {
	e := &SeveralError{}
	for _, p := range found {
		e.Members = append(e.Members, p.describe())
	}
	return e
}

func describe(found []process) string {
	var each []string
	for _, p := range found {
		each = append(each, p.describe())
	}
	return strings.Join(each, "; ")
}

// describe names a process with what an operator tells it by. Nothing of its environment but
// URLs and a directory is in it.
func (p process) describe() string {
	text := fmt.Sprintf("process %d, %s", p.pid, p.runs)
	if p.err != nil {
		return text + ", whose settings cannot be told"
	}
	var urls []string
	for _, u := range p.listen {
		urls = append(urls, u.String())
	}
	if p.apart {
		text += " in a network of its own"
	}
	return fmt.Sprintf("%s, at %s, data in %s", text, strings.Join(urls, ","), p.dataDir)
}
