package bootstrap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// cniBinDir is where kubernetes-cni and the add-ons install their plugins. Debian's containerd
// looks in /usr/lib/cni alone until it is told.
const (
	cniBinDir  = "/opt/cni/bin"
	cniConfDir = "/etc/cni/net.d"
	runcV2     = "io.containerd.runc.v2"
)

// criPlugins are the names under which the CRI has been switched off: packages other than
// Debian's install containerd for Docker alone.
var criPlugins = []string{"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"}

func isCRI(plugin string) bool { return slices.Contains(criPlugins, plugin) }

// criLayout is where a version of containerd's configuration has what the agent cares about:
// 1 and 2 are containerd 1.x's (a file without a version is 1), 3 and 4 are 2.x's.
type criLayout struct {
	sandbox  []string
	registry []string
	cni      []string
	runtimes []string
}

func layoutOf(version int64) (criLayout, error) {
	cri := func(plugin string, path ...string) []string { return append([]string{"plugins", plugin}, path...) }
	switch version {
	case 0, 1, 2:
		plugin := "io.containerd.grpc.v1.cri"
		if version < 2 {
			plugin = "cri"
		}
		return criLayout{cri(plugin, "sandbox_image"), cri(plugin, "registry"), cri(plugin, "cni"), cri(plugin, "containerd", "runtimes")}, nil
	case 3, 4:
		const images, runtime = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
		return criLayout{cri(images, "pinned_images", "sandbox"), cri(images, "registry"), cri(runtime, "cni"), cri(runtime, "containerd", "runtimes")}, nil
	}
	return criLayout{}, fmt.Errorf("read containerd's configuration: its version %d is not known to this nodeagent", version)
}

func versionOf(tree map[string]any) int64 {
	v, _ := tree["version"].(int64)
	return v
}

// criSetting is one key and the value it is to have: a string, a bool or a list of strings.
type criSetting struct {
	path   []string
	want   any
	told   []string // where the daemon tells what it runs with, in its status over the CRI; nil: nowhere
	option bool     // of the runtime whose type is the setting in front
	usual  bool     // containerd 2 has it so unless a file says otherwise
}

// settings are what containerd has to read, as a configuration of the given version says it.
// Which runtimes there are, and whether plugins are looked for in one directory or in
// several, is read from the effective configuration, so that the lists for the version of the
// file and for that of the dump go together index by index.
func (c containerd) settings(version int64, effective map[string]any) ([]criSetting, error) {
	l, err := layoutOf(version)
	if err != nil {
		return nil, err
	}
	at, err := layoutOf(versionOf(effective))
	if err != nil {
		return nil, err
	}
	out := []criSetting{
		{path: l.sandbox, want: c.Pause, told: []string{"sandboxImage"}},
		{path: sub(l.cni, "conf_dir"), want: cniConfDir, told: []string{"cni", "confDir"}, usual: true},
		{path: sub(l.cni, "bin_dir"), want: cniBinDir, told: []string{"cni", "binDir"}, usual: true},
	}
	if dirs, several := lookTree(effective, sub(at.cni, "bin_dirs")).([]any); several {
		told := []string{"cni", "binDirs"}
		if out[2].told = told; version >= 3 {
			out[2] = criSetting{path: sub(l.cni, "bin_dirs"), want: addTo(dirs, cniBinDir), told: told, usual: true}
		}
	}
	for _, name := range runcRuntimes(effective, at) {
		told := []string{"containerd", "runtimes", name}
		out = append(out,
			criSetting{path: sub(l.runtimes, name, "runtime_type"), want: runcV2, told: sub(told, "runtimeType"), usual: name == "runc"},
			criSetting{path: sub(l.runtimes, name, "options", "SystemdCgroup"), want: true, option: true, told: sub(told, "options", "SystemdCgroup")},
		)
	}
	if len(c.Config.Mirrors) > 0 {
		dirs, err := certsDirs(effective, at)
		if err != nil {
			return nil, err
		}
		out = append(out, criSetting{path: sub(l.registry, "config_path"), want: dirs, told: []string{"registry", "configPath"}})
	}
	if versionOf(effective) > 2 {
		// What its images plugin has is not in the status of its runtime plugin: seen on 2.4.2.
		// 1.6.20 and 1.7.35 tell everything.
		for i := range out {
			if out[i].told[0] == "sandboxImage" || out[i].told[0] == "registry" {
				out[i].told = nil
			}
		}
	}
	return out, nil
}

