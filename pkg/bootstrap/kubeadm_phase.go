package bootstrap

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	logDir     = "/var/log/nodeagent"
	kubeadmLog = logDir + "/kubeadm.log"
	// kubeadmDir is where what kubeadm makes and prints lies until it is whole.
	kubeadmDir = "/var/lib/nodeagent/kubeadm"
)

// phase is a phase of kubeadm init.
type phase struct {
	name string // kubeadm's: "control-plane"; the step is "kubeadm/control-plane"
	part string // what is run of it: "all", "local"; "" for a phase without parts
	// missing is what the phase has yet to leave, in words; nothing when it is complete. It may
	// return Blocked.
	missing func(ctx context.Context) ([]string, error)
	mend    string // what an operator of a finished node does instead of running the phase, if anything
	// apply makes it so; nil runs the phase, whose second run then does no harm.
	apply    func(ctx context.Context) error
	together bool // it is one of clusterPhases
	local    bool // missing asks this host only, and so costs next to nothing
}

// kubeadmRun is one run of kubeadm, as a transient unit.
type kubeadmRun struct {
	name  string   // of its unit and of its file
	words []string // what is typed: "init", "phase", "certs", "all"
}

func (p kubeadmRun) unit() string { return "nodeagent-kubeadm-" + p.name + ".service" }

// output is where it prints, for nobody else to read: it may be a token.
func (p kubeadmRun) output() string { return kubeadmDir + "/" + p.name + ".out" }

func (p kubeadmRun) command() string { return "kubeadm " + strings.Join(p.words, " ") }

// alone is the process that runs the phase and nothing else.
func (p phase) alone() kubeadmRun {
	words := []string{"init", "phase", p.name}
	if p.part != "" {
		words = append(words, p.part)
	}
	return kubeadmRun{p.name, words}
}

// step is the step of a phase.
func (i Init) step(p phase) step.Step {
	if p.apply == nil {
		p.apply = func(ctx context.Context) error { return i.run(ctx, p.alone(), kubeadmFile) }
	}
	// What a check has just found need not be asked for again by the apply that follows it.
	var found []step.Change
	check := func(ctx context.Context) ([]step.Change, error) {
		changes, err := i.check(ctx, p)
		found = changes
		return changes, err
	}
	apply := func(ctx context.Context) error {
		changes, err := found, error(nil)
		if found = nil; changes == nil {
			changes, err = i.check(ctx, p)
		}
		if err != nil || len(step.Result{Changes: changes}.Pending()) == 0 {
			return err // what is complete, or a person's to mend, is not run
		}
		for _, ran := range i.runs(p) {
			if changes[0].Subject == ran.output() {
				_, err := i.log(ran)
				return err
			}
		}
		return p.apply(ctx)
	}
	return step.Step{Name: "kubeadm/" + p.name, Check: check, Apply: apply}
}

