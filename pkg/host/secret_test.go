package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
)

const secret = "hunter2 and a blank"

func TestReadSecret(t *testing.T) {
	h, _ := inner(t)
	write(t, h, "/etc/good", secret+"\r\n\n", 0o600)
	link(t, h, "good", "etc/link")
	if err := os.Chmod(filepath.Join(h.Root, "etc/good"), 0o400); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/etc/good", "/etc/link"} {
		if got, err := h.ReadSecret(path); err != nil || string(got) != secret {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

func TestReadSecretRefuses(t *testing.T) {
	h, outside := inner(t)
	write(t, h, "/etc/group", secret, 0o640)
	write(t, h, "/etc/world", secret, 0o604)
	write(t, h, "/etc/writable", secret, 0o620)
	write(t, h, "/etc/empty", "\n", 0o600)
	write(t, h, "/etc/large", strings.Repeat(secret, 4000), 0o600)
	mkdir(t, h, "open", 0o777)
	write(t, h, "/open/secret", secret, 0o600)
	link(t, h, "group", "etc/link")
	link(t, h, outside+"/x", "etc/out")
	if err := syscall.Mkfifo(filepath.Join(h.Root, "etc/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/group":    "/etc/group is not safe to go by: others can read or write it (mode 0640); chmod 0600 /etc/group",
		"/etc/world":    "(mode 0604); chmod 0600 /etc/world",
		"/etc/writable": "(mode 0620); chmod 0600 /etc/writable",
		"/etc/link":     "/etc/link is not safe to go by: others can read or write it (mode 0640); chmod 0600 /etc/group",
		"/etc/empty":    "/etc/empty is empty",
		"/etc/large":    "/etc/large is larger than 65536 bytes",
		"/open/secret":  "directory /open is not safe to go by: others can replace what lies in it (mode 0777); chmod go-w /open",
		"/etc/pipe":     "/etc/pipe is not a regular file",
		"/etc":          "/etc is not a regular file",
		"/etc/none":     "no such file",
		"/etc/out":      "no such file",
		"etc/good":      "neither an absolute path nor credential:NAME",
	} {
		got, err := h.ReadSecret(path)
		if got != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "read secret") {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells it: %v", path, err)
		}
	}
}

func TestReadSecretOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make one")
		return
	}
	h, _ := inner(t)
	write(t, h, "/etc/x", secret, 0o600)
	if err := os.Chown(filepath.Join(h.Root, "etc/x"), 4711, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := h.ReadSecret("/etc/x"); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestReadSecretCredential(t *testing.T) {
	h, _ := inner(t)
	h.Offline = false
	write(t, h, "/run/mine/password", secret, 0o400)
	write(t, h, "/run/credentials/nodeagent.service/password", "the unit's", 0o400)

	t.Setenv("CREDENTIALS_DIRECTORY", "/run/mine")
	if got, err := h.ReadSecret("credential:password"); err != nil || string(got) != secret {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if got, err := h.ReadSecret("credential:password"); err != nil || string(got) != "the unit's" {
		t.Errorf("beside the unit: %q, %v", got, err)
	}
	_, err := h.ReadSecret("credential:other")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "LoadCredential=") {
		t.Errorf("absent: %v", err)
	}
	h.Offline = true
	if _, err := h.ReadSecret("credential:password"); err == nil || !strings.Contains(err.Error(), "not a running machine") {
		t.Errorf("in an image: %v", err)
	}
}

func TestValidateSecret(t *testing.T) {
	for source, good := range map[string]bool{
		"/etc/x": true, "credential:x": true, "credential:a.b-c": true,
		"": false, "x": false, "credential:": false, "credential:..": false, "credential:../x": false, "credential:/x": false, "credential:x\x00": false, "credential:x\n": false,
	} {
		if err := host.ValidateSecret(source); (err == nil) != good {
			t.Errorf("%q: %v", source, err)
		}
	}
}

func TestSecretFile(t *testing.T) {
	h, _ := inner(t)
	h.Offline = false
	write(t, h, "/etc/good", secret, 0o600)
	write(t, h, "/etc/world", secret, 0o604)
	link(t, h, "/etc/good", "etc/link")
	write(t, h, "/run/mine/web", secret, 0o400)
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/mine")
	for source, want := range map[string]string{"/etc/good": "etc/good", "/etc/link": "etc/good", "credential:web": "run/mine/web"} {
		if got, err := h.SecretFile(source); err != nil || got != filepath.Join(h.Root, want) {
			t.Errorf("%s: %s, %v", source, got, err)
		}
	}
	for _, source := range []string{"/etc/world", "/etc/none", "credential:none", "relative"} {
		if got, err := h.SecretFile(source); got != "" || err == nil || !strings.HasPrefix(err.Error(), "read secret") {
			t.Errorf("%s: %q, %v", source, got, err)
		}
	}
}
