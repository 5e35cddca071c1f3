package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

// aptLab is a host with dpkg's files, and as much of apt as a test without root can have: it
// keeps dpkg's state as apt and dpkg would. The real ones are in test/integration/packages.
type aptLab struct {
	*host.Host
	t        *testing.T
	state    map[string]string // package -> "want flag state version"
	offer    map[string][]string
	commands []string
	units    map[string]systemd.State
	fail     map[string]string // first argument of apt-get, or program -> what it says as it fails
	kill     string            // the command that is killed in the middle
	unread   bool              // apt has no list of the distribution's until all are updated
	complete int               // updates of all lists
}

func newAptLab(t *testing.T) *aptLab {
	t.Helper()
	l := &aptLab{
		t: t, state: map[string]string{"bash": "install ok installed 5.2"}, units: map[string]systemd.State{}, fail: map[string]string{},
		offer: map[string][]string{
			"kubelet": {"1.37.0-1.1", "1.36.3-1.1", "1.36.2-1.1"}, "kubeadm": {"1.36.3-1.1", "1.36.2-1.1"}, "kubectl": {"1.36.3-1.1", "1.36.2-1.1"},
			"kubernetes-cni": {"1.8.0-1.1"}, "cri-tools": {"1.36.0-1.1"},
		},
	}
	l.Host = &host.Host{Root: t.TempDir(), Exec: l.exec}
	put(t, l.Host, sourceFile, "Types: deb\nURIs: "+communityURL+"\nSuites: /\n", 0o644)
	put(t, l.Host, packagesLog, "E: of yesterday\n", 0o600)
	l.save()
	return l
}

const communityURL = "https://pkgs.k8s.io/core:/stable:/v1.36/deb/"

func (l *aptLab) save() {
	var text strings.Builder
	for name, is := range l.state {
		words := strings.Fields(is)
		fmt.Fprintf(&text, "Package: %s\nStatus: %s\nArchitecture: amd64\nVersion: %s\nDescription: x\n more: text\n\n", name, strings.Join(words[:3], " "), words[3])
	}
	put(l.t, l.Host, dpkgStatus, text.String(), 0o644)
}

func (l *aptLab) exec(_ context.Context, c host.Command) ([]byte, error) {
	var out strings.Builder
	for _, name := range c.Args[1:] {
		for _, version := range l.offer[name] {
			fmt.Fprintf(&out, "%10s | %s | %s  Packages\n", name, version, strings.TrimRight(communityURL, "/"))
		}
	}
	if !l.unread {
		fmt.Fprintf(&out, "%10s | 1.36.9-1.1 | http://elsewhere.example sid/main amd64 Packages\n", "kubelet")
	}
	return []byte(out.String()), nil
}

func (l *aptLab) State(_ context.Context, unit string) (systemd.State, error) {
	return l.units[unit], nil
}
func (l *aptLab) Enable(context.Context, string) error { return errors.New("enabled") }
func (l *aptLab) Start(context.Context, string) error  { return errors.New("started") }

func (l *aptLab) RunTransient(_ context.Context, u systemd.Transient) (systemd.Result, error) {
	command := shortCommand(u.Argv)
	l.commands = append(l.commands, command)
	if u.UMask != 0o022 || !slices.Contains(u.Env, "DEBIAN_FRONTEND=noninteractive") {
		l.t.Errorf("%s runs with %+v", command, u)
	}
	if l.units[u.Unit].SubState == "running" { // somebody's install, which ends now
		delete(l.units, u.Unit)
		l.state["kubelet"] = "install ok installed 1.36.2-1.1"
		l.save()
		return systemd.Result{Adopted: true, Result: "exit-code", Code: 100}, &systemd.UnitError{Unit: u.Unit, LogFile: u.LogFile}
	}
	if command == "update" && !slices.ContainsFunc(u.Argv, func(a string) bool { return strings.HasPrefix(a, "Dir::Etc::sourcelist=") }) {
		l.complete++
		l.unread = l.unread && l.fail["update"] != ""
	}
	if says, fails := l.fail[strings.Fields(command)[0]]; fails {
		log, err := l.ReadFile(packagesLog)
		if err != nil {
			l.t.Fatal(err)
		}
		put(l.t, l.Host, packagesLog, string(log)+says+"\n", 0o600)
		result := systemd.Result{Code: 100, Result: "exit-code"}
		return result, &systemd.UnitError{Unit: u.Unit, LogFile: u.LogFile, Result: result}
	}
	l.act(strings.Fields(command))
	if l.kill != "" && strings.HasPrefix(command, l.kill) {
		l.kill = ""
		return systemd.Result{}, context.Canceled
	}
	return systemd.Result{Result: "success"}, nil
}

