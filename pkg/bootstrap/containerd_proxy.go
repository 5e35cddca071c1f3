package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	proxyDropIn = "/etc/systemd/system/containerd.service.d/90-nodeagent-proxy.conf"
	proxyHead   = "# Written by nodeagent from containerd.proxy of its configuration. Changes are overwritten.\n"
)

// proxyNames are the variables that the drop-in sets, and nobody else's are looked at.
var proxyNames = []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

// noProxyAlways is what never goes through a proxy on any node.
var noProxyAlways = []string{"127.0.0.0/8", "::1", "localhost", ".svc"}

// environment is what the daemon is to have of proxyNames; nil when no proxy is asked for.
func (c containerd) environment(ctx context.Context) (map[string]string, error) {
	proxy := c.Config.Proxy
	if proxy.IsZero() {
		return nil, nil
	}
	own, err := c.NoProxy(ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, name := range slices.Concat(proxy.NoProxy, noProxyAlways, own) {
		if name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	env := map[string]string{"NO_PROXY": strings.Join(list, ",")}
	if proxy.HTTP != "" {
		env["HTTP_PROXY"] = proxy.HTTP
	}
	if proxy.HTTPS != "" {
		env["HTTPS_PROXY"] = proxy.HTTPS
	}
	return env, nil
}

// renderProxy is the drop-in. Without a proxy it only stands for the restart that is due: it
// goes when the daemon runs without what it said before.
func renderProxy(env map[string]string) []byte {
	var b strings.Builder
	b.WriteString(proxyHead + "[Service]\n")
	for _, name := range proxyNames {
		if value, set := env[name]; set {
			fmt.Fprintf(&b, "Environment=\"%s=%s\"\n", name, strings.ReplaceAll(value, "%", "%%"))
		}
	}
	return []byte(b.String())
}

func (c containerd) proxyChanges(ctx context.Context) ([]step.Change, error) {
	env, err := c.environment(ctx)
	if err != nil {
		return nil, err
	}
	have, err := c.Host.ReadFile(proxyDropIn)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil && env == nil || err == nil && env != nil && bytes.Equal(have, renderProxy(env)):
		return nil, nil
	case env == nil:
		return []step.Change{{Subject: proxyDropIn, Have: "there", Want: "absent", Disruptive: true}}, nil
	}
	change := step.Change{Subject: proxyDropIn, Have: "absent", Want: showEnvironment(env), Disruptive: true}
	if err == nil {
		change.Have = "other content"
	}
	return []step.Change{change}, nil
}

func showEnvironment(env map[string]string) string {
	var words []string
	for _, name := range proxyNames {
		if value, set := env[name]; set {
			words = append(words, name+"="+value)
		}
	}
	return strings.Join(words, " ")
}

// writeProxy makes the drop-in say what is wanted. One that is not wanted any more stays, with
// nothing in it, until the restart is proven: dropProxy.
func (c containerd) writeProxy(ctx context.Context) error {
	env, err := c.environment(ctx)
	if err != nil {
		return err
	}
	if env == nil {
		if there, err := c.Host.Exists(proxyDropIn); err != nil || !there {
			return err
		}
		if c.Host.Offline {
			return c.dropProxy()
		}
	}
	return c.Host.WriteFile(proxyDropIn, renderProxy(env), 0o644)
}

// dropProxy removes a drop-in that has nothing to say.
func (c containerd) dropProxy() error {
	if !c.Config.Proxy.IsZero() {
		return nil
	}
	return c.Host.Remove(proxyDropIn)
}

// environChanges are the variables that the daemon runs with otherwise, as the kernel has it.
// They are the operator's own where there is no drop-in of ours.
func (c containerd) environChanges(ctx context.Context, state systemd.State) ([]step.Change, error) {
	env, err := c.environment(ctx)
	if err != nil {
		return nil, err
	}
	info, err := c.Host.Stat(proxyDropIn)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if env == nil {
		if state.ExecMainStartTimestamp.After(changedAt(info)) {
			return nil, nil
		}
		return []step.Change{{Subject: containerdUnit, Have: "started with a proxy", Want: "restarted without", Disruptive: true}}, nil
	}
	data, err := c.Host.ReadFile(fmt.Sprintf("/proc/%d/environ", state.MainPID))
	if err != nil {
		return nil, fmt.Errorf("read the environment of containerd: %w", err)
	}
	have := map[string]string{}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		have[name] = value
	}
	var changes []step.Change
	for _, name := range proxyNames {
		want, set := env[name]
		if !set || have[name] == want {
			continue
		}
		shown := have[name]
		switch {
		case shown == "":
			shown = "not set"
		case strings.Contains(shown, "@"):
			shown = "another one" // which may hold a password
		}
		changes = append(changes, step.Change{Subject: "running containerd: " + name, Have: shown, Want: want, Disruptive: true})
	}
	return changes, nil
}

// changedAt is when a file was last changed in any way, which no copy and no touch sets back.
func changedAt(info fs.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}
