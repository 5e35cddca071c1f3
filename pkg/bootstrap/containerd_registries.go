package bootstrap

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const (
	certsDir = "/etc/containerd/certs.d"
	// registriesHead is how a hosts.toml of ours begins.
	registriesHead = "# Written by nodeagent from containerd.mirrors of its configuration. Changes are overwritten.\n"
	hostsFile      = "hosts.toml"

	// RegistriesStep is the name of the step that writes registries' mirrors.
	RegistriesStep = "containerd/registries"
)

// certsDirs is registry.config_path as containerd needs it to read hosts.toml files: what it
// has, unless that is nothing. Containerd 2 takes a list of directories, its own default among
// them, for the name of one when it pulls by its transfer service (containerd's issue 12808):
// there it is the first of the list.
func certsDirs(effective map[string]any, at criLayout) (string, error) {
	dirs, _ := lookTree(effective, sub(at.registry, "config_path")).(string)
	if dirs == "" {
		for _, key := range []string{"mirrors", "configs"} {
			if old, _ := lookTree(effective, sub(at.registry, key)).(map[string]any); len(old) > 0 {
				return "", fmt.Errorf("read %s: registry.%s in it keeps containerd from reading %s: write hosts.toml files in its stead, or take containerd.mirrors out of nodeagent's configuration", containerdConfig, key, certsDir)
			}
		}
		return certsDir, nil
	}
	local, _ := lookTree(effective, sub(at.registry[:len(at.registry)-1], "use_local_image_pull")).(bool)
	if list := filepath.SplitList(dirs); versionOf(effective) > 2 && !local && len(list) > 0 && filepath.IsAbs(list[0]) {
		return list[0], nil
	}
	return dirs, nil
}

type registries struct {
	host    *host.Host
	mirrors []MirrorConfig
	dir     func(context.Context) (string, error)
}

// Registries makes the step "containerd/registries": the hosts.toml of each mirrored registry,
// in the directory that containerd reads at each pull, so that nothing is restarted for it. A
// file that is not ours stays, and is a finding. It comes behind the step "containerd", whose
// d it takes.
func Registries(d ContainerdDeps) step.Step {
	c := containerd{d}
	r := registries{host: d.Host, mirrors: d.Config.Mirrors, dir: c.registriesDir}
	return step.Step{Name: RegistriesStep, Check: r.check, Apply: r.apply}
}

// registriesDir is where containerd looks for hosts.toml first: the operator's own directory
// where there is one.
func (c containerd) registriesDir(ctx context.Context) (string, error) {
	if len(c.Config.Mirrors) == 0 {
		return certsDir, nil
	}
	if err := c.installed(); err != nil {
		return "", err
	}
	s, err := c.setup(ctx)
	if err != nil {
		return "", err
	}
	l, err := layoutOf(versionOf(s.effective))
	if err != nil {
		return "", err
	}
	dirs, _ := lookTree(s.effective, sub(l.registry, "config_path")).(string)
	for _, dir := range filepath.SplitList(dirs) {
		if filepath.IsAbs(dir) {
			return dir, nil
		}
	}
	return certsDir, nil
}

// hostsTOML is a file as it is to be; nil content is for one that nothing asks for any more.
type hostsTOML struct {
	path    string
	content []byte
	mode    fs.FileMode
	shown   string // its content, for operators
}

func (r registries) check(ctx context.Context) ([]step.Change, error) {
	files, foreign, err := r.files(ctx)
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	for _, path := range foreign {
		changes = append(changes, step.Change{
			Subject: path, Have: "there, and not nodeagent's", Manual: true,
			Want: "absent, or no mirrors of this registry in containerd.mirrors",
		})
	}
	for _, f := range files {
		have, mode, err := readOwned(r.host, f.path)
		if err != nil {
			return nil, err
		}
		switch {
		case f.content == nil:
			changes = append(changes, step.Change{Subject: f.path, Have: "there", Want: "absent"})
		case have == nil:
			changes = append(changes, step.Change{Subject: f.path, Have: "absent", Want: f.shown})
		case !bytes.Equal(have, f.content):
			changes = append(changes, step.Change{Subject: f.path, Have: "other content", Want: f.shown})
		case mode != f.mode:
			changes = append(changes, step.Change{Subject: f.path + " mode", Have: fmt.Sprintf("%04o", mode), Want: fmt.Sprintf("%04o", f.mode)})
		}
	}
	return changes, nil
}