// act does what a command does to dpkg's state; half of it when it is going to be killed.
func (l *aptLab) act(words []string) {
	for _, word := range words[1:] {
		name, version, _ := strings.Cut(word, "=")
		switch {
		case words[0] == "hold":
			l.state[name] = strings.Replace(l.state[name], "install", "hold", 1)
		case words[0] != "install":
		case l.kill == "install":
			l.state[name] = "install ok unpacked " + version + "1-1"
		case version != "":
			l.state[name] = "install ok installed " + version
		default:
			l.state[name] = "install ok installed 2.0"
		}
	}
	if words[0] == "configure" {
		for name, is := range l.state {
			l.state[name] = strings.Replace(is, "unpacked", "installed", 1)
		}
	}
	l.save()
}

// shortCommand is a command without the options that all of them have.
func shortCommand(argv []string) string {
	switch filepath.Base(argv[0]) {
	case "dpkg":
		return "configure"
	case "true":
		return "true"
	}
	var words []string
	for i, word := range argv[1:] {
		if !strings.HasPrefix(word, "-") && argv[i] != "-o" {
			words = append(words, word)
		}
	}
	if slices.Contains(argv, "--allow-downgrades") {
		words = append(words, "--allow-downgrades")
	}
	return strings.Join(words, " ")
}

func (l *aptLab) step(c PackagesConfig) step.Step {
	if c.KubernetesVersion == "" {
		c.KubernetesVersion = "1.36"
	}
	c.Manage = true
	return Packages(l.Host, l, c, nil)
}

