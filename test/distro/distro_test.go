package distro_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kernel"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

var update = flag.Bool("update", false, "write the golden files")

// prepares are the steps that bring a host to what kubeadm wants, but for packages.
func prepares(h *host.Host, m *manager) []step.Step {
	return []step.Step{
		kernel.Swap(h, m.swap()),
		kernel.Modules(h, false, nil),
		kernel.Sysctls(h, true, nil),
	}
}

// plan is what the steps find, a line each; "!" stands before what only a person can mend.
func plan(t *testing.T, steps []step.Step) string {
	t.Helper()
	var out strings.Builder
	for _, r := range step.Plan(t.Context(), steps, nil) {
		fmt.Fprintf(&out, "%s: %s\n", r.Step, r.Outcome)
		if r.Err != nil {
			fmt.Fprintf(&out, "  %v\n", r.Err)
		}
		for _, c := range r.Changes {
			mark := " "
			if c.Manual {
				mark = "!"
			}
			fmt.Fprintf(&out, " %s%s\n", mark, c)
		}
	}
	return out.String()
}

// Each distribution as its installer, its cloud image and its packages that make swap leave it:
// what is planned is as the golden file has it, the steps converge, and everything that is not
// theirs is as it was, byte for byte.
func TestDistributions(t *testing.T) {
	for _, distribution := range slices.Sorted(maps.Keys(distributions)) {
		for _, layer := range layers {
			t.Run(distribution+" "+layer, func(t *testing.T) {
				t.Parallel()
				var have strings.Builder
				for _, kind := range []struct {
					name string
					make func(*testing.T, string, string) *host.Host
				}{{"image", image}, {"running", running}} {
					h := kind.make(t, distribution, layer)
					m := newManager(t, h)
					preflight := bootstrap.Preflight(h, bootstrap.ControlPlane, nil, m.preflight())
					before := tree(t, h.Root)
					fmt.Fprintf(&have, "# %s\n%s", kind.name, plan(t, append([]step.Step{preflight}, prepares(h, m)...)))
					if diff := cmp.Diff(before, tree(t, h.Root), cmp.AllowUnexported(entry{})); diff != "" {
						t.Errorf("plan has changed files:\n%s", diff)
					}
					for _, s := range prepares(h, m) {
						steptest.Converges(t, h, s)
					}
					after := tree(t, h.Root)
					onlyOurs(t, before, after)
					fmt.Fprintf(&have, "# %s, applied\n%s", kind.name, plan(t, prepares(h, m)))
				}
				golden(t, filepath.Join("testdata", distribution, layer+".plan"), have.String())
			})
		}
	}
}

func golden(t *testing.T, path, have string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), have); diff != "" {
		t.Errorf("%s (- wanted, + found; -update writes it):\n%s", path, diff)
	}
}

// onlyOurs fails the test for every difference that is none of those that the steps may make:
// files named after the agent, masks, links that started a unit at boot, and in fstab the mark
// before a line.
func onlyOurs(t *testing.T, before, after map[string]entry) {
	t.Helper()
	const mark, kept = "# swap off by nodeagent: ", "/var/lib/nodeagent/originals"
	for _, path := range sorted(before, after) {
		was, old := before[path]
		is, now := after[path]
		switch {
		case was == is:
		case path == "/etc/fstab":
			if is.mode != was.mode || strings.ReplaceAll(is.text, mark, "") != was.text {
				t.Errorf("fstab was %v %q\nand is %v %q", was.mode, was.text, is.mode, is.text)
			}
			for line := range strings.Lines(is.text) {
				if entry, ours := strings.CutPrefix(line, mark); ours && !strings.Contains(entry, "swap") {
					t.Errorf("commented out: %q", entry)
				}
			}
		case !old && path == kept+"/etc/fstab":
			if is.text != before["/etc/fstab"].text {
				t.Errorf("the original that was kept is %q", is.text)
			}
		case !old && strings.Contains(filepath.Base(path), "nodeagent"):
		case !old && is.text == "/dev/null" && filepath.Dir(path) == "/etc/systemd/system":
		case !now && filepath.Dir(path) == "/etc/systemd/system/multi-user.target.wants":
		default:
			t.Errorf("%s was %+v and is %+v", path, was, is)
		}
	}
}

// A file written by ufw itself, and the zone and services that Debian's firewalld brings.
func TestFirewalls(t *testing.T) {
	rules, err := os.ReadFile("testdata/ufw-user.rules")
	if err != nil {
		t.Fatal(err)
	}
	find := func(t *testing.T, h *host.Host, role bootstrap.Role, active ...string) string {
		m := newManager(t, h)
		m.active = active
		changes, err := bootstrap.Preflight(h, role, nil, m.preflight()).Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range changes {
			out = append(out, c.Have)
		}
		return strings.Join(out, "; ")
	}
	for _, distribution := range slices.Sorted(maps.Keys(distributions)) {
		t.Run(distribution, func(t *testing.T) {
			h := running(t, distribution, "cloud")
			want := func(role bootstrap.Role, want string, active ...string) {
				t.Helper()
				if have := find(t, h, role, active...); have != want {
					t.Errorf("found %q\nwant %q", have, want)
				}
			}
			want(bootstrap.ControlPlane, "")
			const drops = "; ufw is enabled and drops what is forwarded"
			put(t, h.Root, "etc/ufw/ufw.conf", "ENABLED=yes\n")
			want(bootstrap.ControlPlane, "ufw is enabled and lets no one reach 2379, 2380, 6443, 10250, 10256"+drops)
			put(t, h.Root, "etc/ufw/user.rules", string(rules))
			want(bootstrap.ControlPlane, "ufw is enabled and lets no one reach 10256"+drops)
			want(bootstrap.Etcd, "")
			put(t, h.Root, "etc/ufw/ufw.conf", "ENABLED=no\n")
			if !strings.HasPrefix(distribution, "debian") {
				return
			}
			const zone = "firewalld is active and its zone public lets no one reach "
			want(bootstrap.Worker, zone+"10250, 10256", "firewalld.service")
			public, err := h.ReadFile("/usr/lib/firewalld/zones/public.xml")
			if err != nil {
				t.Fatal(err)
			}
			put(t, h.Root, "etc/firewalld/zones/public.xml", strings.Replace(string(public), "<forward/>",
				`<service name="kube-control-plane"/><service name="kubelet"/><port port="10256" protocol="tcp"/><forward/>`, 1))
			want(bootstrap.ControlPlane, "", "firewalld.service")
		})
	}
}