func (i Init) check(ctx context.Context, p phase) ([]step.Change, error) {
	if i.Host.Offline {
		return nil, step.Blocked{On: step.Boot}
	}
	if i.skips(p.name) {
		return nil, nil
	}
	running, err := i.running(ctx, p)
	if err != nil || running != nil {
		return running, err
	}
	building, err := i.Building()
	if err != nil {
		return nil, err
	}
	missing, err := p.missing(ctx)
	var broken *brokenFile
	if errors.As(err, &broken) && !building {
		return []step.Change{{
			Subject: broken.path, Have: broken.why.Error(), Manual: true,
			Want: "as kubeadm left it: put it back from a backup, or renew it (kubeadm certs renew); do not remove it while the cluster runs",
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(missing) == 0 {
		return i.unlogged(ctx, p, building)
	}
	command := p.alone().command()
	change := step.Change{Subject: p.name, Have: strings.Join(missing, ", "), Want: "made by " + command}
	if !building {
		change.Manual = true
		change.Want = "as kubeadm left it: put it back; `" + command + "` makes it anew from the --config it is given, which has to be of the version and with the arguments that the cluster has now"
		if p.mend != "" {
			change.Want = p.mend
		}
	}
	return []step.Change{change}, nil
}

// running is a process of the phase that runs.
func (i Init) running(ctx context.Context, p phase) ([]step.Change, error) {
	unit, err := i.Units.State(ctx, p.alone().unit())
	if err != nil {
		return nil, err
	}
	if isRunning(unit) {
		return []step.Change{{Subject: p.name, Have: p.alone().command() + " is running", Want: "complete"}}, nil
	}
	if p.together {
		return i.clusterRunning(ctx, p)
	}
	return nil, nil
}

// unlogged is what a complete phase has printed where the agent was killed before that was in the
// log: it may hold a token, and nothing else would remove it.
func (i Init) unlogged(ctx context.Context, p phase, building bool) ([]step.Change, error) {
	if !building {
		return nil, nil
	}
	for _, ran := range i.runs(p) {
		there, err := i.Host.Exists(ran.output())
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		unit, err := i.Units.State(ctx, ran.unit())
		if err != nil {
			return nil, err
		}
		if !isRunning(unit) {
			return []step.Change{{Subject: ran.output(), Have: "left over", Want: "in " + kubeadmLog}}, nil
		}
	}
	return nil, nil
}

// skips says whether the operator has kubeadm leave a phase, or "phase/part", out.
func (i Init) skips(phase string) bool {
	return i.Cluster.Kubeadm.InitConfiguration.lists("skipPhases", phase)
}

// run runs kubeadm as a transient unit, or waits for the one that runs, and puts what it
// printed into the log, without its secrets.
func (i Init) run(ctx context.Context, p kubeadmRun, config string, args ...string) error {
	kubeadm, err := Program(i.Host, "kubeadm")
	if err != nil {
		return err
	}
	if err := i.Host.MkdirAll(kubeadmDir, 0o700); err != nil {
		return err
	}
	argv := append([]string{kubeadm}, p.words...)
	_, err = i.Units.RunTransient(ctx, systemd.Transient{
		Unit: p.unit(), LogFile: p.output(), Timeout: kubeadmTimeout,
		Description: "kubeadm for " + p.name + ", run by nodeagent",
		Argv:        append(append(argv, "--config", config), args...),
	})
	if ctx.Err() != nil {
		return err // it goes on, and prints on
	}
	printed, logErr := i.log(p)
	var failed *systemd.UnitError
	if errors.As(err, &failed) {
		failed.LogFile = kubeadmLog
		if printed != "" {
			err = fmt.Errorf("%w\n%s", err, printed)
		}
	}
	return errors.Join(err, logErr)
}

// secrets are what kubeadm prints that is for nobody: bootstrap tokens, keys of certificates
// that are uploaded.
var secrets = regexp.MustCompile(`\b([a-z0-9]{6})\.[a-z0-9]{16}\b|\b[0-9a-f]{64}\b`)

func redact(text string) string { return secrets.ReplaceAllString(text, "$1[redacted]") }

const (
	maxLog     = 1 << 20 // bytes; what is older goes
	quoteLines = 4       // of what kubeadm printed last, in an error
)

// log moves what kubeadm printed into the log and returns the end of it.
func (i Init) log(p kubeadmRun) (end string, err error) {
	data, err := i.Host.ReadFile(p.output())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read what kubeadm printed: %w", err)
	}
	printed := redact(string(data))
	old, err := i.Host.ReadFile(kubeadmLog)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("log what kubeadm printed: %w", err)
	}
	text := string(old) + "# " + p.command() + "\n" + printed
	if len(text) > maxLog {
		_, text, _ = strings.Cut(text[len(text)-maxLog:], "\n")
	}
	if err := i.Host.MkdirAll(logDir, 0o750); err != nil {
		return "", err
	}
	if err := i.Host.WriteFile(kubeadmLog, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("log what kubeadm printed: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	return strings.Join(lines[max(0, len(lines)-quoteLines):], "\n"), i.Host.Remove(p.output())
}

// KubeadmPreflight makes the step "kubeadm/preflight": kubeadm has found nothing in the way and
// has pulled the images. It leaves nothing to see that by, and does not pass once there are
// static pods; so a note says that it has passed, for this configuration and since this boot.
func KubeadmPreflight(i Init) step.Step {
	p := phase{name: "preflight"}
	p.missing = func(context.Context) ([]string, error) {
		begun, err := i.begun()
		if err != nil || begun {
			return nil, err
		}
		note, err := i.passNote()
		if err != nil {
			return nil, err
		}
		have, err := i.Host.ReadFile(passedFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if string(have) == note {
			return nil, nil
		}
		return []string{"not passed since this boot"}, nil
	}
	p.apply = func(ctx context.Context) error {
		var args []string
		if len(i.Ignore) > 0 {
			args = append(args, "--ignore-preflight-errors="+strings.Join(i.Ignore, ","))
		}
		if err := i.run(ctx, p.alone(), kubeadmFile, args...); err != nil {
			return err
		}
		note, err := i.passNote()
		if err != nil {
			return err
		}
		return i.Host.WriteFile(passedFile, []byte(note), 0o600)
	}
	return i.step(p)
}

const passedFile = kubeadmDir + "/preflight-passed"

func (i Init) passNote() (string, error) {
	config, err := i.Host.ReadFile(kubeadmFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", step.Blocked{On: ConfigStep}
	}
	if err != nil {
		return "", err
	}
	boot, err := i.Host.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return fmt.Sprintf("%x %s", sha256.Sum256(config), boot), nil
}
