package kernel

import (
	"maps"
	"testing"
)

func TestKeepSwap(t *testing.T) {
	const (
		wantFail     = ` → "false: kubelet does not start with swap on, which kernel.swap keeps"`
		wantBehavior = ` → "LimitedSwap, or NoSwap if pods are to have none"`
		planned      = "!kubeadm.kubeletConfiguration "
		written      = "!" + kubeletConfig + " "
		fits         = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailSwapOn: false\nmemorySwap:\n  swapBehavior: LimitedSwap\n"
	)
	with := func(path, text string) map[string]string { return map[string]string{path: text} }
	tests := map[string]struct {
		files   map[string]string
		planned KubeletSwap
		want    []string
	}{
		"planned":           {nil, KubeletSwap{"false", "LimitedSwap"}, nil},
		"planned otherwise": {nil, KubeletSwap{}, []string{planned + `failSwapOn: "not set"` + wantFail, planned + `memorySwap.swapBehavior: "not set"` + wantBehavior}},
		"written":           {with(kubeletConfig, fits), KubeletSwap{}, nil},
		"written otherwise": {with(kubeletConfig, "failSwapOn: true\nmemorySwap:\n  swapBehavior: UnlimitedSwap\n"), KubeletSwap{"false", "LimitedSwap"},
			[]string{written + `failSwapOn: "true"` + wantFail, written + `memorySwap.swapBehavior: "UnlimitedSwap"` + wantBehavior}},
		"kubeadm's own":        {with(kubeletConfig, "failSwapOn: false\nmemorySwap: {}\n"), KubeletSwap{}, []string{written + `memorySwap.swapBehavior: "not set"` + wantBehavior}},
		"no swap for pods":     {with(kubeletConfig, "failSwapOn: false\nmemorySwap: {swapBehavior: NoSwap}\n"), KubeletSwap{}, nil},
		"by a flag":            {with("/etc/default/kubelet", "# --fail-swap-on=true\nKUBELET_EXTRA_ARGS=\"--v=2 --fail-swap-on=false\"\n"), KubeletSwap{"", "NoSwap"}, nil},
		"by kubeadm's flags":   {with("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS='--fail-swap-on=false'"), KubeletSwap{"", "NoSwap"}, nil},
		"by a flag, otherwise": {with("/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--fail-swap-on\n"), KubeletSwap{"false", "NoSwap"}, []string{planned + `failSwapOn: "true"` + wantFail}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/proc/swaps": onePartition, "/etc/fstab": "/dev/vdb1 none swap sw 0 0\n"}
			maps.Copy(files, test.files)
			h := machine(t, files)
			s := KeepSwap(h, true, test.planned)
			wantChanges(t, s, test.want...)
			apply(t, s)
			wantChanges(t, s, test.want...)
			if read(t, h, "/etc/fstab") != files["/etc/fstab"] {
				t.Error("fstab was changed")
			}
			wantChanges(t, KeepSwap(h, false, KubeletSwap{}))
		})
	}
	for name, files := range map[string]map[string]string{
		"no YAML":   with(kubeletConfig, "failSwapOn: [\n"),
		"no switch": with(kubeletConfig, "failSwapOn: maybe\n"),
		"dir":       with(kubeletConfig, "dir"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := KeepSwap(machine(t, files), true, KubeletSwap{}).Check(t.Context())
			wantError(t, err, "read kubelet configuration")
		})
	}
}
