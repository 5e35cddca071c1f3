package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	const in = `goos: linux
cpu: Some Processor
BenchmarkApplyConverged-2   	       3	         0.01400 nodeagent-cpu-s/op	         0.02000 nodeagent-s/op	         0.0933 of-target	         0.04800 peer-cpu-s/op	         0.2917 ratio
BenchmarkCertsList-2        	       3	         0.02091 nodeagent-s/op	         0.1695 peer-s/op	         0.1234 ratio
BenchmarkNew                	       3	         2.000 nodeagent-s/op	         1.000 peer-s/op	         2.000 ratio
BenchmarkCheck-2             	       3	        20.00 MiB-at-200-MB
BenchmarkBroken-2 --- FAIL:
PASS
`
	var out, rest strings.Builder
	if err := run(strings.NewReader(in), &out, &rest, "2026-11-22: 2 processors"); err != nil {
		t.Fatal(err)
	}
	want := "| Figure | nodeagent | Peer | Ratio |\n|---|---|---|---|\n" +
		"| CPU (user and system) of an `apply` that has nothing to do | 0.014 s | a shell script that looks at the same files: 0.048 s | 0.29 |\n" +
		"| `certs list` | 0.0209 s | `kubeadm certs check-expiration`: 0.17 s | 0.12 |\n" +
		"| New | 2 s | its peer: 1 s | 2.00 |\n" +
		"\n2026-11-22: 2 processors, Some Processor.\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("goos: linux\ncpu: Some Processor\nBenchmarkCheck-2             	       3	        20.00 MiB-at-200-MB\nBenchmarkBroken-2 --- FAIL:\nPASS\n", rest.String()); diff != "" {
		t.Error(diff)
	}
	if err := run(strings.NewReader("FAIL\n"), &out, &rest, ""); err == nil {
		t.Error("a run without a result is no table")
	}
}
