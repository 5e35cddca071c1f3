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

// secretVariable is the name of an environment variable (extraEnvs) that holds a secret. The
// arguments of Kubernetes' programs name files instead.
var secretVariable = regexp.MustCompile(`(?i)_(token|key|secret|password|passphrase|credentials?)$|password|secret_`)

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

// Secrets are the paths of the values that Print does not show: what is passed through to
// kubeadm may hold tokens and keys.
func (c Config) Secrets() []string {
	var root yaml.Node
	if err := root.Encode(c); err != nil {
		return nil // Print says why
	}
	return secretPaths(&root, "")
}

func secretPaths(node *yaml.Node, at string) []string {
	var paths []string
	for i, child := range node.Content {
		path := at
		switch node.Kind {
		case yaml.SequenceNode:
			path = fmt.Sprintf("%s[%d]", at, i)
		case yaml.MappingNode:
			if i%2 == 0 {
				continue
			}
			path = strings.TrimPrefix(at+"."+node.Content[i-1].Value, ".")
		}
		if isSecret(node, i) || userInfo.MatchString(child.Value) {
			paths = append(paths, path)
		}
		paths = append(paths, secretPaths(child, path)...)
	}
	return paths
}

// isSecret says whether the i-th thing in a mapping is a value that is a secret: that of a key
// which says so, or of an environment variable whose name does.
func isSecret(mapping *yaml.Node, i int) bool {
	value := mapping.Content[i]
	if mapping.Kind != yaml.MappingNode || i%2 == 0 || value.Kind != yaml.ScalarNode || value.Value == "" {
		return false
	}
	key := strings.ToLower(mapping.Content[i-1].Value)
	if key != "value" {
		return slices.Contains(secretKeys, key)
	}
	named := indexOf(mapping, "name")
	return named >= 0 && secretVariable.MatchString(mapping.Content[named].Value)
}

// indexOf is where the value of a key is in a mapping, or -1.
func indexOf(mapping *yaml.Node, key string) int {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return i + 1
		}
	}
	return -1
}

// redact replaces secrets in a tree of nodes. What is passed through is copied: it is the
// configuration's own.
func redact(node *yaml.Node) {
	node.Content = slices.Clone(node.Content)
	for i, child := range node.Content {
		clone := *child
		if isSecret(node, i) {
			clone.Value, clone.Tag, clone.Style = redacted, "!!str", 0
		} else if clone.Kind == yaml.ScalarNode {
			clone.Value = userInfo.ReplaceAllString(clone.Value, "${1}"+redacted+"@")
		}
		node.Content[i] = &clone
		redact(&clone)
	}
}
