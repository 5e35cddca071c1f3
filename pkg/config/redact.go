package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const redacted = "REDACTED"

// userInfo is the name and password in a URL.
var userInfo = regexp.MustCompile(`(://)[^/@\s]+@`)

// secretKeys are keys whose values are secrets wherever they are: the agent's own name files,
// and what is passed through to kubeadm may hold them (bootstrapTokens, certificateKey).
var secretKeys = []string{"token", "certificatekey", "password", "passphrase", "secret", "secretkey", "privatekey"}

// Print is the effective configuration as YAML: every default is in it, and no secret.
func (c Config) Print() ([]byte, error) {
	var root yaml.Node
	if err := root.Encode(c); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	redact(&root)
	var out strings.Builder
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&root); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return []byte(out.String()), nil
}

// redact replaces secrets in a tree of nodes. What is passed through is copied: it is the
// configuration's own.
func redact(node *yaml.Node) {
	node.Content = slices.Clone(node.Content)
	for i, child := range node.Content {
		clone := *child
		node.Content[i] = &clone
		if node.Kind == yaml.MappingNode && i%2 == 1 && clone.Kind == yaml.ScalarNode && clone.Value != "" &&
			slices.Contains(secretKeys, strings.ToLower(node.Content[i-1].Value)) {
			clone.Value, clone.Tag, clone.Style = redacted, "!!str", 0
		}
		if clone.Kind == yaml.ScalarNode {
			clone.Value = userInfo.ReplaceAllString(clone.Value, "${1}"+redacted+"@")
		}
		redact(&clone)
	}
}
