package config

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
)

// closed is a key that is commented out; help begins with "# ".
var closed = regexp.MustCompile(`(?m)^( *)#(\S.*)$`)

func TestFirst(t *testing.T) {
	for _, role := range []bootstrap.Role{bootstrap.ControlPlane, bootstrap.Worker, bootstrap.Etcd} {
		want := Default()
		want.Role = role
		if role == bootstrap.ControlPlane {
			want.Network.CNI = "bridge"
		}
		if diff := cmp.Diff(want, mustParse(t, string(First(role))), same); diff != "" {
			t.Errorf("%s: %s", role, diff)
		}
	}
}

// With every comment opened it is the configuration with every default written out, no key
// missing and none too many.
func TestReferenceIsTheDefaults(t *testing.T) {
	want := Default()
	want.Role = bootstrap.ControlPlane
	opened := closed.ReplaceAllString(reference, "$1$2")
	if diff := cmp.Diff(want, mustParse(t, opened), same); diff != "" {
		t.Error(diff)
	}
	var have, all map[string]any
	for text, into := range map[string]*map[string]any{opened: &have, mustPrint(t, want): &all} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	for section, keys := range all {
		if keys, is := keys.(map[string]any); is && len(keys) == 0 {
			all[section] = nil // one without keys has nothing to open
		}
	}
	if diff := cmp.Diff(all, have); diff != "" {
		t.Errorf("the keys (- of the types, + of the file): %s", diff)
	}
}

// Each key can be opened alone: the section above it is there.
func TestReferenceOpensOneByOne(t *testing.T) {
	want := Default()
	want.Role = bootstrap.ControlPlane
	keys := closed.FindAllStringIndex(reference, -1)
	if len(keys) < 20 {
		t.Fatalf("only %d keys are commented out", len(keys))
	}
	for _, at := range keys {
		line := reference[at[0]:at[1]]
		text := reference[:at[0]] + strings.Replace(line, "#", "", 1) + reference[at[1]:]
		cfg, err := Parse("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if diff := cmp.Diff(want, cfg, same); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
	for line := range strings.Lines(reference) {
		if len(line) > 120 {
			t.Errorf("too long a line: %s", line)
		}
	}
}
