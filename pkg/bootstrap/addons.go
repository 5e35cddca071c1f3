package bootstrap

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// AddonsStep is the name of the step that applies manifests.
const AddonsStep = "network/addons"

// maxManifest bounds a file of manifests: the largest add-ons' are a few MiB.
const maxManifest = 16 << 20

// addons is what the steps "network/addons" and "addons/ready" are made of.
type addons struct {
	host    *host.Host
	paths   []string
	connect func() (*kube.Client, error)
}

// Addons makes the step "network/addons": every object in the manifests (files, or directories
// of .yaml, .yml and .json files) is as its document says, by server-side apply. What somebody
// has changed in it since is a difference; what others have added is not. A field that another
// manager has set to something else is never taken from it: Apply's error names both. An
// object whose document is gone stays as it is. Files that others than root can change are
// refused, see host.ReadTrusted.
func Addons(h *host.Host, paths []string, connect func() (*kube.Client, error)) step.Step {
	a := addons{host: h, paths: paths, connect: connect}
	return step.Step{Name: AddonsStep, Check: a.check, Apply: a.apply}
}

func (a addons) check(ctx context.Context) ([]step.Change, error) {
	differences, err := a.ask(ctx, (*kube.Client).Diff)
	if err != nil {
		return nil, err
	}
	return changes(differences, "applied"), nil
}

// ask puts a question about all the objects to the API, once there is a cluster.
func (a addons) ask(ctx context.Context, question func(*kube.Client, context.Context, []kube.Object) ([]kube.Difference, error)) ([]kube.Difference, error) {
	if a.host.Offline {
		return nil, step.Blocked{On: step.Boot}
	}
	objects, err := a.objects()
	if err != nil {
		return nil, err
	}
	member, err := a.host.Exists(AdminConf)
	if err != nil {
		return nil, err
	}
	if !member {
		return nil, step.Blocked{On: WaitStep}
	}
	client, err := a.connect()
	if err != nil {
		return nil, err
	}
	differences, err := question(client, ctx, objects)
	if err != nil {
		return nil, fmt.Errorf("compare add-ons: %w", err)
	}
	return differences, nil
}

func changes(differences []kube.Difference, want string) []step.Change {
	var out []step.Change
	for _, d := range differences {
		out = append(out, step.Change{Subject: d.Object.String(), Have: d.Have, Want: want})
	}
	return out
}

func (a addons) apply(ctx context.Context) error {
	objects, err := a.objects()
	if err != nil {
		return err
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	return client.ApplyManifests(ctx, objects)
}

// objects reads every manifest, in the order of the configuration and of the file names. The
// same object twice is an error: each apply would undo the other's.
func (a addons) objects() ([]kube.Object, error) {
	var out []kube.Object
	from := map[string]string{}
	for _, path := range a.paths {
		files, err := a.files(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := a.host.ReadTrusted(file, maxManifest)
			if err != nil {
				return nil, fmt.Errorf("read add-on: %w", err)
			}
			objects, err := kube.ParseManifest(data)
			if err != nil {
				return nil, fmt.Errorf("read add-on %s: %w", file, err)
			}
			for _, o := range objects {
				if before, twice := from[o.ID()]; twice {
					return nil, fmt.Errorf("read add-ons: %s is in %s and in %s: leave one out", o, before, file)
				}
				from[o.ID()] = file
			}
			out = append(out, objects...)
		}
	}
	return out, nil
}

// files are the manifests at a path: itself, or what lies in the directory by its name. Hidden
// files are an editor's, and directories below are somebody's own affair.
func (a addons) files(path string) ([]string, error) {
	info, err := a.host.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read add-on: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	if err := a.host.CheckTrusted(path); err != nil {
		return nil, fmt.Errorf("read add-ons: %w", err)
	}
	entries, err := a.host.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read add-ons: %w", err)
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) {
			continue
		}
		file := filepath.Join(path, name)
		info, err := a.host.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("read add-on: %w", err)
		}
		if !info.IsDir() {
			files = append(files, file)
		}
	}
	return files, nil
}
