package kube_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/kube"
)

func TestDiskThreshold(t *testing.T) {
	for name, tt := range map[string]struct {
		config string
		want   kube.DiskThreshold
	}{
		"defaults":           {"kind: KubeletConfiguration\n", kube.DiskThreshold{Percent: 15}},
		"higher for pods":    {"evictionHard: {nodefs.available: 25%, imagefs.available: 20%}\n", kube.DiskThreshold{Percent: 25}},
		"images are removed": {"imageGCHighThresholdPercent: 70\n", kube.DiskThreshold{Percent: 30}},
		"in bytes":           {"evictionHard: {nodefs.available: 1Gi, imagefs.available: 500M}\n", kube.DiskThreshold{Percent: 15, Bytes: 1 << 30}},
		"another signal":     {"evictionHard: {memory.available: 50%}\n", kube.DiskThreshold{Percent: 15}},
	} {
		t.Run(name, func(t *testing.T) {
			h := host.New(t.TempDir())
			if err := h.MkdirAll("/var/lib/kubelet", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := h.WriteFile(kube.KubeletConfigFile, []byte(tt.config), 0o644); err != nil {
				t.Fatal(err)
			}
			if got, err := kube.DiskThresholdOf(h, "/var/lib/nodeagent/backups"); err != nil || got != tt.want {
				t.Errorf("%+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	h := host.New(t.TempDir())
	if got, err := kube.DiskThresholdOf(h, "/var/lib/nodeagent"); err != nil || got != (kube.DiskThreshold{}) {
		t.Errorf("without a kubelet: %+v, %v", got, err)
	}
	for _, wrong := range []string{"1%%", "x%", "101%", "-1Gi", "1Qi", "Gi"} {
		h := host.New(t.TempDir())
		if err := h.MkdirAll("/var/lib/kubelet", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile(kube.KubeletConfigFile, []byte("evictionHard: {nodefs.available: '"+wrong+"'}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := kube.DiskThresholdOf(h, "/var/lib"); err == nil || !strings.Contains(err.Error(), "nodefs.available") {
			t.Errorf("%s: %+v, %v", wrong, got, err)
		}
	}
}
