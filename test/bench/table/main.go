// Command table makes a table of what `go test -bench` prints for test/bench: each figure of the
// agent's beside its peer's of the same run, with the machine and the versions. Whatever is no
// result goes to standard error; without any result it exits 1.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/test/lab"
)

// what is the figure, and who the peer.
var what = map[string][2]string{
	"SnapshotSave/plain":      {"`snapshot save`, verified, neither compressed nor encrypted; target 0.8", "`etcdctl snapshot save`, which does not verify"},
	"SnapshotSave/zstd":       {"`snapshot save`, verified and compressed", "the same"},
	"SnapshotSave/zstd+age":   {"`snapshot save`, verified, compressed and encrypted; target 1.0", "the same"},
	"SnapshotVerify":          {"`snapshot verify` of a file", "`etcdutl snapshot status`"},
	"PutsWhileSaving/idle":    {"99th percentile of puts while a scheduled save runs; target 1.5", "with nothing else"},
	"PutsWhileSaving/etcdctl": {"the same", "while etcdctl saves"},
	"CertsList":               {"`certs list`", "`kubeadm certs check-expiration`"},
	"ApplyConverged":          {"CPU (user and system) of an `apply` that has nothing to do", "a shell script that looks at the same files"},
	"PlanFresh":               {"`plan` on a fresh machine, by the clock", "the same script"},
}

func main() {
	versions, err := versionsHere(context.Background())
	if err == nil {
		err = run(os.Stdin, os.Stdout, os.Stderr, time.Now().UTC().Format(time.DateOnly)+": "+versions)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// versionsHere is what the figures depend on, the processor aside.
func versionsHere(ctx context.Context) (string, error) {
	kernel, err := kernelRelease()
	if err != nil {
		return "", err
	}
	bin, err := lab.Etcd(ctx)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "etcdctl"), "version").Output()
	if err != nil {
		return "", fmt.Errorf("ask etcdctl's version: %w", err)
	}
	etcd, _, _ := strings.Cut(string(out), "\n")
	return fmt.Sprintf("%d processors, Linux %s, %s, Kubernetes %s, %s", runtime.NumCPU(), kernel, runtime.Version(), lab.KubernetesVersion, etcd), nil
}

func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// run writes the table, and below it the versions and the processor that go test names.
func run(in io.Reader, out, rest io.Writer, versions string) error {
	var rows []string
	cpu := "an unknown processor"
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "cpu: "); ok {
			cpu = strings.TrimSpace(name)
		}
		if row, ok := rowOf(line); ok {
			rows = append(rows, row)
		} else {
			fmt.Fprintln(rest, line)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read results: %w", err)
	}
	if len(rows) == 0 {
		return errors.New("there is no result")
	}
	fmt.Fprintf(out, "| Figure | nodeagent | Peer | Ratio |\n|---|---|---|---|\n%s\n", strings.Join(rows, "\n"))
	_, err := fmt.Fprintf(out, "\n%s, %s.\n", versions, cpu)
	return err
}

// rowOf is the table's row of a result like "BenchmarkX-2 3 0.02 nodeagent-s/op 0.17 peer-s/op
// 0.12 ratio", and false for any other line.
func rowOf(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return "", false
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "Benchmark"), "-")
	values := map[string]float64{}
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return "", false
		}
		unit := strings.TrimSuffix(strings.Replace(fields[i+1], "-cpu-", "-", 1), "-s/op")
		if _, taken := values[unit]; !taken { // of the agent CPU comes before the clock, in that order
			values[unit] = v
		}
	}
	if _, compared := values["ratio"]; !compared {
		return "", false // a check, which has no peer
	}
	about, known := what[name]
	if !known {
		about = [2]string{name, "its peer"}
	}
	return fmt.Sprintf("| %s | %.3g s | %s: %.3g s | %.2f |", about[0], values["nodeagent"], about[1], values["peer"], values["ratio"]), true
}
