package kernel

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// What is wrong in fstab is its owner's, and stays as it is to the byte.
func TestSwapWithABadFstab(t *testing.T) {
	const entry, ours = "/dev/vdb1 none swap sw 0 0", swapOff + "/dev/vdb1 none swap sw 0 0"
	tests := map[string]string{ // "@" is the entry
		"corrupt line":         "UUID=root /\n@\n/dev/sda1 /mnt ext4 def\\\"aults,\\04 x y z 0 0\n= = =\n",
		"corrupt swap line":    "swap\nnone swap\n\t\n@\nUUID= swap\n",
		"zero bytes":           "\x00\x00\x00\x00\n@\n\x00\x00",
		"not UTF-8":            "/dev/sda1 /caf\xe9 ext4 defaults 0 2\n@\n",
		"CRLF":                 "# windows\r\n" + "@\r\n/dev/sda1 / ext4 defaults 0 1\r\n",
		"CR alone":             "# mac\r@x\n@\n",
		"no final newline":     "/dev/sda1 / ext4 defaults 0 1\n@",
		"CRLF, no final one":   "/dev/sda1 / ext4 defaults 0 1\r\n@",
		"nothing else":         "@",
		"a byte order mark":    "\ufeff# comment\n@\n",
		"a very long line":     "# " + strings.Repeat("x", 1<<20) + "\n@\n",
		"blank lines":          "\n\n \n\t\n@\n\n\n",
		"the same one twice":   "@\n@\n",
		"our own, once more":   ours + "\n@\n",
		"comment after fields": "@ # not a field\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := strings.ReplaceAll(text, "@", entry)
			h := machine(t, map[string]string{"/etc/fstab": before, "/proc/swaps": onePartition, "/proc/meminfo": enoughMemory})
			k := newKernelSwap(t, h)
			steptest.Converges(t, h, k.step())
			var want strings.Builder
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "@") {
					want.WriteString(swapOff)
				}
				want.WriteString(strings.ReplaceAll(line, "@", entry))
			}
			if diff := cmp.Diff(want.String(), read(t, h, "/etc/fstab")); diff != "" {
				t.Errorf("fstab (- wanted, + found):\n%s", diff)
			}
			if kept := read(t, h, "/var/lib/nodeagent/originals/etc/fstab"); kept != before {
				t.Error("the original kept is another one")
			}
			k.wantDid("reload", "off /dev/vdb1")
		})
	}
}

// readOnly runs something that may write anywhere in the machine's tree but below /etc.
func readOnly(t *testing.T, h *host.Host, run func()) {
	t.Helper()
	const nobody = 65534
	etc := filepath.Join(h.Root, "etc")
	if os.Geteuid() != 0 {
		defer setModes(t, etc, 0o755)
		setModes(t, etc, 0o555)
		run()
		return
	}
	// Root may write where nobody may: so it is somebody else who does, for this thread.
	if err := os.Chmod(filepath.Dir(h.Root), 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(h.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == etc {
			return filepath.SkipDir
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}()
	run()
}

// setModes gives directories a mode.
func setModes(t *testing.T, root string, mode fs.FileMode) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, mode)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// etcOf is all that lies in /etc.
func etcOf(t *testing.T, h *host.Host) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(h.Root, "etc"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files[path] = d.Type().String()
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			files[path] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestAReadOnlyEtc(t *testing.T) {
	const entry = "/dev/vdb1 none swap sw 0 0\n"
	swapOf := func(h *host.Host) step.Step { return newKernelSwap(t, h).step() }
	modulesOf := func(h *host.Host) step.Step { return Modules(h, false, nil) }
	sysctlsOf := func(h *host.Host) step.Step { return Sysctls(h, false, nil) }
	tests := map[string]struct {
		step func(*host.Host) step.Step
		dir  string // of what is to be written
		file string
		says string
	}{
		"fstab":      {swapOf, "/etc/systemd/system", "/etc/fstab", "write /etc/fstab: "},
		"masks":      {swapOf, "/etc/systemd/system", "/etc/hosts", "mask unit swap.target: "},
		"no masks":   {swapOf, "/etc/x", "/etc/hosts", "mask unit swap.target: link /etc/systemd/system/swap.target: make directory /etc/systemd"},
		"modules":    {modulesOf, "/etc/modules-load.d", "/etc/hosts", "write /etc/modules-load.d/nodeagent.conf: "},
		"modules.d":  {modulesOf, "/etc/x", "/etc/hosts", "make directory /etc/modules-load.d: "},
		"sysctl":     {sysctlsOf, "/etc/sysctl.d", "/etc/hosts", "write /etc/sysctl.d/90-nodeagent.conf: "},
		"old sysctl": {sysctlsOf, "/etc/x", sysctlFile, "write /etc/sysctl.d/90-nodeagent.conf: "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := machine(t, debianModules("6.1.0-9", debianSysctls(map[string]string{
				test.dir: "dir", test.file: entry, "/proc/swaps": onePartition, "/proc/meminfo": enoughMemory, "/var": "dir",
			})))
			s := test.step(h)
			before := etcOf(t, h)
			var err error
			readOnly(t, h, func() { err = s.Apply(t.Context()) })
			wantError(t, err, test.says, "permission denied")
			if diff := cmp.Diff(before, etcOf(t, h)); diff != "" {
				t.Errorf("/etc (- before, + after):\n%s", diff)
			}
			for path, want := range map[string]string{"/proc/swaps": onePartition, "/proc/sys/net/ipv4/ip_forward": "0\n"} {
				if read(t, h, path) != want {
					t.Errorf("%s was changed", path)
				}
			}
			// Writable again, it is as if nothing had been.
			modprobes(t, h, "overlay", "br_netfilter", "nf_conntrack")
			steptest.Converges(t, h, test.step(h))
		})
	}
}
