package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// statusSchema is as much of JSON Schema as docs/status.schema.json has.
type statusSchema struct {
	Type       string
	Format     string
	Const      string
	Enum       []string
	Items      *statusSchema
	Properties map[string]statusSchema
	Required   []string
}

func readSchema(t *testing.T) (s statusSchema) {
	t.Helper()
	data, err := os.ReadFile("../../docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// breaches are where a value is not as the schema says; a property that the schema does not know
// is one too, since this program knows them all.
func (s statusSchema) breaches(at string, value any) (out []string) {
	switch v := value.(type) {
	case map[string]any:
		if s.Type != "object" {
			return []string{at + ": is an object"}
		}
		for name, inner := range v {
			p, known := s.Properties[name]
			if !known {
				out = append(out, at+"."+name+": is not in the schema")
				continue
			}
			out = append(out, p.breaches(at+"."+name, inner)...)
		}
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				out = append(out, at+"."+name+": is missing")
			}
		}
	case []any:
		if s.Type != "array" {
			return []string{at + ": is an array"}
		}
		for i, inner := range v {
			out = append(out, s.Items.breaches(fmt.Sprintf("%s[%d]", at, i), inner)...)
		}
	case string:
		_, err := time.Parse(time.RFC3339, v)
		if s.Type != "string" || s.Const != "" && v != s.Const || s.Enum != nil && !slices.Contains(s.Enum, v) || s.Format == "date-time" && err != nil {
			out = append(out, fmt.Sprintf("%s: is %q", at, v))
		}
	case bool:
		if s.Type != "boolean" {
			out = append(out, at+": is a boolean")
		}
	case float64:
		if s.Type != "integer" {
			out = append(out, at+": is a number")
		}
	default:
		out = append(out, fmt.Sprintf("%s: is %v", at, value))
	}
	return out
}

// What status prints is as its schema says: of a node that is well, of one where everything is
// wrong, and of a host without a configuration.
func TestStatusIsAsItsSchema(t *testing.T) {
	schema := readSchema(t)
	well, bad := newLive(t), newLive(t)
	bad.node = badNode
	bad.units["kubelet.service"], bad.units[agentUnit] = failedUnit, disabledUnit
	bad.cri.states = map[string]v1.ContainerState{"etcd": v1.ContainerState_CONTAINER_EXITED, "left": v1.ContainerState_CONTAINER_RUNNING}
	now := time.Now()
	err := agent.UpdateState(t.Context(), bad.host, func(s *agent.State) {
		s.Jobs[jobDrift] = agent.JobState{LastRun: now, LastSuccess: now, Error: "x", Next: now}
		for i, st := range bad.steps {
			s.Steps[st.Name] = agent.StepState{
				Outcome: []step.Outcome{step.Clean, step.Applied, step.Differs, step.Failed, step.Stopped, step.Waiting}[i%6],
				Changes: []step.Change{{Subject: "a", Have: "b", Want: "c", Disruptive: true, Manual: true}}, Error: "e", At: now,
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]agent.Status{
		"well": well.status(t.Context(), now), "bad": bad.status(t.Context(), now), "idle": (&app{}).idleStatus("node-1", now), "nothing": newStatus(now),
	} {
		if name == "nothing" { // not judged: it has no verdict yet, which has to be found
			if len(schema.breaches("", decoded(t, s))) == 0 {
				t.Error("a page without a verdict is as the schema says")
			}
			continue
		}
		for _, breach := range schema.breaches("", decoded(t, s)) {
			t.Errorf("%s: %s", name, breach)
		}
	}
}

func decoded(t *testing.T, s agent.Status) (value any) {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// fields are the paths of a schema, each with its type.
func (s statusSchema) fields(at string) (out []string) {
	for name, p := range s.Properties {
		required := ""
		if slices.Contains(s.Required, name) {
			required = ", always there"
		}
		path := strings.TrimPrefix(at+"."+name, ".")
		out = append(out, fmt.Sprintf("%s %s%s", path, p.Type, required))
		if p.Items != nil {
			p = *p.Items
			path += "[]"
		}
		out = append(out, p.fields(path)...)
	}
	slices.Sort(out)
	return out
}

// What version nodeagent/v1 has had once it has for ever: a field may come, with -update, and none
// may go or become another.
func TestStatusSchemaIsStable(t *testing.T) {
	golden := filepath.Join("testdata", "status-v1.txt")
	have := readSchema(t).fields("")
	data, err := os.ReadFile(golden)
	if err != nil && !*update {
		t.Fatal(err)
	}
	promised := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, field := range promised {
		if field != "" && !slices.Contains(have, field) {
			t.Errorf("nodeagent/v1 had %q: what takes it away is another version", field)
		}
	}
	switch {
	case t.Failed() || slices.Equal(have, promised):
	case *update:
		if err := os.WriteFile(golden, []byte(strings.Join(have, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("fields have come that %s does not have: run this test with -update", golden)
	}
}
