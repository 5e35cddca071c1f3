//go:build integration

package deb_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/docblock"
	"github.com/nodeagent/nodeagent/test/lab"
)

// playTimeout bounds one run of the playbook, which itself would wait for twenty minutes.
const playTimeout = 5 * time.Minute

// inventory and ansibleConfig are the reader's own part. Files go the way of the commands: there is
// no sftp.
const (
	inventory     = "[kubernetes]\nnode1 ansible_connection=ssh ansible_user=root\n"
	ansibleConfig = `[defaults]
inventory = hosts
[ssh_connection]
ssh_executable = %s/ssh
transfer_method = piped
pipelining = true
`
)

// fakeSSH stands for ssh, and for sshd, which the machine has not: the last argument is for a shell there.
const fakeSSH = `#!/bin/sh
for command; do :; done
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin %s /bin/sh -c "$command"
`

// playbook is a directory with the playbook of docs/install.md, as it stands there, and what it names.
type playbook string

func newPlaybook(t *testing.T, n node, deb string) playbook {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"site.yaml":   docblock.Text(t, "docs/install.md", "By Ansible", "yaml"),
		"hosts":       inventory,
		"ansible.cfg": fmt.Sprintf(ansibleConfig, dir),
		"ssh":         fmt.Sprintf(fakeSSH, strings.Join(n.Enter(), " ")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(deb, filepath.Join(dir, shownPackage)); err != nil {
		t.Fatal(err)
	}
	return playbook(dir)
}

var recap = regexp.MustCompile(`(?m)^node1 +: (ok=\d+ +changed=\d+ +unreachable=\d+ +failed=\d+)`)

// play runs the playbook to its end and returns the counts of its recap. waits is called once, when it
// has found that the node is not ready.
func (p playbook) play(t *testing.T, waits func()) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), playTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ansible-playbook", "site.yaml")
	cmd.Dir = string(p)
	// Nothing of this host's own settings, and nothing left in its home. Into a pipe Ansible would say
	// that it waits only when it no longer does.
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + string(p), "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "ANSIBLE_CONFIG=" + string(p) + "/ansible.cfg",
	}
	// It has children for its hosts: kill the group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20) // what a module has said is one line
	for lines.Scan() {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), "RETRYING: [node1]: the node is ready") && waits != nil {
			waits()
			waits = nil
		}
	}
	err = cmd.Wait()
	t.Logf("%s", said.String())
	if err != nil {
		t.Fatalf("ansible-playbook: %v", err)
	}
	if waits != nil {
		t.Error("the playbook did not wait for the node")
	}
	m := recap.FindStringSubmatch(said.String())
	if m == nil {
		t.Fatal("the playbook has no recap")
	}
	return strings.Join(strings.Fields(m[1]), " ")
}

// byAnsible runs the playbook of docs/install.md on a fresh machine, and once more. No container becomes
// a node: the playbook waits for it as it should, until the test says for the agent that it is one.
func byAnsible(t *testing.T, n node, deb string) {
	n.Script(t, lab.UseRepositories(labDir)) // Ansible installs python3-apt, which it needs there
	p := newPlaybook(t, n, deb)
	const ready = "curl -s http://127.0.0.1:10980/readyz"
	first := p.play(t, func() {
		n.Wait(t, patience, ready+" | grep -Fx 'the bootstrap is not complete'")
		n.Script(t, "cp /etc/machine-id /var/lib/nodeagent/bootstrapped; systemctl restart nodeagent")
	})
	if want := "ok=6 changed=4 unreachable=0 failed=0"; first != want {
		t.Errorf("on a fresh machine: %s, want %s", first, want)
	}
	n.expect(t, "ActiveState=active", "UnitFileState=enabled")
	if out := n.Script(t, ready+"; nodeagent version; stat -c '%a %U' /etc/nodeagent /etc/nodeagent/config.yaml"); !strings.HasPrefix(out, "ok\n") ||
		!strings.Contains(out, newVersion) || !strings.HasSuffix(out, "\n750 root\n600 root\n") {
		t.Errorf("installed is\n%s", out)
	}
	if out := n.Script(t, "cat "+configPath); out != "role: control-plane\nnetwork:\n  cni: bridge\n" {
		t.Errorf("the configuration is %q", out)
	}
	pid := n.show(t, "MainPID")
	if again, want := p.play(t, nil), "ok=6 changed=0 unreachable=0 failed=0"; again != want {
		t.Errorf("once more: %s, want %s", again, want)
	}
	n.expect(t, "MainPID="+pid)
}
