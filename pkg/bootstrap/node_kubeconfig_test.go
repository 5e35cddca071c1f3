package bootstrap

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

const aliceConfig = "/home/alice/.kube/config"

// kubeconfigHost has a real admin.conf, and the users alice and bob with a home each.
func kubeconfigHost(t *testing.T) *host.Host {
	t.Helper()
	h := &host.Host{Root: t.TempDir()}
	renewAdmin(t, h)
	passwd := "root:x:0:0:root:/root:/bin/bash\n"
	for _, name := range []string{"alice", "bob"} {
		home := filepath.Join(h.Root, "home", name)
		if err := os.MkdirAll(home, 0o755); err != nil {
			t.Fatal(err)
		}
		id := os.Getuid()
		if id == 0 {
			id = 12345
			if err := os.Chown(home, id, id); err != nil {
				t.Fatal(err)
			}
		}
		passwd += strings.ReplaceAll(name+":x:ID:ID::/home/"+name+":/bin/sh\n", "ID", strconv.Itoa(id))
	}
	put(t, h, "/etc/passwd", passwd, 0o644)
	return h
}

func renewAdmin(t *testing.T, h *host.Host) {
	t.Helper()
	made := t.TempDir()
	if err := certstest.Write(made, certstest.Options{Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadFile(filepath.Join(made, AdminConf))
	if err != nil {
		t.Fatal(err)
	}
	if had, err := h.ReadFile(AdminConf); err == nil { // as renewal does: the same authority
		fresh = []byte(strings.Replace(string(fresh), authority(t, fresh), authority(t, had), 1))
	}
	put(t, h, AdminConf, string(fresh), 0o600)
}

func authority(t *testing.T, kubeconfig []byte) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(kubeconfig), "certificate-authority-data:")
	if !ok {
		t.Fatal("no authority")
	}
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func have(t *testing.T, h *host.Host, path string) string {
	t.Helper()
	data, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func wantThere(t *testing.T, h *host.Host, path string, want bool) {
	t.Helper()
	if there, err := h.Exists(path); err != nil || there != want {
		t.Errorf("%s is there: %v, %v", path, there, err)
	}
}

// inHome puts a file that belongs to the user into alice's home.
func inHome(t *testing.T, h *host.Host, text string) {
	t.Helper()
	u, err := h.LookupUser("alice")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.WriteInHome(u, ".kube", "config", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAdminKubeconfigs(t *testing.T) {
	h := kubeconfigHost(t)
	s := AdminKubeconfigs(h, []string{"alice", "bob"})
	steptest.Converges(t, h, s)
	admin := have(t, h, AdminConf)
	for _, path := range []string{aliceConfig, "/home/bob/.kube/config"} {
		if have(t, h, path) != admin {
			t.Errorf("%s is no copy", path)
		}
		u, err := h.LookupUser("alice")
		if err != nil {
			t.Fatal(err)
		}
		file, err := h.ReadInHome(u, ".kube", "config", maxKubeconfig)
		if err != nil || file.Mode != 0o600 || file.UID != u.UID || file.GID != u.GID {
			t.Errorf("mode %v, owner %d:%d, %v", file.Mode, file.UID, file.GID, err)
		}
	}

	// It follows a renewal.
	renewAdmin(t, h)
	if have(t, h, AdminConf) == admin {
		t.Fatal("nothing was renewed")
	}
	changes, err := s.Check(t.Context())
	if err != nil || len(changes) != 2 || changes[0].Have != "a copy of an earlier /etc/kubernetes/admin.conf" || changes[0].Manual {
		t.Errorf("%v, %v", changes, err)
	}
	steptest.Converges(t, h, s)
	if have(t, h, aliceConfig) != have(t, h, AdminConf) {
		t.Error("the copy did not follow")
	}

	// A mode that somebody has opened is closed.
	if err := os.Chmod(filepath.Join(h.Root, aliceConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	steptest.Converges(t, h, s)

	// Who is taken off the list loses it, and nobody else does.
	s = AdminKubeconfigs(h, []string{"bob"})
	steptest.Converges(t, h, s)
	wantThere(t, h, aliceConfig, false)
	wantThere(t, h, "/home/bob/.kube/config", true)
	steptest.Converges(t, h, AdminKubeconfigs(h, nil))
	wantThere(t, h, "/home/bob/.kube/config", false)
	wantThere(t, h, kubeconfigUsers, false)
}

// What is not the agent's stays as it is, and the finding says what to do.
func TestAdminKubeconfigsLeavesOthersAlone(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, h *host.Host) // of alice's home
		user    string
		want    string // of the finding; "" for none
	}{
		"another cluster": {func(t *testing.T, h *host.Host) {
			inHome(t, h, strings.Replace(have(t, h, AdminConf), authority(t, []byte(have(t, h, AdminConf))), " b3RoZXI=", 1))
		}, "alice", "`mv " + aliceConfig + " " + aliceConfig + ".before` and `nodeagent apply`"},
		"no kubeconfig at all": {func(t *testing.T, h *host.Host) { inHome(t, h, "notes: [") }, "alice", "a file that is not the agent's"},
		"an earlier copy with a context of their own": {func(t *testing.T, h *host.Host) {
			inHome(t, h, strings.Replace(have(t, h, AdminConf), "contexts:", "contexts:\n- context: {cluster: x, user: y}\n  name: mine", 1))
			renewAdmin(t, h)
		}, "alice", "a file that is not the agent's"},
		"the copy with a context of their own": {func(t *testing.T, h *host.Host) {
			inHome(t, h, strings.Replace(have(t, h, AdminConf), "contexts:", "contexts:\n- context: {cluster: x, user: y}\n  name: mine", 1))
		}, "alice", ""},
		"a link": {func(t *testing.T, h *host.Host) {
			inHome(t, h, "")
			at := filepath.Join(h.Root, aliceConfig)
			if err := errors.Join(os.Remove(at), os.Symlink("/etc/kubernetes/admin.conf", at)); err != nil {
				t.Fatal(err)
			}
		}, "alice", "symbolic link"},
		"a linked directory": {func(t *testing.T, h *host.Host) {
			if err := os.Symlink("/etc/kubernetes", filepath.Join(h.Root, "/home/alice/.kube")); err != nil {
				t.Fatal(err)
			}
		}, "alice", "is not the user's own"},
		"no home": {func(t *testing.T, h *host.Host) {
			if err := os.Remove(filepath.Join(h.Root, "/home/alice")); err != nil {
				t.Fatal(err)
			}
		}, "alice", "is not the user's own"},
		"no user": {func(*testing.T, *host.Host) {}, "carol", "take the name off node.adminKubeconfigFor"},
	} {
		t.Run(name, func(t *testing.T) {
			h := kubeconfigHost(t)
			test.prepare(t, h)
			before, _ := h.ReadFile(aliceConfig)
			admin := have(t, h, AdminConf)
			results, err := step.Apply(t.Context(), []step.Step{AdminKubeconfigs(h, []string{test.user})}, nil)
			if err != nil || results[0].Outcome != step.Clean {
				t.Fatalf("%v, %v", results, err)
			}
			found := results[0].Findings()
			if len(found) > 1 || (len(found) == 1) != (test.want != "") || len(found) == 1 && !strings.Contains(found[0].Have+found[0].Want, test.want) {
				t.Errorf("found %v, want %q", found, test.want)
			}
			if after, _ := h.ReadFile(aliceConfig); string(after) != string(before) {
				t.Errorf("it was changed to\n%s", after)
			}
			if have(t, h, AdminConf) != admin {
				t.Error("admin.conf was changed")
			}
			wantThere(t, h, "/etc/kubernetes/config", false)
			for _, c := range found {
				if strings.Contains(c.String(), "-data:") {
					t.Error("a finding quotes a kubeconfig")
				}
			}
			// Taken off the list, nothing of theirs goes.
			if _, err := step.Apply(t.Context(), []step.Step{AdminKubeconfigs(h, nil)}, nil); err != nil {
				t.Error(err)
			}
			if after, _ := h.ReadFile(aliceConfig); string(after) != string(before) {
				t.Errorf("it was changed to\n%s", after)
			}
		})
	}
}

// A copy that its user has made their own stays when they are taken off the list; so does a home
// that is gone stop nothing. The agent forgets both.
func TestAdminKubeconfigsForgets(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, h *host.Host){
		"changed":  func(t *testing.T, h *host.Host) { inHome(t, h, have(t, h, AdminConf)+"preferences: {colors: true}\n") },
		"removed":  func(t *testing.T, h *host.Host) { remove(t, h, aliceConfig) },
		"user":     func(t *testing.T, h *host.Host) { put(t, h, "/etc/passwd", "", 0o644) },
		"not ours": func(t *testing.T, h *host.Host) { inHome(t, h, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			h := kubeconfigHost(t)
			steptest.Converges(t, h, AdminKubeconfigs(h, []string{"alice"}))
			change(t, h)
			before, _ := h.ReadFile(aliceConfig)
			steptest.Converges(t, h, AdminKubeconfigs(h, nil))
			if after, _ := h.ReadFile(aliceConfig); string(after) != string(before) {
				t.Errorf("it was changed to\n%s", after)
			}
			wantThere(t, h, kubeconfigUsers, false)
		})
	}
}

func TestAdminKubeconfigsWaits(t *testing.T) {
	h := kubeconfigHost(t)
	put(t, h, AdminConf, "", 0o600)
	_, err := AdminKubeconfigs(h, []string{"alice"}).Check(t.Context())
	wantError(t, err, "check kubeconfig /etc/kubernetes/admin.conf: it is empty")
	remove(t, h, AdminConf)
	_, err = AdminKubeconfigs(h, []string{"alice"}).Check(t.Context())
	if !errors.Is(err, step.Blocked{On: "kubeadm/kubeconfig"}) {
		t.Errorf("no admin.conf: %v", err)
	}
	h.Offline = true
	if _, err = AdminKubeconfigs(h, []string{"alice"}).Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) {
		t.Errorf("an image: %v", err)
	}
	if changes, err := AdminKubeconfigs(h, nil).Check(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("nobody: %v, %v", changes, err)
	}
}
