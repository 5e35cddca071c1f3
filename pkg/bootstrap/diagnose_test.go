package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const kubeletSays = `I1121 18:39:10.131037     355 scope.go:122] "RemoveContainer" containerID="e5e9"
E1121 18:39:11.398026     355 pod_workers.go:1324] "Error syncing pod, skipping" err="first"
E1121 18:39:12.398026     355 run.go:72] "command failed" err="failed to run Kubelet: running with swap on is not supported"
W1121 18:39:34.149318     355 manager.go:1184] Failed to process watch event
kubelet.service: Main process exited, code=exited, status=1/FAILURE
`

// The shapes are those of a kubelet's and containerd's own files.
func TestDiagnosis(t *testing.T) {
	asked, journal := 0, kubeletSays
	h := &host.Host{Root: t.TempDir(), Exec: func(_ context.Context, c host.Command) ([]byte, error) {
		asked++
		if !strings.Contains(c.String(), "--unit kubelet.service") {
			return nil, fmt.Errorf("ran %s", c)
		}
		return []byte(journal), nil
	}}
	logs := func(pod, file, text string) {
		t.Helper()
		put(t, h, podLogs+"/kube-system_"+pod+"-node-1_0a1b/"+pod+"/"+file, text, 0o640)
	}
	logs("kube-scheduler", "0.log", "2026-11-21T18:37:44.6Z stderr F I1121 18:37:44.544214       1 serving.go:386] fine\n")
	logs("etcd", "2.log", "2026-11-21T18:37:50.6Z stderr F {\"level\":\"info\",\"msg\":\"starting\"}\n")
	logs("etcd", "1.log", `2026-11-21T18:37:44.6Z stderr F {"level":"info","msg":"opening"}
2026-11-21T18:37:45.6Z stderr F {"level":"fatal","msg":"discovery failed","error":"no space left on device"}
2026-11-21T18:37:45.7Z stderr F goroutine 1 [running]:
`)
	logs("kube-apiserver", "1.log", "")
	logs("kube-apiserver", "0.log", "2026-11-21T18:37:45.6Z stderr F token abcdef.0123456789abcdef was refused\n")
	put(t, h, podLogs+"/kube-system_etcd-node-2_ff/etcd/9.log", "another node's", 0o640)
	put(t, h, podLogs+"/kube-system_etcd-node-1_0a1b/etcd/1.log.20261121.gz", "x", 0o640)

	d := diagnosis{host: h, node: "node-1", pods: []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}}
	want := []step.Change{
		{Subject: "kubelet.service", Have: `says: "command failed" err="failed to run Kubelet: running with swap on is not supported"`, Want: "no errors"},
		{Subject: "container etcd", Have: `was started 3 times, the one before said: {"level":"fatal","msg":"discovery failed","error":"no space left on device"}`, Want: "running"},
		{Subject: "container kube-apiserver", Have: "was started 2 times, the one before said: token abcdef[redacted] was refused", Want: "running"},
		{Subject: "container kube-controller-manager", Have: "not started yet", Want: "running"},
	}
	for range lookEvery {
		if diff := cmp.Diff(want, d.changes(t.Context())); diff != "" {
			t.Fatalf("- wanted, + had:\n%s", diff)
		}
	}
	if asked != 1 {
		t.Errorf("the journal was read %d times for %d checks", asked, lookEvery)
	}
	journal = "E1121 18:39:12.398026     355 kubelet.go:1] " + strings.Repeat("é", maxSaying) + "\n"
	if have := d.changes(t.Context())[0].Have; len(have) > maxSaying+len("says: …") || !strings.HasSuffix(have, "é…") {
		t.Errorf("a long error is quoted as %s", have)
	}
}

// What was in the way of one wait is not told of the next.
func TestDiagnosisForgets(t *testing.T) {
	l := newLab(t)
	complete(t, l, KubeadmConfig{})
	s := WaitControlPlane(l.init(KubeadmConfig{}))
	l.notReady = 1
	before, err := s.Check(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(before), "container etcd: \"not started yet\"") {
		t.Fatalf("%v, %v", before, err)
	}
	if changes, err := s.Check(t.Context()); err != nil || len(changes) > 0 {
		t.Fatalf("%v, %v", changes, err)
	}
	put(t, l.Host, podLogs+"/kube-system_etcd-node-1_0a1b/etcd/0.log", "", 0o640)
	l.notReady = 1
	if after, err := s.Check(t.Context()); err != nil || strings.Contains(fmt.Sprint(after), "container etcd") {
		t.Errorf("%v, %v", after, err)
	}
}

// Nothing that cannot be read is in the way of waiting.
func TestDiagnosisOfNothing(t *testing.T) {
	h := &host.Host{Root: t.TempDir(), Exec: func(context.Context, host.Command) ([]byte, error) { return nil, errors.New("no journal") }}
	d := diagnosis{host: h, node: "node-1"}
	if found := d.changes(t.Context()); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

func TestConditions(t *testing.T) {
	have := conditions([]kube.Condition{
		{Type: "Ready", Status: "True"}, {Type: "PIDPressure", Status: "False"},
		{Type: "MemoryPressure", Status: "True", Reason: "KubeletHasInsufficientMemory", Message: "evicting"},
		{Type: "DiskPressure", Status: "True", Reason: "KubeletHasDiskPressure", Message: "kubelet has disk pressure"},
	})
	want := `[condition DiskPressure: "KubeletHasDiskPressure: kubelet has disk pressure" → "false" condition MemoryPressure: "KubeletHasInsufficientMemory: evicting" → "false"]`
	if fmt.Sprint(have) != want {
		t.Errorf("%v", have)
	}
}
