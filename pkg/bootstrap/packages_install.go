package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	updateTimeout  = 15 * time.Minute
	installTimeout = lockTimeout + 40*time.Minute
	holdTimeout    = 5 * time.Minute
)

// aptGet is an apt-get that asks nothing, waits for locks, keeps configuration files as they
// are and removes no package.
func aptGet(args ...string) []string {
	return append([]string{
		"/usr/bin/apt-get", "-y", "-q", "--no-install-recommends", "--no-remove",
		"-o", fmt.Sprintf("DPkg::Lock::Timeout=%d", int(lockTimeout.Seconds())),
		"-o", "Dpkg::Use-Pty=0",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
		"-o", "APT::Keep-Downloaded-Packages=false",
		"-o", "APT::Update::Error-Mode=any", // or a failed update would be a warning
	}, args...)
}

// install brings what is missing. The repository's own lists are read anew; the lists of the
// other sources are when apt cannot do without.
func (p packages) install(ctx context.Context, w wants) (bool, error) {
	args := []string{"install", "--fix-broken"}
	if w.moves {
		args = append(args, "--allow-downgrades")
	}
	all, err := p.misses(ctx, w.containerd)
	if err != nil {
		return false, err
	}
	if adopted, err := p.update(ctx, w, all); adopted || err != nil {
		return adopted, err
	}
	if len(w.kubernetes) > 0 {
		chosen, err := p.choose(ctx, w)
		if err != nil {
			return false, err
		}
		args = append(args, chosen...)
	}
	argv := aptGet(append(args, w.containerd...)...)
	adopted, err := p.change(ctx, installTimeout, argv...)
	var failed *aptError
	if adopted || !errors.As(err, &failed) || !failed.lists(p.config.repositoryURL()) {
		return adopted, err
	}
	// One source that is out of order, and is not needed, is no reason to give up.
	adopted, listsErr := p.run(ctx, updateTimeout, aptGet("update")...)
	if adopted || listsErr != nil && !errors.As(listsErr, new(*aptError)) {
		return adopted, listsErr
	}
	adopted, err = p.change(ctx, installTimeout, argv...)
	if err != nil && listsErr != nil {
		err = fmt.Errorf("%w; before that, read the other sources' lists: %w", err, listsErr)
	}
	return adopted, err
}

// misses says that one of the packages is in no list that apt has, as on a fresh machine, whose
// image has none.
func (p packages) misses(ctx context.Context, names []string) (bool, error) {
	for _, name := range names {
		out, err := p.host.Run(ctx, "/usr/bin/apt-cache", "madison", name)
		if err != nil {
			return false, fmt.Errorf("ask apt for versions: %w", err)
		}
		if strings.TrimSpace(string(out)) == "" {
			return true, nil
		}
	}
	return false, nil
}

// update reads every source's lists where all of them are needed and can be had, and else the
// repository's where it is needed. What PackagesContainerdStep has just read is not read again.
func (p packages) update(ctx context.Context, w wants, all bool) (bool, error) {
	if len(w.kubernetes) > 0 && p.split.take() {
		return false, nil
	}
	if all {
		adopted, err := p.run(ctx, updateTimeout, aptGet("update")...)
		if p.runtime && !adopted && err == nil {
			p.split.read = true
		}
		var failed *aptError
		if adopted || !errors.As(err, &failed) || len(w.kubernetes) > 0 && failed.names(p.config.repositoryURL()) {
			return adopted, err
		}
	}
	if len(w.kubernetes) == 0 {
		return false, nil
	}
	return p.updateRepository(ctx)
}

// updateRepository reads the list of the repository, and no other source's.
func (p packages) updateRepository(ctx context.Context) (bool, error) {
	source, err := findSource(p.host, p.config.repositoryURL(), "")
	if err != nil {
		return false, err
	}
	if source == "" {
		return false, fmt.Errorf("no source of apt is for %s: `nodeagent apply --only %s` writes it", p.config.repositoryURL(), RepositoryStep)
	}
	return p.run(ctx, updateTimeout, aptGet("update",
		"-o", "Dir::Etc::sourcelist="+source, "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0")...)
}

// choose names the versions to install, as apt-get takes them.
func (p packages) choose(ctx context.Context, w wants) ([]string, error) {
	names := append(append([]string{"madison"}, kubernetesPackages...), companionPackages...)
	out, err := p.host.Run(ctx, "/usr/bin/apt-cache", names...)
	if err != nil {
		return nil, fmt.Errorf("ask apt for versions: %w", err)
	}
	offer := parseMadison(string(out), p.config.repositoryURL())
	patch, err := offer.choose(p.config.Minor(), w.patch, w.kubernetes)
	if err != nil {
		return nil, fmt.Errorf("%w; set packages.kubernetesVersion to one of these, or packages.repository.url to a repository that has it", err)
	}
	var args []string
	for _, name := range w.kubernetes {
		version, _ := offer.version(name, patch) // that it is there, choose has seen
		args = append(args, name+"="+version)
	}
	s, err := readDpkg(p.host)
	if err != nil {
		return nil, err
	}
	for _, name := range companionPackages {
		if have, _ := s.find(name); !have.installed() && len(offer[name]) > 0 {
			args = append(args, name+"="+offer[name][0])
		}
	}
	return args, nil
}

// names says whether an error is one of the repository's.
func (e *aptError) names(repository string) bool {
	return slices.ContainsFunc(e.lines, func(line string) bool { return strings.Contains(line, strings.TrimRight(repository, "/")) })
}

// lists says whether newer lists of other sources than the repository may help.
func (e *aptError) lists(repository string) bool {
	for _, line := range e.lines {
		fetching := strings.Contains(line, "Failed to fetch")
		if fetching && strings.Contains(line, strings.TrimRight(repository, "/")) {
			return false
		}
		for _, word := range []string{
			"Unable to locate package", "has no installation candidate", "Unable to correct problems",
			"unmet dependencies", "Failed to fetch", "Depends:", "Unable to fetch",
		} {
			if strings.Contains(line, word) {
				return true
			}
		}
	}
	return false
}
