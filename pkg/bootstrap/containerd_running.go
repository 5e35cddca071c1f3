package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	restartTimeout = 3 * time.Minute
	// criTimeout is for a daemon that was just started: it answers before its CRI does.
	criTimeout   = time.Minute
	criPatience  = 10 * time.Second
	criInterval  = 100 * time.Millisecond
	askTimeout   = 5 * time.Second
	loadedRecord = "/run/nodeagent/containerd.loaded"
)

// stale is how the running daemon differs from what it would read: a restart that was lost.
func (c containerd) stale(ctx context.Context, state systemd.State, effective map[string]any) ([]step.Change, error) {
	environment, err := c.environChanges(ctx, state)
	if err != nil {
		return nil, err
	}
	var status kube.RuntimeStatus
	err = c.within(ctx, criPatience, func(ctx context.Context) error {
		status, err = c.answer(ctx)
		return err
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return append(environment, step.Change{Subject: containerdUnit, Have: err.Error(), Want: "an answer over the CRI", Disruptive: true}), nil
	}
	changes, err := c.runsOtherwise(status, effective)
	if err != nil {
		return nil, err
	}
	untold, err := c.untold(effective)
	if err != nil {
		return nil, err
	}
	changes = append(changes, environment...)
	if len(changes) > 0 || untold == "" {
		return changes, nil
	}
	loaded, err := c.loaded(state, untold)
	if err != nil {
		return nil, err
	}
	if loaded != untold {
		changes = append(changes, step.Change{
			Subject: containerdUnit, Disruptive: true,
			Have: "started " + state.ExecMainStartTimestamp.UTC().Format(time.RFC3339) + ", before its configuration was what it is",
			Want: "restarted",
		})
	}
	return changes, nil
}

// answer is the daemon's status, an error unless it is ready.
func (c containerd) answer(ctx context.Context) (kube.RuntimeStatus, error) {
	status, err := kube.AskRuntime(ctx, c.Host, containerdSocket)
	if err == nil && status.NotReady != "" {
		err = fmt.Errorf("the container runtime is not ready: %s", status.NotReady)
	}
	return status, err
}

// runsOtherwise compares what the daemon runs with, as it tells, with what it would read now.
func (c containerd) runsOtherwise(status kube.RuntimeStatus, effective map[string]any) (changes []step.Change, err error) {
	want, err := c.settings(versionOf(effective), effective)
	if err != nil || status.Config == nil {
		return nil, err
	}
	for _, s := range want {
		if s.told == nil {
			continue
		}
		if have := lookTree(status.Config, s.told); !same(have, s.want) {
			changes = append(changes, step.Change{Subject: "running containerd: " + strings.Join(s.told, "."), Have: show(have), Want: show(s.want), Disruptive: true})
		}
	}
	return changes, nil
}

// untold are the settings that the daemon does not tell, one a line, as it would read them.
func (c containerd) untold(effective map[string]any) (string, error) {
	want, err := c.settings(versionOf(effective), effective)
	if err != nil {
		return "", err
	}
	var lines strings.Builder
	for _, s := range want {
		if s.told == nil {
			fmt.Fprintf(&lines, "%s = %s\n", dotted(s.path), show(lookTree(effective, s.path)))
		}
	}
	return lines.String(), nil
}

// loaded is what the daemon that state tells of was started with, of the settings that it does
// not tell; "" when nobody knows. Where the agent has seen that start it has noted it.
// Otherwise a daemon that is younger than its files has read them. The time of a file's last
// change of any kind is taken, which no copy and no touch can set back.
func (c containerd) loaded(state systemd.State, untold string) (string, error) {
	data, err := c.Host.ReadFile(loadedRecord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if noted, is := strings.CutPrefix(string(data), startOf(state)); is {
		return noted, nil
	}
	root, _, err := readOwned(c.Host, containerdConfig)
	if err != nil || root == nil {
		return untold, err
	}
	tree, err := decodeTOML(root)
	if err != nil {
		return "", err
	}
	files, _, err := imports(c.Host, tree, containerdDropIn)
	if err != nil {
		return "", err
	}
	for _, path := range append(files, containerdConfig) {
		info, err := c.Host.Stat(path.(string))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if !state.ExecMainStartTimestamp.After(changedAt(info)) {
			return "", nil
		}
	}
	return untold, nil
}

// startOf names one start of the daemon.
func startOf(state systemd.State) string {
	return fmt.Sprintf("# containerd %d, started %s, was started with\n", state.MainPID, state.ExecMainStartTimestamp.UTC().Format(time.RFC3339Nano))
}

// noteLoaded notes what the running daemon was started with before its files are changed:
// should we be killed before the restart, the next run finds that it is due, whatever the
// files' times say.
func (c containerd) noteLoaded(ctx context.Context, state systemd.State) error {
	if !state.Active() {
		return nil
	}
	s, err := c.setup(ctx)
	if err != nil || !s.two {
		return nil // what is wrong is told by whoever needs it
	}
	untold, err := c.untold(s.effective)
	if err != nil {
		return err
	}
	loaded, err := c.loaded(state, untold)
	if err != nil {
		return err
	}
	return c.Host.WriteFile(loadedRecord, []byte(startOf(state)+loaded), 0o644)
}

// run has the daemon run with what it would read: it is started, or restarted where it is
// stale, and then has to say so itself.
func (c containerd) run(ctx context.Context, state systemd.State, effective map[string]any) error {
	if state.Active() {
		stale, err := c.stale(ctx, state, effective)
		if err != nil || len(stale) == 0 {
			return err
		}
	}
	if err := c.restart(ctx); err != nil {
		return err
	}
	var status kube.RuntimeStatus
	err := c.within(ctx, criTimeout, func(ctx context.Context) (err error) {
		status, err = c.answer(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("restart containerd: %w; see journalctl -u containerd", err)
	}
	changes, err := c.runsOtherwise(status, effective)
	if err != nil {
		return err
	}
	if len(changes) > 0 { // it has read what it reads: waiting changes nothing
		return fmt.Errorf("restart containerd: it does not run with what %s says: %s; does %s start it with another file?", containerdConfig, changes[0], containerdUnit)
	}
	if state, err = c.state(ctx); err != nil {
		return err
	}
	environment, err := c.environChanges(ctx, state)
	if err != nil {
		return err
	}
	if len(environment) > 0 {
		return fmt.Errorf("restart containerd: its environment is not what %s says: %s; does another drop-in of %s set it?", proxyDropIn, environment[0], containerdUnit)
	}
	untold, err := c.untold(effective)
	if err != nil || untold == "" {
		return err
	}
	return c.Host.WriteFile(loadedRecord, []byte(startOf(state)+untold), 0o644)
}

func (c containerd) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	// A drop-in may have been written and not read, by us or by one of us that was killed.
	if err := c.Units.DaemonReload(ctx); err != nil {
		return err
	}
	return c.Units.Restart(ctx, containerdUnit)
}

// within tries until there is no error, for limit at most; then the error is the last one that
// was not the end of the time itself. A daemon without a CRI will not come to have one.
func (c containerd) within(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(criInterval)
	defer tick.Stop()
	var last error
	for {
		once, done := context.WithTimeout(ctx, askTimeout)
		err := try(once)
		done()
		if err == nil || errors.Is(err, kube.ErrNoCRI) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