func (r registries) apply(ctx context.Context) error {
	files, _, err := r.files(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.content != nil {
			if err := r.host.WriteFile(f.path, f.content, f.mode); err != nil {
				return err
			}
			continue
		}
		if err := r.host.Remove(f.path); err != nil {
			return err
		}
		// Somebody's certificates may lie beside it.
		if entries, err := r.host.ReadDir(filepath.Dir(f.path)); err == nil && len(entries) == 0 {
			if err := r.host.Remove(filepath.Dir(f.path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// files are the files of ours, those to be removed among them, and the operator's that lie
// where one of ours would.
func (r registries) files(ctx context.Context) (files []hostsTOML, foreign []string, err error) {
	if r.host.Offline && r.secret() {
		return nil, nil, step.Blocked{On: step.Boot} // an image is no place for a password
	}
	dir, err := r.dir(ctx)
	if err != nil {
		return nil, nil, err
	}
	wanted := map[string]bool{}
	for _, m := range r.mirrors {
		path, ours, err := r.place(dir, m.Registry)
		if err != nil {
			return nil, nil, err
		}
		wanted[path] = true
		if !ours {
			foreign = append(foreign, path)
			continue
		}
		f, err := r.render(m)
		if err != nil {
			return nil, nil, fmt.Errorf("mirrors of %s: %w", m.Registry, err)
		}
		f.path = path
		files = append(files, f)
	}
	entries, err := r.host.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return files, foreign, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name(), hostsFile)
		if wanted[path] || !e.IsDir() {
			continue
		}
		data, err := r.host.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if bytes.HasPrefix(data, []byte(registriesHead)) {
			files = append(files, hostsTOML{path: path})
		}
	}
	return files, foreign, nil
}

func (r registries) secret() bool {
	for _, m := range r.mirrors {
		for _, e := range m.Endpoints {
			if e.UsernameFile != "" {
				return true
			}
		}
	}
	return false
}

// place is where the hosts.toml of a registry lies or will lie, and whether it is ours.
// containerd takes the first that there is of two spellings of a name with a port.
func (r registries) place(dir, registry string) (path string, ours bool, err error) {
	spellings := []string{registry}
	if name, port, has := strings.Cut(registry, ":"); has {
		spellings = []string{name + "_" + port + "_", registry}
	}
	for _, name := range spellings {
		path = filepath.Join(dir, name, hostsFile)
		data, err := r.host.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return path, bytes.HasPrefix(data, []byte(registriesHead)), err
	}
	return path, true, nil
}

// render is a registry's hosts.toml. No "server" is given: the registry itself comes last.
func (r registries) render(m MirrorConfig) (hostsTOML, error) {
	var b strings.Builder
	b.WriteString(registriesHead)
	f := hostsTOML{mode: 0o644}
	var urls []string
	for _, e := range m.Endpoints {
		urls = append(urls, e.URL)
		at := "[host." + quoteTOML(e.URL)
		fmt.Fprintf(&b, "\n%s]\n  capabilities = [\"pull\", \"resolve\"]\n", at)
		if e.CAFile != "" {
			// In an image it may come with the first boot, and is looked at then.
			err := r.host.CheckTrusted(e.CAFile)
			if later := r.host.Offline && errors.Is(err, fs.ErrNotExist); err != nil && !later {
				return f, fmt.Errorf("look at caFile: %w", err)
			}
			fmt.Fprintf(&b, "  ca = %s\n", quoteTOML(e.CAFile))
		}
		if u, err := url.Parse(e.URL); err == nil && strings.Trim(u.Path, "/") != "" {
			b.WriteString("  override_path = true\n")
		}
		if e.UsernameFile == "" {
			continue
		}
		user, err := r.host.ReadSecret(e.UsernameFile)
		if err != nil {
			return f, err
		}
		password, err := r.host.ReadSecret(e.PasswordFile)
		if err != nil {
			return f, err
		}
		if bytes.ContainsRune(user, ':') {
			return f, fmt.Errorf("read secret: the user name in %s has a colon in it", e.UsernameFile)
		}
		basic := base64.StdEncoding.EncodeToString(append(append(user, ':'), password...))
		fmt.Fprintf(&b, "  %s.header]\n    Authorization = [%s]\n", at, quoteTOML("Basic "+basic))
		f.mode = 0o600
	}
	f.content = []byte(b.String())
	f.shown = "images from " + strings.Join(urls, ", ")
	return f, nil
}
