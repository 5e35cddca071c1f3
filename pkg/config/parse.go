package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// MaxSize is how large a configuration may be, in bytes: far larger than one that a person or a
// tool writes.
const MaxSize = 1 << 20

// Parse reads a configuration from data; name is the file's in complaints. Unknown keys,
// duplicate keys, values of another type and numbers without a unit are errors. All that is
// wrong is reported at once, joined, in the order of the file.
func Parse(name string, data []byte) (Config, error) {
	if len(data) > MaxSize {
		return Config{}, fmt.Errorf("%s: has %d bytes: a configuration has at most %d", name, len(data), MaxSize)
	}
	if err := isText(name, data); err != nil {
		return Config{}, err
	}
	root, err := document(name, data)
	if err != nil {
		return Config{}, err
	}
	cfg := Default()
	w := walker{file: name, lines: map[string]int{}}
	fits := w.mapping(root, reflect.ValueOf(&cfg).Elem(), "")
	if err := decode(fits, &cfg); err != nil {
		return Config{}, errors.Join(w.err(), fmt.Errorf("%s: %w", name, err))
	}
	// Viper lower-cases keys, so what is passed through to kubeadm is taken from the nodes.
	filler := walker{file: name, lines: map[string]int{}, fill: true}
	filler.mapping(root, reflect.ValueOf(&cfg).Elem(), "")
	w.judge(cfg.Validate())
	if err := w.err(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// isText complains of what no text editor writes, where the YAML library names no line.
func isText(name string, data []byte) error {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if !utf8.Valid(line) {
			return fmt.Errorf("%s:%d: is not a text in UTF-8", name, number)
		}
		for _, r := range string(line) {
			if unicode.IsControl(r) && !strings.ContainsRune("\t\r\n\u0085", r) {
				return fmt.Errorf("%s:%d: holds the control character %U", name, number, r)
			}
		}
	}
	return nil
}

// document is the mapping at the top of the file; an empty file is an empty mapping.
func document(name string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, notYAML(name, err)
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
		return nil, notYAML(name, err)
	}
	return doc.Content[0], nil
}

func decode(root *yaml.Node, cfg *Config) error {
	data, err := yaml.Marshal(root)
	if err != nil {
		return err
	}
	// The delimiter keeps viper from splitting keys at dots, which sysctl names have.
	v := viper.NewWithOptions(viper.KeyDelimiter("::"))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return err
	}
	return v.UnmarshalExact(cfg, func(dc *mapstructure.DecoderConfig) {
		dc.TagName = "yaml"
		dc.ZeroFields = true // a list given replaces the default one, it does not overlay it
		dc.DecodeHook = mapstructure.StringToTimeDurationHookFunc()
	})
}

// notYAML is a complaint of the library about the text itself. It counts lines roughly.
func notYAML(name string, err error) error {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if line, rest, ok := strings.Cut(strings.TrimPrefix(what, "line "), ": "); ok && line != "" && strings.Trim(line, "0123456789") == "" {
		name, what = name+":"+line, rest
	}
	if strings.HasPrefix(what, "unknown anchor") { // and it is quoted: it may be a password
		what = "unknown anchor referenced; a value that begins with * needs quotes"
	}
	if strings.Contains(what, "cannot start any token") {
		what += "; is it a tab? Only blanks may indent"
	}
	return fmt.Errorf("%s: is not YAML: %s", name, what)
}
