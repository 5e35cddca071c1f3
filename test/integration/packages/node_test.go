//go:build integration

// Package packages_test installs packages with the real program, systemd, apt and dpkg, from
// signed repositories over file and https.
package packages_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/nspawn"
)

const (
	buildTimeout = 15 * time.Minute
	patience     = time.Minute
	configPath   = "/etc/nodeagent/config.yaml"
	note         = "/var/lib/nodeagent/packages-in-progress"
	log          = "/var/log/nodeagent/packages.log"
	// The repositories of the lab, and one that a test has made, as the machine sees them.
	labDir  = "/srv/lab"
	testDir = "/srv/test"
)

// build is what the tests share.
type build struct{ program, rootfs, repository string }

func buildAll(t *testing.T) build {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	rootfs, err := lab.Rootfs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "nodeagent")
	compile := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/nodeagent")
	compile.Dir = "../../.."
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	compile.WaitDelay = 5 * time.Second
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	return build{program, filepath.Join(rootfs, "rootfs"), repository}
}

// node is a machine with the agent, without packages, whose only source of apt is the lab's
// stand-in for the distribution. Its lists are not there yet.
type node struct {
	*nspawn.Machine
	own string // this process's name for testDir, where a test may make a repository
}

func (b build) node(t *testing.T) node {
	t.Helper()
	own := t.TempDir()
	if err := os.Chmod(own, 0o755); err != nil {
		t.Fatal(err)
	}
	n := node{nspawn.Up(t, b.rootfs, nspawn.Bind{Source: b.repository, Target: labDir}, nspawn.Bind{Source: own, Target: testDir}), own}
	n.CopyIn(t, b.program, "/usr/bin/nodeagent")
	n.Script(t, `rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
install -D -m 644 `+labDir+`/debian/Release.key /etc/apt/keyrings/lab-debian.asc
echo "deb [signed-by=/etc/apt/keyrings/lab-debian.asc] file:`+labDir+`/debian /" >/etc/apt/sources.list.d/lab-debian.list`)
	return n
}

// configure writes the section "packages".
func (n node) configure(t *testing.T, packages string) {
	t.Helper()
	n.Write(t, configPath, []byte("role: worker\npackages: {"+packages+"}\n"), 0o600)
}

func fromFile(dir string) string { return `repository: {url: "file://` + dir + `"}` }

const apply = "nodeagent apply --only packages 2>&1"

// apply installs, and nothing is left to do afterwards.
func (n node) apply(t *testing.T) string {
	t.Helper()
	out := n.Script(t, apply)
	n.clean(t)
	return out
}

// clean says that nothing is left to do, nothing that only a person can mend either.
func (n node) clean(t *testing.T) {
	t.Helper()
	steps := n.Script(t, "if grep -q archives "+configPath+"; then echo 3; else echo 2; fi")
	if out := n.Script(t, "nodeagent plan --only packages"); out != strings.TrimSpace(steps)+" steps checked, nothing to change\n" {
		t.Errorf("after apply plan says\n%s", out)
	}
	n.Script(t, "test ! -e "+note)
	if out := n.Script(t, "dpkg --audit"); out != "" {
		t.Errorf("dpkg --audit: %s", out)
	}
}

// refuse is an apply that fails and says all of words. Nothing of Kubernetes is installed.
func (n node) refuse(t *testing.T, words ...string) string {
	t.Helper()
	out, err := n.TryScript(apply)
	if code := nspawn.ExitCode(err); code != 1 {
		t.Errorf("apply exits with %d", code)
	}
	for _, word := range words {
		if !strings.Contains(out, word) {
			t.Errorf("it does not say %q:\n%s", word, out)
		}
	}
	n.Script(t, "! dpkg-query -W -f '${db:Status-Status}' kubelet kubeadm kubectl 2>/dev/null | grep -q installed")
	return out
}

// wantVersion checks the version of the Kubernetes packages, and that all are held.
func (n node) wantVersion(t *testing.T, version string) {
	t.Helper()
	want := ""
	for _, name := range []string{"kubeadm", "kubectl", "kubelet"} {
		want += fmt.Sprintf("%s hold ok installed %s\n", name, version)
	}
	if out := n.Script(t, `dpkg-query -W -f '${Package} ${Status} ${Version}\n' kubeadm kubectl kubelet`); out != want {
		t.Errorf("installed are\n%swant\n%s", out, want)
	}
}

// installed says how often dpkg unpacked a package.
func (n node) installed(t *testing.T, name string) int {
	t.Helper()
	return strings.Count(n.Script(t, "cat /var/log/dpkg.log"), " install "+name+":")
}

// small are packages of the right names with next to nothing in them.
func small(version string) []lab.Deb {
	var debs []lab.Deb
	for _, name := range []string{"kubelet", "kubeadm", "kubectl"} {
		debs = append(debs, lab.Deb{
			Name: name, Version: version, Description: "small",
			Fields: "Maintainer: nobody <nobody@nodeagent.invalid>\n",
			Files:  []lab.DebFile{{Path: "/usr/bin/" + name, Content: "#!/bin/sh\necho " + version + "\n", Mode: 0o755}},
		})
	}
	return debs
}

func containerd() lab.Deb {
	return lab.Deb{
		Name: "containerd", Version: "1.7.0-1", Description: "small", Fields: "Maintainer: nobody <nobody@nodeagent.invalid>\n",
		Files: []lab.DebFile{{Path: "/usr/bin/containerd", Content: "#!/bin/sh\n", Mode: 0o755}},
	}
}

// pack writes packages to a directory of its own.
func pack(t *testing.T, debs ...lab.Deb) []string {
	t.Helper()
	dir, files := t.TempDir(), []string{}
	for _, d := range debs {
		file, err := d.Write(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func newKey(t *testing.T) lab.Key {
	t.Helper()
	key, err := lab.NewKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// publish makes testDir a repository of the packages.
func (n node) publish(t *testing.T, key lab.Key, debs ...lab.Deb) {
	t.Helper()
	if err := lab.WriteRepository(t.Context(), n.own, pack(t, debs...), key); err != nil {
		t.Fatal(err)
	}
}

// edit changes a file of testDir.
func (n node) edit(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(n.own, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := change(data)
	if bytes.Equal(changed, data) {
		t.Fatalf("%s is not changed", name)
	}
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		t.Fatal(err)
	}
}