// differences are the settings that containerd has otherwise, for operators and by their index.
// usual says that what is not set is as containerd 2 has it by itself.
func (c containerd) differences(effective map[string]any, usual bool) ([]step.Change, []int, error) {
	want, err := c.settings(versionOf(effective), effective)
	if err != nil {
		return nil, nil, err
	}
	var changes []step.Change
	disabled, _ := effective["disabled_plugins"].([]any)
	for _, plugin := range disabled {
		if name, _ := plugin.(string); isCRI(name) {
			changes = append(changes, step.Change{Subject: "containerd: plugin " + name, Have: "disabled", Want: "enabled", Disruptive: true})
		}
	}
	var indexes []int
	for i, s := range want {
		have := lookTree(effective, s.path)
		if same(have, s.want) || usual && s.usual && have == nil {
			continue
		}
		subject := "containerd: " + dotted(s.path[1:])
		changes = append(changes, step.Change{Subject: subject, Have: show(have), Want: show(s.want), Disruptive: true})
		indexes = append(indexes, i)
	}
	return changes, indexes, nil
}

func sub(path []string, keys ...string) []string { return slices.Concat(path, keys) }

func addTo(list []any, s string) []any {
	if slices.Contains(list, any(s)) {
		return list
	}
	return append(slices.Clone(list), s)
}

// runcRuntimes are the runtimes that put containers into cgroups by runc's rules, "runc" first
// among them: each needs the driver that the kubelet has.
func runcRuntimes(effective map[string]any, at criLayout) []string {
	names := []string{"runc"}
	runtimes, _ := lookTree(effective, at.runtimes).(map[string]any)
	for name, r := range runtimes {
		table, _ := r.(map[string]any)
		if name != "runc" && table["runtime_type"] == runcV2 {
			names = append(names, name)
		}
	}
	slices.Sort(names[1:])
	return names
}

// same compares a value of a tree with the one it is to have.
func same(have, want any) bool {
	list, isList := want.([]any)
	if !isList {
		return have == want
	}
	haveList, _ := have.([]any)
	return slices.Equal(haveList, list)
}

// show is a value for operators.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "not set"
	case []any:
		words := make([]string, len(v))
		for i, w := range v {
			words[i] = fmt.Sprint(w)
		}
		return "[" + strings.Join(words, " ") + "]"
	}
	return fmt.Sprint(v)
}

// strayed are the keys, outside the allowed paths, whose values differ between two effective
// configurations. An absent key and an empty value are the same: containerd drops the empty
// ones of a section as soon as a file mentions it. "imports" names the files themselves.
func strayed(before, after map[string]any, allowed [][]string) [][]string {
	b, a := map[string]string{}, map[string]string{}
	flatten(before, nil, b)
	flatten(after, nil, a)
	var out [][]string
	for key := range b {
		if _, there := a[key]; !there {
			a[key] = ""
		}
	}
	for key, value := range a {
		path := strings.Split(key, "\x00")
		covers := func(p []string) bool { return len(p) <= len(path) && slices.Equal(p, path[:len(p)]) }
		if b[key] != value && path[0] != "imports" && !slices.ContainsFunc(allowed, covers) {
			out = append(out, path)
		}
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

func flatten(v any, path []string, into map[string]string) {
	if table, is := v.(map[string]any); is {
		for key, value := range table {
			flatten(value, append(slices.Clone(path), key), into)
		}
		return
	}
	if !empty(v) {
		into[strings.Join(path, "\x00")] = fmt.Sprint(v)
	}
}

// empty says that a value is as good as none.
func empty(v any) bool {
	switch fmt.Sprint(v) {
	case "<nil>", "", "0", "false", "[]":
		return true
	}
	return false
}

// under says that path lies below the table prefix.
func under(path, prefix []string) bool {
	return len(path) > len(prefix) && slices.Equal(path[:len(prefix)], prefix)
}

// words joins paths for operators.
func words(paths [][]string) string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = dotted(p)
	}
	return strings.Join(out, ", ")
}
