package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
)

const kubeletConfig = "/var/lib/kubelet/config.yaml"

// kubeletFlags are the files with flags for the kubelet, which win over its configuration.
var kubeletFlags = []string{"/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet"}

// KubeletSwap is what a kubelet's configuration says of swap. What it does not say is "".
type KubeletSwap struct {
	FailSwapOn   string // "true" or "false"; kubelet's default is true
	SwapBehavior string // memorySwap.swapBehavior
}

// KeepSwap returns the step "kernel/swap" for a node that is to have swap: it leaves swap as it
// is, and finds what of the kubelet's configuration does not fit. Until kubeadm has written
// that, it is what is planned that is looked at. On a host without a kubelet all fits. Apply
// does nothing.
func KeepSwap(h *host.Host, kubelet bool, planned KubeletSwap) step.Step {
	return step.Step{
		Name: "kernel/swap",
		Check: func(context.Context) ([]step.Change, error) {
			if !kubelet {
				return nil, nil
			}
			return checkKept(h, planned)
		},
		Apply: func(context.Context) error { return nil },
	}
}

func checkKept(h *host.Host, have KubeletSwap) ([]step.Change, error) {
	where := "kubeadm.kubeletConfiguration"
	data, err := h.ReadFile(kubeletConfig)
	if err == nil {
		where = kubeletConfig
		have, err = parseKubeletSwap(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read kubelet configuration: %w", err)
	}
	flag, err := failSwapOnFlag(h)
	if err != nil {
		return nil, fmt.Errorf("read kubelet flags: %w", err)
	}
	if flag != "" {
		have.FailSwapOn = flag
	}
	var changes []step.Change
	differs := func(key, have, want string) {
		if have == "" {
			have = "not set"
		}
		changes = append(changes, step.Change{Subject: where + " " + key, Have: have, Want: want, Manual: true})
	}
	if have.FailSwapOn != "false" {
		differs("failSwapOn", have.FailSwapOn, "false: kubelet does not start with swap on, which kernel.swap keeps")
	}
	if !slices.Contains([]string{"LimitedSwap", "NoSwap"}, have.SwapBehavior) {
		differs("memorySwap.swapBehavior", have.SwapBehavior, "LimitedSwap, or NoSwap if pods are to have none")
	}
	return changes, nil
}

func parseKubeletSwap(data []byte) (KubeletSwap, error) {
	var c struct {
		FailSwapOn *bool `yaml:"failSwapOn"`
		MemorySwap struct {
			SwapBehavior string `yaml:"swapBehavior"`
		} `yaml:"memorySwap"`
	}
	if err := yaml.Unmarshal(data, &c); err != nil {
		return KubeletSwap{}, err
	}
	k := KubeletSwap{SwapBehavior: c.MemorySwap.SwapBehavior}
	if c.FailSwapOn != nil {
		k.FailSwapOn = fmt.Sprint(*c.FailSwapOn)
	}
	return k, nil
}

// failSwapOnFlag is the value of kubelet's --fail-swap-on, "" where it is not given.
func failSwapOnFlag(h *host.Host) (string, error) {
	value := ""
	for _, path := range kubeletFlags {
		data, err := h.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		value = cmp.Or(parseFailSwapOn(string(data)), value)
	}
	return value, nil
}

// parseFailSwapOn reads the flag from a file of environment variables. The last one holds.
func parseFailSwapOn(env string) (value string) {
	for line := range strings.Lines(env) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for word := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'", r) }) {
			_, flag, is := strings.Cut(word, "--fail-swap-on")
			switch {
			case is && flag == "":
				value = "true"
			case is && flag[0] == '=':
				value = flag[1:]
			}
		}
	}
	return value
}
