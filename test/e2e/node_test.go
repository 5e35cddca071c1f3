//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/lab"
	"github.com/nodeagent/nodeagent/test/vm"
)

//go:embed testdata/config.yaml
var configuration []byte

const configPath = "/etc/nodeagent/config.yaml"

// TestFreshNode is the life of one machine: installed, made a node by the daemon alone, looked
// at from all sides, rebooted, adopted; then put back into the middle of kubeadm's phases, killed
// there, and made a node all the same.
func TestFreshNode(t *testing.T) {
	ctx, cancel := untilDeadline(t)
	defer cancel()
	v := boot(ctx, t)
	story(ctx, t, v, []chapter{
		{"a fresh machine", time.Minute, isFresh, true},
		{"apt installs the package", 3 * time.Minute, install, true},
		{"the daemon runs the phases of kubeadm init", 25 * time.Minute, initializes, true},
		{"the node becomes ready", 10 * time.Minute, becomesReady, true},
		{"the host is as Kubernetes wants it", 2 * time.Minute, hostIsPrepared, false},
		{"pods run", 8 * time.Minute, podsRun, false},
		{"a scheduled snapshot restores", 6 * time.Minute, snapshotRestores, false},
		{"certificates", 4 * time.Minute, certificatesAgree, false},
		{"no secret is told", 3 * time.Minute, tellsNoSecret, false},
		{"metrics", 2 * time.Minute, metricsAreGood, false},
		{"a drill keeps to its rate", 12 * time.Minute, drillIsBounded, false},
		{"backups go off the host", 15 * time.Minute, goesOffHost, false},
		{"apply again changes nothing", 4 * time.Minute, applyAgain, false},
		{"plan shows a difference", 3 * time.Minute, planShows, false},
		{"drift is mended", 5 * time.Minute, driftIsMended, false},
		{"a clock that is a year off", 15 * time.Minute, clockIsOff, false},
		{"after a reboot", 12 * time.Minute, reboots, true},
		{"a host without marks is only looked at", 6 * time.Minute, isAdopted, false},
		{"killed during certs", 6 * time.Minute, killedDuring("certs", wholePKI), false},
		{"killed during kubelet-start", 6 * time.Minute, killedDuring("kubelet-start", kubeletRuns), false},
		{"power cut during wait-control-plane", 10 * time.Minute, powerCutDuring("wait-control-plane", wholeAPI), false},
		{"killed during addon", 10 * time.Minute, killedDuring("addon", wholeNode), false},
	})
}

// chapter is a part of the life of one machine.
type chapter struct {
	name   string
	within time.Duration
	run    func(context.Context, *testing.T, *vm.VM)
	needed bool // without it those that follow mean nothing
}

func story(ctx context.Context, t *testing.T, v *vm.VM, chapters []chapter) {
	for _, part := range chapters {
		passed := t.Run(part.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, part.within)
			defer cancel()
			t.Cleanup(func() {
				if t.Failed() {
					explain(t, v)
				}
			})
			part.run(ctx, t, v)
			busiest(ctx, t, v)
		})
		if part.needed && !passed {
			t.FailNow()
		}
	}
}

// busiest logs what the machine's time has gone into since it was started.
func busiest(ctx context.Context, t *testing.T, v *vm.VM) {
	r, err := v.Run(ctx, `uptime | sed 's/.*load/load/'; ps -eo cputimes,comm --sort=-cputimes --no-headers | head -n 12 | awk '{ printf "%s %ss, ", $2, $1 }'`)
	if err != nil {
		t.Logf("what is busy: %v", err)
		return
	}
	t.Log(strings.Join(strings.Fields(r.Stdout), " "))
}

// untilDeadline is a context that ends in time to explain a failure, and to end the machine.
func untilDeadline(t *testing.T) (context.Context, context.CancelFunc) {
	deadline, ok := t.Deadline()
	if !ok {
		return context.WithCancel(t.Context())
	}
	return context.WithDeadline(t.Context(), deadline.Add(-2*time.Minute))
}

// room is what a story's disk takes in the end: four saved states, one more that comes and goes, and
// what the machine writes.
const room = 16 << 30

func boot(ctx context.Context, t testing.TB) *vm.VM {
	t.Helper()
	vm.NeedsRoom(t, room)
	return vm.Boot(ctx, t, vm.Options{Disks: []vm.Disk{filesDisk(ctx, t), repositoryDisk(ctx, t)}})
}

// filesDisk is what the operator copies to the host.
func filesDisk(ctx context.Context, t testing.TB) vm.Disk {
	t.Helper()
	images, err := lab.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	labnet, err := lab.Labnet(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s3, err := lab.Versitygw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	prometheus, err := lab.Prometheus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return vm.Disk{Label: "files", Files: map[string]string{
		"versitygw":       filepath.Join(s3, "versitygw"),
		"prometheus":      filepath.Join(prometheus, "usr", "bin", "prometheus"),
		"nodeagent.deb":   debianPackage(t),
		"images.tar":      filepath.Join(images, lab.AllImages),
		"zstd":            "/usr/bin/zstd", // it needs libraries that systemd and dpkg bring
		lab.LabnetArchive: filepath.Join(labnet, lab.LabnetArchive),
	}}
}

// repositoryDisk has the repositories that the host reaches: the community's and Docker's.
func repositoryDisk(ctx context.Context, t testing.TB) vm.Disk {
	t.Helper()
	repository, err := lab.Repository(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return vm.Disk{Label: "repository", Files: map[string]string{
		"kubernetes": filepath.Join(repository, "kubernetes"),
		"debian":     filepath.Join(repository, "debian"),
	}}
}

// debianPackage is the package under test: $NODEAGENT_DEB, or the newest that was made here.
func debianPackage(t testing.TB) string {
	t.Helper()
	if deb := os.Getenv("NODEAGENT_DEB"); deb != "" {
		return deb
	}
	found, err := filepath.Glob("../../dist/nodeagent_*_amd64.deb")
	if err != nil {
		t.Fatal(err)
	}
	var newest string
	var made time.Time
	for _, file := range found {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().After(made) {
			newest, made = file, info.ModTime()
		}
	}
	if newest == "" {
		t.Fatal("there is no package in dist: run `make package`, or set NODEAGENT_DEB")
	}
	return newest
}

// explain prints what an operator would look at.
func explain(t *testing.T, v *vm.VM) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := v.Run(ctx, `nodeagent status
		journalctl -u nodeagent --no-pager -o short-monotonic -n 40 | cut -c1-400
		tail -n 15 /var/log/nodeagent/*.log
		kubectl get pods -A -o wide
		for log in $(ls -t /var/log/pods/kube-system_*/*/*.log | head -8); do echo "== $log"; tail -n 12 $log | cut -c1-400; done
		journalctl -u kubelet --no-pager -o cat -n 10 | cut -c1-300
		uptime`)
	t.Logf("%v %v", r, err)
}
