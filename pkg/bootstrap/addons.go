package bootstrap

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// addons is the step "network/addons".
type addons struct {
	host    *host.Host
	paths   []string
	connect func() (*kube.Client, error)
}

// Addons makes the step "network/addons": every object in the manifests (files, or directories
// of .yaml, .yml and .json files) has been applied, server-side, as its document says now.
func Addons(h *host.Host, paths []string, connect func() (*kube.Client, error)) step.Step {
	a := addons{host: h, paths: paths, connect: connect}
	return step.Step{Name: "network/addons", Check: a.check, Apply: a.apply}
}

func (a addons) check(ctx context.Context) ([]step.Change, error) {
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
	defer client.Close()
	differences, err := client.Diff(ctx, objects)
	if err != nil {
		return nil, fmt.Errorf("compare add-ons: %w", err)
	}
	var changes []step.Change
	for _, d := range differences {
		changes = append(changes, step.Change{Subject: d.Object.String(), Have: d.Have, Want: "applied"})
	}
	return changes, nil
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
	defer client.Close()
	return client.ApplyManifests(ctx, objects)
}

// objects reads every manifest, in the order of the configuration and of the file names.
func (a addons) objects() ([]kube.Object, error) {
	var out []kube.Object
	for _, path := range a.paths {
		files, err := a.files(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := a.host.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read add-on: %w", err)
			}
			objects, err := kube.ParseManifest(data)
			if err != nil {
				return nil, fmt.Errorf("read add-on %s: %w", file, err)
			}
			out = append(out, objects...)
		}
	}
	return out, nil
}

func (a addons) files(path string) ([]string, error) {
	info, err := a.host.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read add-on: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := a.host.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read add-ons: %w", err)
	}
	var files []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	return files, nil
}
