package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

var memberFiles = []string{"/etc/kubernetes/kubelet.conf", "/etc/kubernetes/manifests"}

const thisMachine = "0123456789abcdef0123456789abcdef"

// tree makes a host of files; a name that ends in a slash is a directory.
func tree(t *testing.T, files map[string]string) *host.Host {
	t.Helper()
	h := host.New(t.TempDir())
	for name, text := range files {
		real := filepath.Join(h.Root, name)
		dir := filepath.Dir(real)
		if strings.HasSuffix(name, "/") {
			dir = real
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if dir == real {
			continue
		}
		if err := os.WriteFile(real, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestStandingOf(t *testing.T) {
	const other = "ffffffffffffffffffffffffffffffff\n"
	id := "etc/machine-id"
	tests := map[string]struct {
		files   map[string]string
		want    Standing
		wantErr string
	}{
		"fresh":                    {map[string]string{id: thisMachine + "\n"}, Fresh, ""},
		"the package's manifests":  {map[string]string{id: thisMachine, "etc/kubernetes/manifests/.kubelet-keep": ""}, Fresh, ""},
		"empty manifests":          {map[string]string{id: thisMachine, "etc/kubernetes/manifests/": ""}, Fresh, ""},
		"begun":                    {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapping": thisMachine + "\n"}, Bootstrapping, ""},
		"begun, half-done":         {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapping": thisMachine, "etc/kubernetes/kubelet.conf": "x"}, Bootstrapping, ""},
		"complete":                 {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapped": thisMachine, "etc/kubernetes/kubelet.conf": "x"}, Bootstrapped, ""},
		"complete and reset":       {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapped": thisMachine}, Bootstrapped, ""},
		"complete, apply again":    {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapped": thisMachine, "var/lib/nodeagent/bootstrapping": thisMachine}, Bootstrapped, ""},
		"made by hand":             {map[string]string{id: thisMachine, "etc/kubernetes/kubelet.conf": "x"}, Adopted, ""},
		"static pods by hand":      {map[string]string{id: thisMachine, "etc/kubernetes/manifests/etcd.yaml": ""}, Adopted, ""},
		"clone of a finished node": {map[string]string{id: other, "var/lib/nodeagent/bootstrapped": thisMachine}, Fresh, ""},
		"clone of one in the make": {map[string]string{id: other, "var/lib/nodeagent/bootstrapping": thisMachine}, Fresh, ""},
		"clone with its files":     {map[string]string{id: other, "var/lib/nodeagent/bootstrapped": thisMachine, "etc/kubernetes/kubelet.conf": "x"}, Adopted, ""},
		"mark of another, begun":   {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapped": other, "var/lib/nodeagent/bootstrapping": thisMachine}, Bootstrapping, ""},
		"no machine-id":            {nil, Unknown, "systemd-machine-id-setup makes one"},
		"empty machine-id":         {map[string]string{id: "\n"}, Unknown, "systemd-machine-id-setup makes one"},
		"image's machine-id":       {map[string]string{id: "uninitialized\n"}, Unknown, "systemd-machine-id-setup makes one"},
		"empty mark":               {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapped": ""}, Fresh, ""},
		"unreadable mark":          {map[string]string{id: thisMachine, "var/lib/nodeagent/bootstrapped/": ""}, Unknown, "read mark: read /var/lib/nodeagent/bootstrapped: is a directory"},
		"no directory":             {map[string]string{id: thisMachine, "etc/kubernetes": "a file"}, Unknown, "look for a cluster's files"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for range 10 { // an order of marks that is a map's would show
				got, err := StandingOf(tree(t, test.files), memberFiles)
				if test.wantErr != "" {
					if got != Unknown || err == nil || !strings.Contains(err.Error(), test.wantErr) {
						t.Fatalf("got %q, %v, want it unknown and an error that says %q", got, err, test.wantErr)
					}
					return
				}
				if err != nil || got != test.want {
					t.Fatalf("got %q, %v, want %q", got, err, test.want)
				}
			}
		})
	}
}

// A host goes from fresh over bootstrapping to bootstrapped, and stays that when its cluster
// is removed; completing what is complete changes nothing.
func TestMarksLife(t *testing.T) {
	h := tree(t, map[string]string{"etc/machine-id": thisMachine + "\n"})
	standing := func(want Standing) {
		t.Helper()
		if got, err := StandingOf(h, memberFiles); err != nil || got != want {
			t.Fatalf("standing %q, %v, want %q", got, err, want)
		}
	}
	standing(Fresh)
	for range 2 {
		if err := BeginBootstrap(h); err != nil {
			t.Fatal(err)
		}
		standing(Bootstrapping)
	}
	for range 2 {
		if err := CompleteBootstrap(h, "applied"); err != nil {
			t.Fatal(err)
		}
		standing(Bootstrapped)
		if there, err := h.Exists(bootstrappingMark); err != nil || there {
			t.Errorf("the mark of a bootstrap in progress is there: %v, %v", there, err)
		}
	}
	info, err := h.Stat(bootstrappedMark)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if at, err := CompletedAt(h); err != nil || !at.Equal(info.ModTime()) || at.IsZero() {
		t.Errorf("completed at %v, %v", at, err)
	}
	if err := BeginBootstrap(h); err != nil {
		t.Fatal(err)
	}
	if at, err := CompletedAt(h); err != nil || !at.IsZero() {
		t.Errorf("begun again, and completed at %v, %v", at, err)
	}
	other := tree(t, map[string]string{"etc/machine-id": thisMachine + "\n", "var/lib/nodeagent/bootstrapped": "another\n"})
	if at, err := CompletedAt(other); err != nil || !at.IsZero() {
		t.Errorf("another host's mark: %v, %v", at, err)
	}
}

// A mark is never made of nothing.
func TestNoMarkWithoutMachineID(t *testing.T) {
	h := tree(t, map[string]string{"etc/machine-id": ""})
	if err := BeginBootstrap(h); err == nil {
		t.Error("begun without a machine-id")
	}
	if err := CompleteBootstrap(h, "applied"); err == nil {
		t.Error("completed without a machine-id")
	}
	if there, err := h.Exists(stateDir); err != nil || there {
		t.Errorf("something was written: %v, %v", there, err)
	}
}

// What was applied is remembered with the mark, and does not change whose mark it is.
func TestApplied(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	if err := h.WriteFile("/etc/machine-id", []byte("0123456789abcdef0123456789abcdef\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	if got, err := Applied(h); err != nil || got != "" {
		t.Errorf("before: %q, %v", got, err)
	}
	for _, want := range []string{"one", "two"} {
		if err := BeginBootstrap(h); err != nil {
			t.Fatal(err)
		}
		if err := CompleteBootstrap(h, want); err != nil {
			t.Fatal(err)
		}
		if got, err := Applied(h); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
		if standing, err := StandingOf(h, nil); err != nil || standing != Bootstrapped {
			t.Errorf("standing %q, %v", standing, err)
		}
	}
	if there, err := h.Exists(bootstrappingMark); err != nil || there {
		t.Errorf("the mark of the beginning is there: %v, %v", there, err)
	}
}
