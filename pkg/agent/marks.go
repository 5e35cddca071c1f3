package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// Standing is what the daemon may do to this host.
type Standing string

const (
	// Fresh: nothing of a cluster is on the host and the agent has not begun: it may bootstrap.
	Fresh Standing = "fresh"
	// Bootstrapping: the agent began to build this host and has not finished: it goes on.
	Bootstrapping Standing = "bootstrapping"
	// Bootstrapped: the agent built this host, or a person ran apply to the end: jobs run,
	// and apply is for people.
	Bootstrapped Standing = "bootstrapped"
	// Adopted: somebody else built this host: jobs run and drift only reports.
	Adopted Standing = "adopted"
	// Unknown: it cannot be read; the error beside it says why.
	Unknown Standing = "unknown"
	// Unconfigured: nobody has written a configuration: the daemon idles.
	Unconfigured Standing = "idle"
)

// ErrNoMachineID is a host that has no identity yet: the marks would be anybody's. An image is to
// be so until it boots.
var ErrNoMachineID = errors.New("/etc/machine-id is empty or missing; systemd-machine-id-setup makes one")

// The marks. They hold the machine-id, so that a cloned image does not carry its original's.
const (
	stateDir          = "/var/lib/nodeagent"
	bootstrappingMark = stateDir + "/bootstrapping"
	bootstrappedMark  = stateDir + "/bootstrapped"
)

// StandingOf reads the marks and, where there is none, what lies on the host. members are the
// paths that only a member of a cluster has: files, or directories with something in them. A host
// without a machine-id is ErrNoMachineID.
func StandingOf(h *host.Host, members []string) (Standing, error) {
	id, err := machineID(h)
	if err != nil {
		return Unknown, err
	}
	// Complete comes first: a crash within CompleteBootstrap on a complete host leaves both.
	for _, m := range []struct {
		mark     string
		standing Standing
	}{{bootstrappedMark, Bootstrapped}, {bootstrappingMark, Bootstrapping}} {
		data, err := h.ReadFile(m.mark)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Unknown, fmt.Errorf("read mark: %w", err)
		}
		if first, _, _ := strings.Cut(string(data), "\n"); err == nil && strings.TrimSpace(first) == id {
			return m.standing, nil
		}
	}
	member, err := isMember(h, members)
	if err != nil {
		return Unknown, err
	}
	if member {
		return Adopted, nil
	}
	return Fresh, nil
}

// Building says whether a person's apply may build this host: nothing of a cluster is there,
// also after a `kubeadm reset` of a host that was complete, or the agent has begun and has not
// finished.
func Building(h *host.Host, members []string) (bool, error) {
	standing, err := StandingOf(h, members)
	if err != nil {
		return false, err
	}
	if standing != Bootstrapped {
		return standing != Adopted, nil
	}
	member, err := isMember(h, members)
	return !member, err
}

func isMember(h *host.Host, members []string) (bool, error) {
	for _, path := range members {
		there, err := holdsSomething(h, path)
		if err != nil {
			return false, fmt.Errorf("look for a cluster's files: %w", err)
		}
		if there {
			return true, nil
		}
	}
	return false, nil
}

func machineID(h *host.Host) (string, error) {
	data, err := h.ReadFile("/etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read machine-id: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if id == "" || id == "uninitialized" {
		return "", fmt.Errorf("read machine-id: %w", ErrNoMachineID)
	}
	return id, nil
}

func holdsSomething(h *host.Host, path string) (bool, error) {
	info, err := h.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.IsDir() {
		return err == nil, err
	}
	entries, err := h.ReadDir(path)
	// The kubelet's package has a hidden file in the directory of static pods, so that dpkg
	// keeps that. The kubelet passes over such files too.
	visible := func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") }
	return slices.ContainsFunc(entries, visible), err
}

// BeginBootstrap puts the mark that lets the daemon go on after a crash or a reboot. That an
// earlier bootstrap was complete is no longer so.
func BeginBootstrap(h *host.Host) error {
	id, err := machineID(h)
	if err != nil {
		return err
	}
	if err := h.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("mark bootstrap begun: %w", err)
	}
	if err := h.WriteFile(bootstrappingMark, []byte(id+"\n"), 0o600); err != nil {
		return fmt.Errorf("mark bootstrap begun: %w", err)
	}
	return h.Remove(bootstrappedMark)
}

// CompleteBootstrap says that every step has been applied here. applied is a fingerprint of
// what was applied: see Applied. The mark of the beginning goes last; with both there the host
// is complete.
func CompleteBootstrap(h *host.Host, applied string) error {
	id, err := machineID(h)
	if err != nil {
		return err
	}
	if err := h.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("mark bootstrap complete: %w", err)
	}
	if err := h.WriteFile(bootstrappedMark, []byte(id+"\n"+applied+"\n"), 0o600); err != nil {
		return fmt.Errorf("mark bootstrap complete: %w", err)
	}
	return h.Remove(bootstrappingMark)
}

// CompletedAt is when this host's mark of a complete bootstrap was put: by the bootstrap, or by a
// person who has since applied something new to the end. It is zero where there is none, or where
// it is another host's.
func CompletedAt(h *host.Host) (time.Time, error) {
	standing, err := StandingOf(h, nil)
	if err != nil || standing != Bootstrapped {
		return time.Time{}, err
	}
	info, err := h.Stat(bootstrappedMark)
	if err != nil {
		return time.Time{}, fmt.Errorf("read mark: %w", err)
	}
	return info.ModTime(), nil
}

// Applied is the fingerprint of what was last applied to the end, "" when that is not known.
// A configuration or an agent that is newer wants other things, and those are for a person to
// apply: drift mends only what differs from what was applied.
func Applied(h *host.Host) (string, error) {
	data, err := h.ReadFile(bootstrappedMark)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read mark: %w", err)
	}
	_, applied, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(applied), nil
}
