package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/config"
)

// notOurs begins a block of YAML that is for another program: cloud-init, Ansible, Prometheus, and
// exporter-toolkit.
var notOurs = regexp.MustCompile(`(?m)^(#cloud-config|- hosts:|scrape_configs:|tls_server_config:)`)

// TestConfigurationsInDocs: what the documents show of a configuration is one, or would be with a role.
func TestConfigurationsInDocs(t *testing.T) {
	found := 0
	for _, d := range documents(t) {
		for _, b := range d.Blocks {
			if b.Language != "yaml" || notOurs.MatchString(b.Text) {
				continue
			}
			found++
			text := b.Text
			if !strings.Contains(text, "role: ") {
				text = "role: control-plane\n" + text
			}
			if _, err := config.Parse("config.yaml", []byte(text)); err != nil {
				t.Errorf("%s:%d: %v", d.Path, b.Line, err)
			}
		}
	}
	if found < 9 {
		t.Errorf("only %d configurations: are these the docs?", found)
	}
}
