//go:build integration

// Package backup_test takes backups with the real program and opens them with the programs that an
// operator has: zstd, age, etcd's own.
package backup_test

import (
	"encoding/json"
	"errors"
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
	"github.com/nodeagent/nodeagent/test/docblock"
)

// TestOpenByHand runs what docs/backup-format.md says of opening a backup with stock programs, on a
// real one, with the real programs, which the lab's tools bring.
func TestOpenByHand(t *testing.T) {
	identity := filepath.Join(t.TempDir(), "identity.txt")
	shell(t, t.TempDir(), "age-keygen -o "+identity)
	recipient := strings.TrimSpace(shell(t, t.TempDir(), "age-keygen -y "+identity))

	program := program(t)
	plain := saved(t, program, "role: control-plane\n")
	out := shell(t, plain.dir, plain.commands(t, 0, "set -o pipefail"))
	hashes := regexp.MustCompile(`[0-9a-f]{64}`).FindAllString(out, -1)
	if len(hashes) != 4 || hashes[0] != plain.manifest.Object.SHA256 || hashes[1] != plain.manifest.Snapshot.SHA256 || hashes[2] != hashes[3] {
		t.Errorf("the commands say %q, the manifest %+v", hashes, plain.manifest)
	}

	encrypted := saved(t, program, "role: control-plane\nbackup:\n  recipients: ["+recipient+"]\n")
	out = shell(t, encrypted.dir, encrypted.commands(t, 1, "set -o pipefail; cp "+identity+" identity.txt")+"\nsha256sum snapshot.db")
	if !strings.Contains(out, encrypted.manifest.Snapshot.SHA256) {
		t.Errorf("decrypted by hand it is not the snapshot of the manifest:\n%s", out)
	}
	for _, path := range []string{"etc/kubernetes/pki/ca.key", "etc/kubernetes/pki/etcd/ca.key", "etc/kubernetes/admin.conf", "etc/nodeagent/config.yaml"} {
		if !strings.Contains(out, path+"\n") {
			t.Errorf("%s is not in the archive:\n%s", path, out)
		}
	}

	// The program opens them too, from a store or anywhere: packed, unpacked, without a manifest.
	verify := program + " snapshot verify "
	for command, want := range map[string]string{
		program + " --root " + encrypted.root + " snapshot verify":                        "encrypted, and not opened",
		program + " --root " + encrypted.root + " snapshot verify --identity " + identity: "sha256 as in its manifest",
		verify + "--identity identity.txt ./" + encrypted.manifest.Object.Name:            "sha256 as in its manifest",
		"cp *.db.zst.age x; " + verify + "--identity identity.txt x":                      "sha256 as at its end",
		verify + "snapshot.db":                                          "sha256 as at its end",
		verify + plain.dir + "/" + plain.manifest.Object.Name:           "sha256 as in its manifest",
		"! " + verify + "./" + encrypted.manifest.Object.Name + " 2>&1": "no identity",
	} {
		if out := shell(t, encrypted.dir, command); !strings.Contains(out, want) {
			t.Errorf("%s: %s, want %q", command, out, want)
		}
	}
}

// backup is one that the program has saved below a root of its own.
type backup struct {
	root     string
	dir      string // of the store
	manifest etcdbackup.Manifest
}

func saved(t *testing.T, program, config string) backup {
	t.Helper()
	root := t.TempDir()
	h := host.New(root)
	for path, text := range map[string]string{"/etc/hostname": "cp1\n", "/etc/nodeagent/config.yaml": config} {
		if err := errors.Join(h.MkdirAll(filepath.Dir(path), 0o755), h.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := certstest.Write(root, certstest.Options{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	member, err := etcdtest.Run(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = member.Close() })
	shell(t, root, program+" --root "+root+" snapshot save")
	b := backup{root: root, dir: filepath.Join(root, "/var/lib/nodeagent/backups")}
	manifests, err := filepath.Glob(filepath.Join(b.dir, "*.json"))
	if err != nil || len(manifests) != 1 {
		t.Fatalf("%v, %v", manifests, err)
	}
	data, err := os.ReadFile(manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &b.manifest); err != nil {
		t.Fatal(err)
	}
	return b
}

// commands are the nth block of the documentation, about this backup.
func (b backup) commands(t *testing.T, nth int, before string) string {
	t.Helper()
	blocks := docblock.Blocks(t, "docs/backup-format.md", "Open one with stock programs", "sh")
	if len(blocks) != 2 {
		t.Fatalf("there are %d blocks of commands", len(blocks))
	}
	stem, _, _ := strings.Cut(b.manifest.Object.Name, ".db")
	return before + "\n" + strings.ReplaceAll(blocks[nth].Text, "20261121T122454Z-cp1-4711", stem)
}

func shell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/bash", "-euc", script)
	cmd.Dir, cmd.Stderr = dir, t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}
