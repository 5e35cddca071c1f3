package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"sigs.k8s.io/yaml"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// KubeletConfigFile is where kubeadm has the kubelet read its configuration from.
const KubeletConfigFile = "/var/lib/kubelet/config.yaml"

// DiskThreshold is how little of a filesystem may be left before the kubelet acts: it removes
// images, and evicts pods. It is the larger of the two parts.
type DiskThreshold struct {
	Percent float64 // of the filesystem's size
	Bytes   int64
}

// DiskThresholdOf is the highest threshold that the kubelet of this host has on the filesystem of
// a directory, which need not be there yet: those for the node's on that of /var/lib/kubelet, those
// for images on that of /var/lib/containerd. It is zero where there is no kubelet, and on other
// filesystems. The defaults are the kubelet's (evictionHard and imageGCHighThresholdPercent in
// the KubeletConfiguration reference).
func DiskThresholdOf(h *host.Host, dir string) (DiskThreshold, error) {
	data, err := h.ReadFile(KubeletConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return DiskThreshold{}, nil
	}
	if err != nil {
		return DiskThreshold{}, fmt.Errorf("read kubelet's thresholds: %w", err)
	}
	config := struct {
		EvictionHard                map[string]string `json:"evictionHard"`
		ImageGCHighThresholdPercent *float64          `json:"imageGCHighThresholdPercent"`
	}{}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return DiskThreshold{}, fmt.Errorf("read kubelet's thresholds: decode %s: %w", KubeletConfigFile, err)
	}
	hard := config.EvictionHard
	if len(hard) == 0 {
		hard = map[string]string{"nodefs.available": "10%", "imagefs.available": "15%"}
	}
	gc := 15.0
	if config.ImageGCHighThresholdPercent != nil {
		gc = 100 - *config.ImageGCHighThresholdPercent
	}
	here, err := deviceOf(h, dir)
	if err != nil {
		return DiskThreshold{}, fmt.Errorf("read kubelet's thresholds: %w", err)
	}
	var t DiskThreshold
	for signal, of := range map[string]string{"nodefs.available": "/var/lib/kubelet", "imagefs.available": "/var/lib/containerd"} {
		there, err := deviceOf(h, of)
		if err != nil {
			return DiskThreshold{}, fmt.Errorf("read kubelet's thresholds: %w", err)
		}
		if there != here {
			continue
		}
		if err := t.raise(hard[signal]); err != nil {
			return DiskThreshold{}, fmt.Errorf("read kubelet's thresholds: evictionHard %s in %s: %w", signal, KubeletConfigFile, err)
		}
		if signal == "imagefs.available" {
			t.Percent = max(t.Percent, gc)
		}
	}
	return t, nil
}

// raise takes a threshold as the kubelet writes it: "10%", or a quantity such as "1Gi".
func (t *DiskThreshold) raise(s string) error {
	if s == "" {
		return nil
	}
	if percent, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || p < 0 || p > 100 {
			return fmt.Errorf("%q is no percentage", s)
		}
		t.Percent = max(t.Percent, p)
		return nil
	}
	digits := strings.TrimRight(s, "KMGTPEkmi")
	unit, ok := map[string]float64{
		"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
	}[s[len(digits):]]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !ok || n < 0 || n*unit > 1<<62 {
		return fmt.Errorf("%q is no quantity", s)
	}
	t.Bytes = max(t.Bytes, int64(n*unit))
	return nil
}

// deviceOf is the filesystem of the directory, or of the nearest one above it that is there.
func deviceOf(h *host.Host, dir string) (uint64, error) {
	for {
		info, err := h.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return 0, err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, fmt.Errorf("%s: its filesystem is not told", dir)
		}
		return stat.Dev, nil
	}
}
