package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// packagesNote is there while the agent has dpkg change packages: a dpkg that is found in the
// middle of something is the agent's to repair if it is, and somebody else's if not.
const packagesNote = "/var/lib/nodeagent/packages-in-progress"

const packagesNoteText = "# Written by nodeagent before it has dpkg change packages, and removed when that has ended well.\n"

// containerdNames are the packages that bring containerd: the distribution's and Docker's.
var containerdNames = []string{"containerd", "containerd.io"}

type packages struct {
	host    *host.Host
	units   Units
	config  PackagesConfig
	env     []string // of apt
	split   *split   // nil where one step installs all
	runtime bool     // the step is PackagesContainerdStep
}

// split is what the two steps that install packages share.
type split struct {
	read bool // the first has just read every source's lists
}

// take says, once, that the lists have just been read.
func (s *split) take() bool {
	if s == nil || !s.read {
		return false
	}
	s.read = false
	return true
}

// Packages makes the step "packages": containerd, kubelet, kubeadm and kubectl are installed,
// with cri-tools and kubernetes-cni as far as the repository has them, and held.
//
// Any installed patch of the minor that is wanted is right; versions that are there are left
// alone, but for a patch that is named and not yet part of a cluster. Check reads dpkg's own
// files. apt and dpkg run in a transient unit, which outlives the agent and is adopted by the
// next; its output goes to a log. env is what apt is given beside its fixed environment: proxies.
func Packages(h *host.Host, units Units, c PackagesConfig, env []string) step.Step {
	p := packages{host: h, units: units, config: c, env: env}
	return step.Step{Name: PackagesStep, Check: p.check, Apply: p.apply}
}

// SplitPackages makes two steps of Packages, to be applied one after the other: the package that
// brings containerd, so that there is a containerd while the rest is installed; and the rest, with
// every hold. The lists that the first has read the second does not read again.
func SplitPackages(h *host.Host, units Units, c PackagesConfig, env []string) (containerd, rest step.Step) {
	shared := &split{}
	first := packages{host: h, units: units, config: c, env: env, split: shared, runtime: true}
	second := packages{host: h, units: units, config: c, env: env, split: shared}
	return step.Step{Name: PackagesContainerdStep, Check: first.check, Apply: first.apply},
		step.Step{Name: PackagesStep, Check: second.check, Apply: second.apply}
}

// needPackages turns the error of a program that is not there yet into one that waits for the
// step "packages", where the agent installs packages.
func needPackages(managed bool, err error) error {
	if managed {
		return needStep(PackagesStep, err)
	}
	return err
}

// needStep turns the error of a program that is not there yet into one that waits for the step
// which installs it; "" where none does.
func needStep(installer string, err error) error {
	if installer != "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", step.Blocked{On: installer}, err)
	}
	return err
}

func (p packages) check(ctx context.Context) ([]step.Change, error) {
	s, err := readDpkg(p.host)
	if err != nil {
		return nil, err
	}
	w, err := p.wants(s)
	if err != nil {
		return nil, err
	}
	if p.runtime && w.nothing() {
		return nil, nil // what else there is to say of dpkg, the step "packages" says
	}
	if p.host.Offline {
		if w.nothing() {
			return w.changes, nil
		}
		return nil, fmt.Errorf("packages are installed on a running machine: %w", step.Blocked{On: step.Boot})
	}
	noted, err := p.host.Exists(packagesNote)
	if err != nil {
		return nil, err
	}
	unfinished := s.unfinished()
	if w.nothing() && !noted && len(unfinished) == 0 {
		return w.changes, nil
	}
	unit, err := p.units.State(ctx, packagesUnit)
	if err != nil {
		return nil, err
	}
	if unit.SubState == "running" || unit.SubState == "start" {
		return append(w.changes, step.Change{Subject: packagesUnit, Have: "runs", Want: "ended: it is waited for"}), nil
	}
	locked := unlocked(p.host)
	if locked != nil && !errors.Is(locked, errLocked) {
		return nil, locked
	}
	switch {
	case locked != nil && !w.nothing():
		w.changes = append(w.changes, step.Change{Subject: "dpkg", Have: locked.Error(), Want: fmt.Sprintf("free: it is waited for, up to %s", lockTimeout)})
	case noted:
		w.changes = append(w.changes, step.Change{Subject: "dpkg", Have: "was interrupted while the agent used it", Want: "done with " + orNothing(unfinished)})
	case len(unfinished) > 0 && locked == nil:
		if err := othersUnfinished(unfinished); !w.nothing() {
			return nil, err
		}
		w.changes = append(w.changes, finding("dpkg", "not done with "+orNothing(unfinished), "done: dpkg --configure -a, and see what it says"))
	}
	return w.changes, nil
}