func (l *aptLab) wantCommands(want ...string) {
	l.t.Helper()
	if got := strings.Join(l.commands, "\n"); got != strings.Join(want, "\n") {
		l.t.Errorf("ran\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

const installNewest = "install kubelet=1.36.3-1.1 kubeadm=1.36.3-1.1 kubectl=1.36.3-1.1 cri-tools=1.36.0-1.1 kubernetes-cni=1.8.0-1.1 containerd"

func TestPackagesConverge(t *testing.T) {
	l := newAptLab(t)
	steptest.Converges(t, l.Host, l.step(PackagesConfig{}))
	l.wantCommands("update", installNewest, "hold kubelet kubeadm kubectl containerd cri-tools kubernetes-cni")
	if there, err := l.Exists(packagesNote); there || err != nil {
		t.Errorf("the note stays: %v", err)
	}
	// A newer patch is nothing to do.
	for _, name := range kubernetesPackages {
		l.offer[name] = append([]string{"1.36.4-1.1"}, l.offer[name]...)
	}
	if changes, err := l.step(PackagesConfig{}).Check(t.Context()); len(changes) > 0 || err != nil {
		t.Errorf("%v, %v", changes, err)
	}
}

// On a fresh machine, whose image has no lists, one update of them all is enough: an install that cannot
// work is not tried. Where a source is out of order, the repository's own list has to do.
func TestPackagesWithoutLists(t *testing.T) {
	l := newAptLab(t)
	l.unread = true
	steptest.Converges(t, l.Host, l.step(PackagesConfig{}))
	l.wantCommands("update", installNewest, "hold kubelet kubeadm kubectl containerd cri-tools kubernetes-cni")
	if l.complete != 1 {
		t.Errorf("all lists were updated %d times, want once", l.complete)
	}

	l = newAptLab(t)
	l.unread, l.fail["update"] = true, "E: Failed to fetch http://gone.example/InRelease"
	if _, err := step.Apply(t.Context(), []step.Step{l.step(PackagesConfig{})}, nil); err == nil {
		t.Error("no error, though the repository's list cannot be read either")
	}
	l.wantCommands("update", "update")

	l = newAptLab(t)
	l.unread, l.fail["update"] = true, "E: Failed to fetch "+communityURL+"InRelease  Connection refused"
	if _, err := step.Apply(t.Context(), []step.Step{l.step(PackagesConfig{})}, nil); err == nil || !strings.Contains(err.Error(), "Connection refused") {
		t.Errorf("%v, want that the repository refuses", err)
	}
	l.wantCommands("update")
}

func TestPackagesVersions(t *testing.T) {
	all := func(state string) map[string]string {
		return map[string]string{"kubelet": state, "kubeadm": state, "kubectl": state, "containerd": "hold ok installed 1.7"}
	}
	tests := map[string]struct {
		config PackagesConfig
		state  map[string]string
		files  []string // programs that no package has
		member bool
		want   []string // commands
		says   string   // of Check: changes or the error
	}{
		"pinned":                        {config: PackagesConfig{KubernetesVersion: "1.36.2"}, want: []string{"update", strings.ReplaceAll(installNewest, "1.36.3", "1.36.2")}, says: `package kubelet: "not installed" → "1.36.2"`},
		"containerd.io there":           {state: map[string]string{"containerd.io": "install ok installed 2.1"}, want: []string{"update", strings.TrimSuffix(installNewest, " containerd")}, says: "containerd.io hold"},
		"containerd.io wanted":          {config: PackagesConfig{Containerd: "containerd.io"}, want: []string{"update", installNewest + ".io"}, says: "package containerd.io"},
		"the other containerd there":    {config: PackagesConfig{Containerd: "containerd.io"}, state: map[string]string{"containerd": "install ok installed 1.7"}, want: []string{"update", strings.TrimSuffix(installNewest, " containerd")}, says: "apt-get install containerd.io replaces it"},
		"containerd under another name": {config: PackagesConfig{Containerd: "containerd-app"}, state: map[string]string{"containerd-app": "install ok installed 1.7"}, want: []string{"update", strings.TrimSuffix(installNewest, " containerd")}, says: "containerd-app hold"},
		"containerd of no package":      {files: []string{"/usr/local/bin/containerd"}, want: []string{"update", strings.TrimSuffix(installNewest, " containerd")}},
		"kubelet of no package":         {files: []string{"/usr/bin/kubelet"}, says: "/usr/bin/kubelet is there, and not from the package kubelet"},
		"only held":                     {state: all("hold ok installed 1.36.2-1.1")},
		"not held":                      {state: all("install ok installed 1.36.2-1.1"), says: `kubelet hold: "off"`, want: []string{}},
		"the rest in the patch there":   {state: map[string]string{"kubelet": "hold ok installed 1.36.2-1.1"}, want: []string{"update", "install kubeadm=1.36.2-1.1 kubectl=1.36.2-1.1 cri-tools=1.36.0-1.1 kubernetes-cni=1.8.0-1.1 containerd"}},
		"another patch, no member":      {config: PackagesConfig{KubernetesVersion: "1.36.2"}, state: all("install ok installed 1.36.3-1.1"), says: `package kubelet: "1.36.3-1.1" → "1.36.2"`, want: []string{"update", "install kubelet=1.36.2-1.1 kubeadm=1.36.2-1.1 kubectl=1.36.2-1.1 cri-tools=1.36.0-1.1 kubernetes-cni=1.8.0-1.1 --allow-downgrades"}},
		"another patch, held":           {config: PackagesConfig{KubernetesVersion: "1.36.2"}, state: all("hold ok installed 1.36.3-1.1"), says: "apt-mark unhold kubelet"},
		"another patch, a member":       {config: PackagesConfig{KubernetesVersion: "1.36.2"}, state: all("hold ok installed 1.36.3-1.1"), member: true, says: "another patch of a member of a cluster is an upgrade"},
		"another minor":                 {state: all("hold ok installed 1.35.7-1.1"), says: "another minor is an upgrade"},
		"a version that is none":        {state: all("hold ok installed git")},
		"half of another minor":         {state: map[string]string{"kubelet": "hold ok installed 1.35.7-1.1"}, says: "kubelet 1.35.7-1.1 is installed, and packages.kubernetesVersion is 1.36: no kubeadm, kubectl is installed beside"},
		"removed, its settings left":    {state: map[string]string{"kubelet": "deinstall ok config-files 1.35.7-1.1"}, want: []string{"update", installNewest}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newAptLab(t)
			maps.Copy(l.state, test.state)
			l.save()
			for _, path := range test.files {
				put(t, l.Host, path, "", 0o755)
			}
			if test.member {
				put(t, l.Host, KubeletConf, "x", 0o600)
			}
			changes, checkErr := l.step(test.config).Check(t.Context())
			if says := fmt.Sprint(changes, checkErr); !strings.Contains(says, test.says) {
				t.Errorf("check says %s\nwant %s", says, test.says)
			}
			results, err := step.Apply(t.Context(), []step.Step{l.step(test.config)}, nil)
			if (err != nil) != (checkErr != nil) {
				t.Errorf("%+v, %v", results, err)
			}
			if n := len(l.commands); test.want != nil && n > 0 && strings.HasPrefix(l.commands[n-1], "hold") {
				l.commands = l.commands[:n-1]
			}
			l.wantCommands(test.want...)
		})
	}
}

// Killed in the middle, with the agent: the note tells that it was us, dpkg is repaired and the
// installation is gone on with.
func TestPackagesGoOnAfterAKill(t *testing.T) {
	l := newAptLab(t)
	l.kill = "install"
	s := l.step(PackagesConfig{})
	if err := s.Apply(t.Context()); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	changes, err := s.Check(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(changes), "was interrupted while the agent used it") {
		t.Errorf("%v, %v", changes, err)
	}
	l.commands = nil
	steptest.Converges(t, l.Host, s)
	if len(l.commands) == 0 || l.commands[0] != "configure" {
		t.Errorf("ran %q", l.commands)
	}
}

// A run that a killed agent left is waited for, and the rest is done.
func TestPackagesAdopt(t *testing.T) {
	l := newAptLab(t)
	l.units[packagesUnit] = systemd.State{ActiveState: "active", SubState: "running"}
	s := l.step(PackagesConfig{})
	changes, err := s.Check(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(changes), packagesUnit+`: "runs"`) {
		t.Errorf("%v, %v", changes, err)
	}
	if err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantCommands("true", "update",
		"install kubeadm=1.36.2-1.1 kubectl=1.36.2-1.1 cri-tools=1.36.0-1.1 kubernetes-cni=1.8.0-1.1 containerd",
		"hold kubelet kubeadm kubectl containerd cri-tools kubernetes-cni")
}

// What somebody else left half-done is named, with the command, and nothing is run.
func TestPackagesOfOthers(t *testing.T) {
	for name, spoil := range map[string]func(l *aptLab){
		"half-configured":        func(l *aptLab) { l.state["tzdata"] = "install ok half-configured 2026a" },
		"triggers":               func(l *aptLab) { l.state["tzdata"] = "install ok triggers-pending 2026a" },
		"installed, to be again": func(l *aptLab) { l.state["tzdata"] = "install reinstreq installed 2026a" },
		"a journal, not a status": func(l *aptLab) {
			put(l.t, l.Host, dpkgUpdates+"/0001", "Package: tzdata\nStatus: install ok installed\n", 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newAptLab(t)
			spoil(l)
			l.save()
			results, err := step.Apply(t.Context(), []step.Step{l.step(PackagesConfig{})}, nil)
			wantError(t, err, "not by the agent's doing", "dpkg --configure -a")
			if err := l.step(PackagesConfig{}).Apply(t.Context()); err == nil {
				t.Error("applied all the same")
			}
			l.wantCommands()
			if results[0].Outcome != step.Failed {
				t.Errorf("%+v", results)
			}
			// With nothing to install it is a finding.
			for _, name := range append([]string{"containerd"}, kubernetesPackages...) {
				l.state[name] = "hold ok installed 1.36.2-1.1"
			}
			l.save()
			results, err = step.Apply(t.Context(), []step.Step{l.step(PackagesConfig{})}, nil)
			if err != nil || results[0].Outcome != step.Clean || len(results[0].Findings()) != 1 {
				t.Errorf("%+v, %v", results, err)
			}
		})
	}
}

func TestPackagesErrors(t *testing.T) {
	tests := map[string]struct {
		change func(l *aptLab)
		want   []string
		runs   []string
	}{
		"a patch that is not there": {
			func(l *aptLab) { l.offer["kubelet"] = []string{"1.36.1-1.1"} },
			[]string{"no 1.36 of kubelet, kubeadm, kubectl in the repository; it has kubelet: 1.36.1-1.1; kubeadm: 1.36.3-1.1 1.36.2-1.1"},
			[]string{"update"},
		},
		"an empty repository": {func(l *aptLab) { l.offer = nil }, []string{"it has kubelet: nothing"}, []string{"update"}},
		"a wrong key": {
			func(l *aptLab) {
				l.fail["update"] = "Err:1\nW: GPG error: https://x InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 0123\nE: The repository 'https://x InRelease' is not signed."
			},
			[]string{"NO_PUBKEY 0123", "E: The repository 'https://x InRelease' is not signed.", "check packages.repository.keyFile", packagesLog},
			[]string{"update"},
		},
		"a lock that comes back": {
			func(l *aptLab) {
				l.fail["update"] = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"
			},
			[]string{"held by process 7 (apt-get)"},
			[]string{"update", "update", "update", "update", "update"},
		},
		"no lists of the distribution": {
			func(l *aptLab) { l.fail["install"] = "E: Unable to locate package containerd" },
			[]string{"install packages: E: Unable to locate package containerd"},
			[]string{"update", installNewest, "update", installNewest},
		},
		"a full disk": {
			func(l *aptLab) {
				l.fail["install"] = "E: You don't have enough free space in /var/cache/apt/archives/."
			},
			[]string{"enough free space", "the disk is full"},
			[]string{"update", installNewest},
		},
		"a truncated package of the repository": {
			func(l *aptLab) {
				l.fail["install"] = "E: Failed to fetch " + communityURL + "amd64/kubelet_1.36.3-1.1_amd64.deb  File has unexpected size (5 != 7). Mirror sync in progress?\nE: Unable to fetch some archives"
			},
			[]string{"unexpected size", "the repository is incomplete"},
			[]string{"update", installNewest},
		},
		"no source": {func(l *aptLab) { _ = l.Remove(sourceFile) }, []string{"nodeagent apply --only packages/repository"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newAptLab(t)
			test.change(l)
			err := l.step(PackagesConfig{}).Apply(t.Context())
			wantError(t, err, test.want...)
			if strings.Contains(fmt.Sprint(err), "of yesterday") {
				t.Errorf("it tells of an earlier run: %v", err)
			}
			l.wantCommands(test.runs...)
			// dpkg is as it was: there is nothing to repair.
			if there, err := l.Exists(packagesNote); there || err != nil {
				t.Errorf("the note stays: %v", err)
			}
		})
	}
}

// Off a running machine dpkg's files are read all the same.
func TestPackagesOffline(t *testing.T) {
	l := newAptLab(t)
	l.Offline = true
	if _, err := l.step(PackagesConfig{}).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Error(err)
	}
	for _, name := range append([]string{"containerd"}, kubernetesPackages...) {
		l.state[name] = "hold ok installed 1.36.2-1.1"
	}
	l.save()
	if changes, err := l.step(PackagesConfig{}).Check(t.Context()); len(changes) > 0 || err != nil {
		t.Errorf("%v, %v", changes, err)
	}
}

// Whoever holds dpkg's lock is named and waited for; what dpkg is in the middle of is not an
// error as long as somebody is at work.
func TestPackagesWaitForTheLock(t *testing.T) {
	l := newAptLab(t)
	l.state["tzdata"] = "install ok half-configured 2026a"
	l.save()
	put(t, l.Host, aptLocks[0], "", 0o640)
	f, err := os.OpenFile(filepath.Join(l.Root, aptLocks[0]), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	// A lock of this process would not be seen by it; one of the open file is.
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	changes, err := l.step(PackagesConfig{}).Check(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(changes), "lock-frontend is held by") {
		t.Errorf("%v, %v", changes, err)
	}
	synctest.Test(t, func(t *testing.T) {
		err := awaitUnlocked(t.Context(), l.Host)
		wantError(t, err, "waited up to 20m0s", "lock-frontend is held by a process that is not to be seen from here")
	})
	lock.Type = unix.F_UNLCK
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if err := unlocked(l.Host); err != nil {
		t.Error(err)
	}
	put(t, l.Host, "/proc/12/comm", "unattended-upgr\n", 0o444)
	for pid, want := range map[int]string{12: "unattended-upgr, process 12", 13: "process 13"} {
		if got := holder(l.Host, pid); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What the preflight wants where the agent installs the packages.
func TestPreflightManaged(t *testing.T) {
	h := goodMachine(t)
	for _, name := range []string{"containerd", "ctr", "kubeadm", "kubelet", "kubectl"} {
		remove(t, h, "/usr/bin/"+name)
	}
	deps := goodDeps()
	deps.Managed = true
	check := func(role Role, want string) {
		t.Helper()
		changes, err := Preflight(h, role, nil, deps).Check(t.Context())
		var names []string
		for _, c := range changes {
			names = append(names, c.Subject)
			if c.Manual {
				t.Errorf("%s does not stop", c.Subject)
			}
		}
		if got := strings.Join(names, " "); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", role, got, err, want)
		}
	}
	check(Worker, "FileExisting-apt-get FileExisting-apt-cache FileExisting-apt-mark FileExisting-dpkg")
	check(Etcd, "FileExisting-containerd FileExisting-ctr")
	for _, name := range []string{"apt-get", "apt-cache", "apt-mark", "dpkg"} {
		put(t, h, "/usr/bin/"+name, "", 0o755)
	}
	check(ControlPlane, "")
	space := deps.Space
	deps.Space = func(path string) (Space, error) {
		if strings.HasSuffix(path, "/usr") {
			return Space{Device: 77, Free: 500 * mib, Size: 2 * gib}, nil
		}
		return space(path)
	}
	check(ControlPlane, "DiskSpace")
	put(t, h, "/usr/bin/kubeadm", "", 0o755) // installed: what is left is enough
	check(ControlPlane, "")
}

func TestNeedPackages(t *testing.T) {
	l := newLab(t)
	if err := l.Remove("/usr/bin/kubeadm"); err != nil {
		t.Fatal(err)
	}
	i := l.init(KubeadmConfig{})
	i.Managed = true
	l.units[kubeletUnit] = systemd.State{LoadState: "not-found"}
	for _, s := range []step.Step{KubeadmConfigFile(i), Kubelet(l.Host, l, true)} {
		if _, err := s.Check(t.Context()); !errors.Is(err, step.Blocked{On: PackagesStep}) {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	if _, err := Kubelet(l.Host, l, false).Check(t.Context()); err == nil || errors.Is(err, step.Blocked{On: PackagesStep}) {
		t.Errorf("not managed: %v", err)
	}
}
