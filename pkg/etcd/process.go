package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// process is a running etcd server.
type process struct {
	pid  int
	args []string // without the program
	runs runner
	// apart says that it runs in another network namespace than this process.
	apart bool
	// stacked says that it is the static pod of Manifest.
	stacked bool
	settings
	err error // why its settings cannot be told
}

// runner is what has started a process.
type runner struct {
	kind, name string // "unit", "etc.service"
	// session says that it is a login session of another user than root.
	session bool
}

func (r runner) String() string { return strings.TrimSpace(r.kind + " " + r.name) }

// inPod says that kubelet runs it.
func (r runner) inPod() bool { return r.kind == "pod" }

// programName is what etcd's executable is called, with its version perhaps.
var programName = regexp.MustCompile(`^etcd(-?v?[0-9][0-9.]*)?$`)

// processes are the etcd servers that run on h, whatever their unit or container is called: by
// their executable, or the name they were started by. Processes that end meanwhile are none.
func processes(h *host.Host) ([]process, error) {
	entries, err := h.ReadDir("/proc")
	if errors.Is(err, fs.ErrNotExist) || h.Offline {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, is, err := readProcess(h, pid)
		if err != nil {
			return nil, fmt.Errorf("look at process %d: %w", pid, err)
		}
		if is {
			found = append(found, p)
		}
	}
	return found, nil
}

func readProcess(h *host.Host, pid int) (p process, is bool, err error) {
	dir := procDir(pid)
	exe, err := h.Readlink(dir + "/exe")
	// One that nobody may look at, and that is called etcd, is seen by its command line.
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return p, false, unlessGone(err) // a kernel thread has none either
	}
	data, err := h.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, false, unlessGone(err)
	}
	line := splitNUL(data)
	if len(line) == 0 { // it is ending
		return p, false, nil
	}
	exe = strings.TrimSuffix(exe, " (deleted)") // replaced by an upgrade
	if !programName.MatchString(path.Base(exe)) && !programName.MatchString(path.Base(line[0])) || !isServer(line[1:]) {
		return p, false, nil
	}
	p = process{pid: pid, args: line[1:]}
	if p.runs, err = readRunner(h, dir); err != nil {
		return p, false, unlessGone(err)
	}
	if p.apart, err = isApart(h, dir); err != nil {
		return p, false, unlessGone(err)
	}
	p.settings, p.err = readSettings(h, pid, p.args)
	if p.err != nil && unlessGone(p.err) == nil {
		if there, err := h.Exists(dir + "/exe"); err == nil && !there {
			return p, false, nil
		}
	}
	return p, true, nil
}

func procDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// inside is the tree that a process sees: its mount namespace, and its root in it.
func inside(h *host.Host, pid int) *host.Host {
	return &host.Host{Root: filepath.Join(h.Root, procDir(pid), "root"), Offline: true}
}

// unlessGone is nil for the error of a process that has ended.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// isServer says that the arguments are those of a member: the same program has proxies, and
// tells its version.
func isServer(args []string) bool {
	if len(args) > 0 && (args[0] == "gateway" || args[0] == "grpc-proxy") {
		return false
	}
	flags := parseFlags(args)
	for _, only := range []string{"version", "h", "help"} {
		if _, is := flags[only]; is {
			return false
		}
	}
	return true
}

// readSettings follows etcd's own precedence: a configuration file replaces everything else.
func readSettings(h *host.Host, pid int, args []string) (settings, error) {
	data, err := h.ReadFile(procDir(pid) + "/environ")
	if err != nil {
		return settings{}, fmt.Errorf("read its environment: %w", err)
	}
	environ, flags := splitNUL(data), parseFlags(args)
	dir, err := h.Readlink(procDir(pid) + "/cwd")
	if err != nil {
		return settings{}, fmt.Errorf("read its working directory: %w", err)
	}
	get := byCommandLine(flags, environ)
	name := configFile(flags, environ)
	if name != "" {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		text, err := file{pid, name}.read(h)
		if err != nil {
			return settings{}, fmt.Errorf("read its configuration file: %w", err)
		}
		if get, err = parseConfigFile(text); err != nil {
			return settings{}, fmt.Errorf("its configuration file %s %w", name, err)
		}
	}
	s, err := settingsOf(get, dir)
	s.configFile = name
	return s, err
}

// isApart compares network namespaces. Where this process's own cannot be told, as in a tree
// without one, nothing is apart.
func isApart(h *host.Host, dir string) (bool, error) {
	own, err := h.Readlink("/proc/self/ns/net")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	its, err := h.Readlink(dir + "/ns/net")
	if errors.Is(err, fs.ErrPermission) { // told when its settings cannot be read
		return false, nil
	}
	return its != own, err
}

func readRunner(h *host.Host, dir string) (runner, error) {
	groups, err := h.ReadFile(dir + "/cgroup")
	if err != nil {
		return runner{}, err
	}
	status, err := h.ReadFile(dir + "/status")
	if err != nil {
		return runner{}, err
	}
	return parseRunner(string(groups), effectiveUser(string(status))), nil
}

// effectiveUser is the second figure of "Uid:", as proc(5) has it; "" where there is none.
func effectiveUser(status string) string {
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "Uid:" {
			return fields[2]
		}
	}
	return ""
}

var (
	containerID = regexp.MustCompile(`^(?:[a-z-]+-)?([0-9a-f]{12})[0-9a-f]{52}(?:\.scope)?$`)
	podID       = regexp.MustCompile(`pod([0-9a-f]{8}[-_0-9a-f]{10,}|[0-9a-f]{32})`)
)

// parseRunner reads /proc/PID/cgroup: of systemd's own hierarchy, or the unified one.
func parseRunner(groups, user string) runner {
	var group string
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && (fields[1] == "name=systemd" || fields[1] == "" && group == "") {
			group = fields[2]
		}
	}
	elements := strings.Split(group, "/")
	session := strings.Contains(group+"/", "/user.slice/") && user != "0"
	if id := podID.FindStringSubmatch(group); id != nil && strings.Contains(group, "kubepods") {
		return runner{kind: "pod", name: strings.ReplaceAll(id[1], "_", "-")}
	}
	for _, element := range slices.Backward(elements) {
		if id := containerID.FindStringSubmatch(element); id != nil {
			return runner{kind: "container", name: id[1], session: session}
		}
	}
	for _, element := range slices.Backward(elements) {
		switch {
		case session && (strings.HasPrefix(element, "session-") || strings.HasPrefix(element, "user@")):
			return runner{kind: "login session of user", name: user, session: true}
		case strings.HasSuffix(element, ".service") || strings.HasSuffix(element, ".scope"):
			return runner{kind: "unit", name: element, session: session}
		}
	}
	if group == "" || group == "/" {
		return runner{kind: "no unit"}
	}
	return runner{kind: "control group", name: group, session: session}
}
