package generate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/step"
)

// enums are what the strings of a type may be.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[agent.Verdict]():  {string(agent.Well), string(agent.Wrong), string(agent.Unfinished), string(agent.Idle)},
	reflect.TypeFor[agent.Severity](): {string(agent.Error), string(agent.Warning)},
	reflect.TypeFor[agent.Standing](): {
		string(agent.Fresh), string(agent.Bootstrapping), string(agent.Bootstrapped), string(agent.Adopted), string(agent.Unknown), string(agent.Unconfigured),
	},
	reflect.TypeFor[step.Outcome](): {
		string(step.Clean), string(step.Differs), string(step.Applied), string(step.Waiting), string(step.Stopped), string(step.Failed),
	},
}

// schema is as much of JSON Schema as Status takes, in the order in which it is written.
type schema struct {
	Schema      string            `json:"$schema,omitempty"`
	Title       string            `json:"title,omitempty"`
	Description string            `json:"description,omitempty"`
	Type        string            `json:"type"`
	Format      string            `json:"format,omitempty"`
	Const       string            `json:"const,omitempty"`
	Enum        []string          `json:"enum,omitempty"`
	Items       *schema           `json:"items,omitempty"`
	Properties  map[string]schema `json:"properties,omitempty"`
	Required    []string          `json:"required,omitempty"`
}

// statusSchema describes what `nodeagent status -o json` prints, from the types and the comments
// of their fields. Further properties are allowed: fields may be added to a version.
func statusSchema(checkout string) ([]byte, error) {
	r := &reader{checkout: checkout, tag: "json", docs: map[reflect.Type]map[string]string{}}
	s, err := r.schema(reflect.TypeFor[agent.Status]())
	if err != nil {
		return nil, err
	}
	s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", "nodeagent status -o json, version nodeagent/v1"
	s.Description = "Written by `make generate`. Fields may be added to a version, and readers are to ignore those they do not know; none is renamed or removed."
	version := s.Properties["apiVersion"]
	version.Const = "nodeagent/v1"
	s.Properties["apiVersion"] = version
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err = encoder.Encode(s)
	return out.Bytes(), err
}

func (r *reader) schema(t reflect.Type) (schema, error) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return schema{Type: "string", Format: "date-time"}, nil
	case t.Kind() == reflect.Pointer:
		return r.schema(t.Elem())
	case t.Kind() == reflect.Slice:
		items, err := r.schema(t.Elem())
		return schema{Type: "array", Items: &items}, err
	case t.Kind() == reflect.Struct:
		s := schema{Type: "object", Properties: map[string]schema{}}
		return s, r.properties(t, &s)
	case t.Kind() == reflect.String:
		return schema{Type: "string", Enum: enums[t]}, nil
	case t.Kind() == reflect.Bool:
		return schema{Type: "boolean"}, nil
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return schema{Type: "integer"}, nil
	case t.Kind() == reflect.Float64:
		return schema{Type: "number"}, nil
	}
	return schema{}, fmt.Errorf("no schema for %s", t)
}

// properties adds the fields of a struct, those of an embedded one among them.
func (r *reader) properties(t reflect.Type, s *schema) error {
	docs, err := r.comments(t)
	if err != nil {
		return err
	}
	var errs []error
	for field := range t.Fields() {
		if field.Anonymous {
			errs = append(errs, r.properties(field.Type, s))
			continue
		}
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		p, err := r.schema(field.Type)
		errs = append(errs, err)
		p.Description = docs[field.Name]
		if p.Description == "" {
			errs = append(errs, fmt.Errorf("field %s of %s has no comment", field.Name, t))
		}
		s.Properties[name] = p
		if !strings.HasPrefix(options, "omit") {
			s.Required = append(s.Required, name)
		}
	}
	return errors.Join(errs...)
}
