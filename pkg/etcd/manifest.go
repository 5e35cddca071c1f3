package etcd

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"sigs.k8s.io/yaml"
)

// pod is the little of a static pod manifest that says how etcd runs.
type pod struct {
	Kind string `json:"kind"`
	Spec struct {
		Containers []container `json:"containers"`
	} `json:"spec"`
}

type container struct {
	Command    []string `json:"command"`
	Args       []string `json:"args"`
	WorkingDir string   `json:"workingDir"`
	Env        []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"env"`
}

// parseManifest reads a static pod manifest.
func parseManifest(data []byte) (settings, error) {
	var p pod
	if err := yaml.Unmarshal(data, &p); err != nil {
		return settings{}, err
	}
	if p.Kind != "Pod" {
		return settings{}, fmt.Errorf("kind is %q, not Pod", p.Kind)
	}
	for _, c := range p.Spec.Containers {
		line := slices.Concat(c.Command, c.Args)
		if len(line) == 0 || path.Base(line[0]) != "etcd" {
			continue
		}
		var environ []string
		for _, e := range c.Env {
			environ = append(environ, e.Name+"="+e.Value)
		}
		flags := parseFlags(line[1:])
		if file := configFile(flags, environ); file != "" {
			return settings{}, fmt.Errorf("etcd takes its settings from the configuration file %s, which is read only while etcd runs", file)
		}
		return settingsOf(byCommandLine(flags, environ), c.WorkingDir)
	}
	return settings{}, errors.New("no container whose command is etcd")
}