func orNothing(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// othersUnfinished is the refusal to go on from where somebody else left dpkg.
func othersUnfinished(unfinished []string) error {
	return fmt.Errorf("dpkg is not done with %s, and not by the agent's doing: nothing is installed before `dpkg --configure -a`, and where that is not enough `apt-get --fix-broken install`, have mended it",
		orNothing(unfinished))
}

// wants is how the packages of a host are to change.
type wants struct {
	changes    []step.Change // those and findings, for operators
	patch      string        // the patch that kubernetes is installed in; "" for the newest
	kubernetes []string
	containerd []string
	hold       []string
	moves      bool // a version that is there is replaced
}

func (w wants) installs() bool { return len(w.kubernetes) > 0 || len(w.containerd) > 0 }
func (w wants) nothing() bool  { return !w.installs() && len(w.hold) == 0 }

// wants compares what is installed with what is wanted.
func (p packages) wants(s dpkgState) (wants, error) {
	var w wants
	if p.runtime {
		err := p.wantsContainerd(&w, s)
		w.changes, w.hold = nil, nil // findings and holds are the step "packages"'s
		p.describe(&w)
		return w, err
	}
	if p.config.Pinned() {
		w.patch = p.config.KubernetesVersion
	}
	member, err := p.member()
	if err != nil {
		return w, err
	}
	var others []string // of another minor
	for _, name := range kubernetesPackages {
		if have, _ := s.find(name); have.installed() {
			if !p.present(&w, have, member) {
				others = append(others, name+" "+have.Version)
			}
			continue
		}
		if err := p.foreign(s, name, name); err != nil {
			return w, err
		}
		w.kubernetes = append(w.kubernetes, name)
	}
	if len(others) > 0 && len(w.kubernetes) > 0 {
		return w, fmt.Errorf("%s is installed, and packages.kubernetesVersion is %s: no %s is installed beside another minor; remove the one (apt-get remove) or change the other",
			strings.Join(others, ", "), p.config.KubernetesVersion, strings.Join(w.kubernetes, ", "))
	}
	if err := p.wantsContainerd(&w, s); err != nil {
		return w, err
	}
	for _, name := range companionPackages {
		if have, _ := s.find(name); have.installed() && !have.held() {
			w.hold = append(w.hold, name)
		}
	}
	p.describe(&w)
	return w, nil
}

// present takes account of a Kubernetes package that is installed; false if its minor is
// another than the wanted one.
func (p packages) present(w *wants, have dpkgPackage, member bool) bool {
	minor, patch, ok := release(have.Version)
	want := "version " + p.config.KubernetesVersion
	switch {
	case !ok || minor != p.config.Minor():
		w.changes = append(w.changes, finding("package "+have.Name, have.Version, want+": another minor is an upgrade, kubeadm upgrade and apt-get by hand; or set packages.kubernetesVersion to it"))
		return false
	case p.config.Pinned() && patch != p.config.KubernetesVersion && member:
		w.changes = append(w.changes, finding("package "+have.Name, have.Version, want+": another patch of a member of a cluster is an upgrade, kubeadm upgrade and apt-get by hand; or set packages.kubernetesVersion to "+patch))
	case p.config.Pinned() && patch != p.config.KubernetesVersion && have.held():
		w.changes = append(w.changes, finding("package "+have.Name, have.Version+", held", want+": apt-mark unhold "+have.Name))
	case p.config.Pinned() && patch != p.config.KubernetesVersion:
		w.changes = append(w.changes, step.Change{Subject: "package " + have.Name, Have: have.Version, Want: p.config.KubernetesVersion})
		w.kubernetes, w.moves = append(w.kubernetes, have.Name), true
	case !p.config.Pinned() && (w.patch == "" || byPatch(patch, w.patch) > 0):
		w.patch = patch // what is missing comes in the version that is there
	}
	if !have.held() {
		w.hold = append(w.hold, have.Name)
	}
	return true
}

func (p packages) wantsContainerd(w *wants, s dpkgState) error {
	want := p.config.Containerd
	for _, name := range containerdNames {
		have, _ := s.find(name)
		switch {
		case !have.installed():
		case want != "" && want != name:
			w.changes = append(w.changes, finding("package "+want, name+" is installed", want+": apt-get install "+want+" replaces it and restarts containerd; or set packages.containerd"))
			return nil
		default:
			if !have.held() {
				w.hold = append(w.hold, name)
			}
			return nil
		}
	}
	if have, _ := s.find(want); want != "" && have.installed() {
		if !have.held() {
			w.hold = append(w.hold, want)
		}
		return nil
	}
	if want == "" {
		want = containerdNames[0]
		for _, name := range containerdNames {
			if have, there := s.find(name); there && have.unfinished() {
				want = name
			}
		}
		err := p.foreign(s, want, "containerd")
		if err != nil && errors.Is(err, fs.ErrExist) {
			return nil // the operator's own containerd, from an archive
		}
	}
	if err := p.foreign(s, want, "containerd"); err != nil {
		return err
	}
	w.containerd = append(w.containerd, want)
	return nil
}

// foreign is the refusal to install a package over a program that is not from it. dpkg would
// overwrite the program, or leave it in the way in /usr/local/bin.
func (p packages) foreign(s dpkgState, name, program string) error {
	if have, there := s.find(name); there && have.unfinished() {
		return nil
	}
	path, err := Program(p.host, program)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is there, and not from the package %s: %w; remove it, or set packages.manage to false", path, name, fs.ErrExist)
}

// describe adds the changes of what is installed and held.
func (p packages) describe(w *wants) {
	version := w.patch
	if version == "" {
		version = p.config.Minor() + ", the newest patch that the repository has"
	}
	for _, name := range w.kubernetes {
		if !slices.ContainsFunc(w.changes, func(c step.Change) bool { return c.Subject == "package "+name }) {
			w.changes = append(w.changes, step.Change{Subject: "package " + name, Have: "not installed", Want: version})
		}
	}
	for _, name := range w.containerd {
		if p.split != nil && !p.runtime {
			continue // PackagesContainerdStep has said it
		}
		w.changes = append(w.changes, step.Change{Subject: "package " + name, Have: "not installed", Want: "installed"})
	}
	for _, name := range w.hold {
		w.changes = append(w.changes, step.Change{Subject: "package " + name + " hold", Have: "off", Want: "on: no upgrade moves it"})
	}
}

// member says whether the host is one of a cluster's.
func (p packages) member() (bool, error) {
	for _, path := range MemberFiles[:1] {
		there, err := p.host.Exists(path)
		if err != nil || there {
			return there, err
		}
	}
	return false, nil
}
