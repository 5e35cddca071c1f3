package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
)

// Parse reads a configuration from data; name is the file's in complaints. Unknown keys,
// duplicate keys, values of another type and numbers without a unit are errors. All that is
// wrong is reported at once, joined, in the order of the file.
func Parse(name string, data []byte) (Config, error) {
	cfg := Default()
	root, err := document(name, data)
	if err != nil {
		return Config{}, err
	}
	w := walker{file: name, lines: map[string]int{}}
	w.mapping(root, reflect.ValueOf(&cfg).Elem(), "")
	if len(w.problems) > 0 {
		return Config{}, errors.Join(w.problems...)
	}
	if err := decode(data, &cfg); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	// Viper lower-cases keys, so what is passed through to kubeadm is taken from the nodes.
	w.fill = true
	w.mapping(root, reflect.ValueOf(&cfg).Elem(), "")
	if err := cfg.Validate(); err != nil {
		return Config{}, w.locate(err)
	}
	return cfg, nil
}

// document is the mapping at the top of the file; an empty file is an empty mapping.
func document(name string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if doc.Kind == 0 || len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, nil
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: the file must be a mapping of keys to values", name, doc.Content[0].Line)
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("%s:%d: the file holds more than one YAML document", name, second.Line)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return doc.Content[0], nil
}

func decode(data []byte, cfg *Config) error {
	// The delimiter keeps viper from splitting keys at dots, which sysctl names have.
	v := viper.NewWithOptions(viper.KeyDelimiter("::"))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return err
	}
	return v.UnmarshalExact(cfg, func(dc *mapstructure.DecoderConfig) {
		dc.TagName = "yaml"
		dc.ZeroFields = true // a list given replaces the default one, it does not overlay it
		dc.DecodeHook = mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), dropPassthrough)
	})
}

func dropPassthrough(_, to reflect.Type, value any) (any, error) {
	if to == reflect.TypeFor[bootstrap.Passthrough]() {
		return bootstrap.Passthrough{}, nil
	}
	return value, nil
}
