package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// TestCheckByHand runs what docs/backups.md says of checking a snapshot by hand on a real one: its
// hash is that of the manifest, and its trailer the hash of what is before it. etcd's own program is
// left to the end-to-end test, which has it.
func TestCheckByHand(t *testing.T) {
	root := t.TempDir()
	h := host.New(root)
	write(t, h, "/etc/hostname", "cp1\n")
	write(t, h, "/etc/nodeagent/config.yaml", "role: control-plane\n")
	if err := certstest.Write(root, certstest.Options{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	member, err := etcdtest.Run(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = member.Close() })
	if code := run(t.Context(), []string{"--root", root, "snapshot", "save"}, nil, t.Output(), t.Output()); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	store := filepath.Join(root, "/var/lib/nodeagent/backups")
	files, err := filepath.Glob(filepath.Join(store, "*.db"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	manifest, err := os.ReadFile(etcdbackup.ManifestName(files[0]))
	if err != nil {
		t.Fatal(err)
	}
	var m etcdbackup.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/backups.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "## Check one\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var out []string
	for _, line := range regexp.MustCompile("(?m)^(?:sha256sum|head|tail) .*$").FindAllString(section, -1) {
		line = regexp.MustCompile(`\S+-cp1-\d+\.db`).ReplaceAllString(line, filepath.Base(files[0]))
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", line)
		cmd.Dir = store
		text, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, strings.Fields(string(text))[0])
	}
	if len(out) != 3 || out[0] != m.Object.SHA256 || out[1] != out[2] {
		t.Errorf("the three say %q, the manifest %s", out, m.Object.SHA256)
	}
}
