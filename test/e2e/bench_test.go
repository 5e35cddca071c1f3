//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"slices"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/test/vm"
)

// byHand is what an operator's shell script does to the same machine, with the same packages,
// images and configuration of kubeadm.
//
//go:embed testdata/by-hand.sh
var byHand []byte

// rounds is how often each way is taken, in turns: what else the machine does meets all of them.
const rounds = 3

// BenchmarkBootstrap is the time from a machine that has booted to a node that is Ready: by the
// agent, by a script of the same phases of kubeadm, and by one with a single `kubeadm init`, each
// on a fresh machine. What is reported are the medians of the rounds so far, and the agent's
// over the script's.
func BenchmarkBootstrap(b *testing.B) {
	took := map[string][]time.Duration{}
	var made map[string]string // by the agent: what the scripts are given
	for range rounds {
		b.Run("agent", func(b *testing.B) {
			for b.Loop() {
				v := boot(b.Context(), b)
				began := time.Now()
				bootstrapByAgent(b.Context(), b, v)
				took["agent"] = append(took["agent"], time.Since(began))
				b.Log(v.MustRun(b.Context(), b, durations+"\n"+tries+"\n"+processorTime))
				made = map[string]string{
					"kubeadm.yaml": v.MustRun(b.Context(), b, "cat /var/lib/nodeagent/kubeadm.yaml"),
					"net.conflist": v.MustRun(b.Context(), b, "cat /etc/cni/net.d/10-nodeagent-bridge.conflist"),
				}
			}
			b.ReportMetric(median(took["agent"]).Seconds(), "s/Ready")
		})
		for _, how := range []string{"phases", "init"} {
			b.Run(how, func(b *testing.B) {
				for b.Loop() {
					v := boot(b.Context(), b)
					began := time.Now()
					bootstrapByHand(b.Context(), b, v, how, made)
					took[how] = append(took[how], time.Since(began))
					b.Log(v.MustRun(b.Context(), b, "journalctl --no-pager -o short-monotonic -u by-hand | grep -F ']: + '\n"+processorTime))
				}
				b.ReportMetric(median(took[how]).Seconds(), "s/Ready")
				b.ReportMetric(median(took["agent"]).Seconds()/median(took[how]).Seconds(), "agent/script")
			})
		}
	}
}

// durations is how long each step took, with its checks, the longest first.
const durations = `curl -sf http://127.0.0.1:10980/metrics | sed -n 's/^nodeagent_step_duration_seconds{step="\(.*\)"} /\1 /p' | sort -k 2 -rg`

// tries is what the daemon did, and systemd with it: a try that failed costs a round the wait for the next one.
const tries = `journalctl --no-pager -o short-monotonic -u nodeagent | awk '!/changed step=/' | cut -c 1-300`

// processorTime is what each service, the pods and PID 1 have taken, in seconds, the most first.
const processorTime = `cd /sys/fs/cgroup
	for group in init.scope kubepods.slice system.slice/*.service; do
		awk -v group="$group" '/^usage_usec/ { printf "%s %.1f\n", group, $2 / 1e6 }' "$group/cpu.stat"
	done | sort -k 2 -rg | awk 'NR <= 12'`

func bootstrapByHand(ctx context.Context, b *testing.B, v *vm.VM, how string, files map[string]string) {
	b.Helper()
	for name, text := range files {
		if err := v.WriteFile(ctx, "/root/"+name, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := v.WriteFile(ctx, "/root/by-hand.sh", byHand, 0o755); err != nil {
		b.Fatal(err)
	}
	v.MustRun(ctx, b, "systemd-run --quiet --property=Type=exec --unit by-hand /root/by-hand.sh "+how)
	until(ctx, b, v, "! systemctl is-failed --quiet by-hand", "[ -e /run/by-hand-done ]\n"+ready)
}

// until waits for done; when holds does not any more, it never will be.
func until(ctx context.Context, b *testing.B, v *vm.VM, holds, done string) {
	b.Helper()
	for {
		if r, err := v.Run(ctx, "set -e\n"+done); err == nil && r.Code == 0 {
			return
		}
		if r, err := v.Run(ctx, holds); err == nil && r.Code != 0 {
			b.Fatalf("%s does not hold:\n%s", holds, v.MustRun(ctx, b, "journalctl --no-pager -n 40 -u by-hand -u nodeagent"))
		}
		time.Sleep(2 * time.Second)
	}
}

func bootstrapByAgent(ctx context.Context, b *testing.B, v *vm.VM) {
	b.Helper()
	if err := v.WriteFile(ctx, configPath, configuration, 0o640); err != nil {
		b.Fatal(err)
	}
	v.MustRun(ctx, b, dockersRepository)
	v.MustRun(ctx, b, "apt-get install -y /mnt/files/nodeagent.deb </dev/null")
	until(ctx, b, v, "systemctl is-active nodeagent", bootstrapped+"\n"+ready)
}

func median(of []time.Duration) time.Duration {
	if len(of) == 0 {
		return 0
	}
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}
