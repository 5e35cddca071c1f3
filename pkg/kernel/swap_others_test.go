package kernel

import (
	"maps"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

const (
	cloudCfg = "/etc/cloud/cloud.cfg"
	byCloud  = ` → "removed: cloud-init makes that swap on each new instance"`
)

func TestSwapThatOthersMake(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"cloud-init": {map[string]string{"/etc/cloud/cloud.cfg.d/50-swap.cfg": "#cloud-config\nswap:\n  filename: /swapfile\n  size: 2G\n  maxsize: 4G\n"},
			[]string{`!/etc/cloud/cloud.cfg.d/50-swap.cfg line 4: "swap: size: 2G"` + byCloud}},
		"cloud.cfg":                 {map[string]string{cloudCfg: "users: [default]\nswap: {size: auto}\n"}, []string{`!/etc/cloud/cloud.cfg line 2: "swap: size: auto"` + byCloud}},
		"a later file turns it off": {map[string]string{cloudCfg: "swap: {size: auto}\n", "/etc/cloud/cloud.cfg.d/90-x.cfg": "swap: {size: 0}\n"}, nil},
		"a later file is no mapping": {map[string]string{
			"/etc/cloud/cloud.cfg.d/10-x.cfg": "swap: {size: 1G}\n", "/etc/cloud/cloud.cfg.d/90-x.cfg": "swap: false\n"}, nil},
		"a later file names the file": {map[string]string{
			"/etc/cloud/cloud.cfg.d/10-x.cfg": "swap: {size: 1G}\n", "/etc/cloud/cloud.cfg.d/90-x.cfg": "swap: {filename: /s}\n"},
			[]string{`!/etc/cloud/cloud.cfg.d/10-x.cfg line 1: "swap: size: 1G"` + byCloud}},
		"no file name":          {map[string]string{cloudCfg: "swap: {size: 1G, filename: ''}\n"}, nil},
		"an alias":              {map[string]string{cloudCfg: "x: &s {size: 1G}\nswap: *s\n"}, []string{`!/etc/cloud/cloud.cfg line 1: "swap: size: 1G"` + byCloud}},
		"no size":               {map[string]string{cloudCfg: "swap: {filename: /swapfile}\n"}, nil},
		"size of nothing":       {map[string]string{cloudCfg: "swap: {size: }\n"}, nil},
		"not .cfg":              {map[string]string{"/etc/cloud/cloud.cfg.d/50-swap.cfg.bak": "swap: {size: 1}\n"}, nil},
		"no YAML":               {map[string]string{cloudCfg: "swap: {size: 1\n", "/etc/cloud/cloud.cfg.d/x.cfg": "{% if x %}\nswap:\n\tsize: 1\n"}, nil},
		"a list":                {map[string]string{cloudCfg: "- swap: {size: 1}\n"}, nil},
		"empty":                 {map[string]string{cloudCfg: "", "/etc/cloud/cloud.cfg.d/x.cfg": "# nothing\n"}, nil},
		"cloud-init turned off": {map[string]string{cloudCfg: "swap: {size: 1}\n", "/etc/cloud/cloud-init.disabled": ""}, nil},
		"mounts": {map[string]string{"/etc/cloud/cloud.cfg.d/m.cfg": "mounts:\n - [ ephemeral0, /mnt ]\n - [ /dev/vdb1, none, swap, sw, '0', '0' ]\n - [ swap, null ]\n - [ x, null, swap ]\n - text\n - [LABEL=s, none, \"swap\"]\n"},
			[]string{`!/etc/cloud/cloud.cfg.d/m.cfg line 3: "mounts: swap on /dev/vdb1"` + byCloud, `!/etc/cloud/cloud.cfg.d/m.cfg line 7: "mounts: swap on LABEL=s"` + byCloud}},
		"later mounts": {map[string]string{cloudCfg: "mounts: [[a, none, swap]]\n", "/etc/cloud/cloud.cfg.d/m.cfg": "mounts: []\n"}, nil},
		"waagent": {map[string]string{"/etc/waagent.conf": "# x\nResourceDisk.Format=y\nResourceDisk.EnableSwap=y\n"},
			[]string{`!/etc/waagent.conf line 3: "ResourceDisk.EnableSwap=y" → "ResourceDisk.EnableSwap=n: the agent makes that swap at each boot"`}},
		"waagent, oddly written": {map[string]string{"/etc/waagent.conf": "#ResourceDisk.EnableSwap=n\nResourceDisk.Format = y\nResourceDisk.EnableSwap=n\n ResourceDisk.EnableSwap = \"Y\" # yes\r\n"},
			[]string{`!/etc/waagent.conf line 4: "ResourceDisk.EnableSwap=y" → "ResourceDisk.EnableSwap=n: the agent makes that swap at each boot"`}},
		"waagent, no disk":      {map[string]string{"/etc/waagent.conf": "ResourceDisk.Format=n\nResourceDisk.EnableSwap=y\n"}, nil},
		"waagent, debian's":     {map[string]string{"/etc/waagent.conf": "ResourceDisk.EnableSwap=n\nResourceDisk.SwapSizeMB=0\n"}, nil},
		"waagent, last holds":   {map[string]string{"/etc/waagent.conf": "ResourceDisk.Format=y\nResourceDisk.EnableSwap=y\nResourceDisk.EnableSwap=no\n"}, nil},
		"waagent, another's":    {map[string]string{"/etc/waagent.conf": "ResourceDisk.Format=y\nResourceDisk.EnableSwapEncryption=y\nResourceDisk.EnableSwap\n"}, nil},
		"waagent, a directory":  {map[string]string{"/etc/waagent.conf": "dir"}, nil},
		"waagent, a broken one": {map[string]string{"/etc/waagent.conf": "-> waagent.conf"}, nil},
		"scripts": {map[string]string{
			"/etc/rc.local":                         "#!/bin/sh\n# swapon /a\nmkswap /a && swapon /a\nexit 0\n",
			"/etc/systemd/system/mine.service":      "[Service]\nExecStartPre=-/sbin/swapon /b\nExecStop=/sbin/swapoff /b\nEnvironment=myswapon\n",
			"/etc/systemd/system/shell.service":     "[Service]\nExecStart=/bin/sh -c 'swapon /c'\n; swapon /d\n",
			"/etc/systemd/system/linked.service":    "-> /dev/null",
			"/etc/systemd/system/mine.service.d":    "dir",
			"/etc/systemd/system/dir.service":       "dir",
			"/etc/systemd/system/wanted.swap.timer": "swapon\n",
		}, []string{
			`!/etc/rc.local line 3: "mkswap /a && swapon /a" → "removed: it brings swap back at boot"`,
			`!/etc/systemd/system/mine.service line 2: "ExecStartPre=-/sbin/swapon /b" → "removed: it brings swap back at boot"`,
			`!/etc/systemd/system/shell.service line 2: "ExecStart=/bin/sh -c 'swapon /c'" → "removed: it brings swap back at boot"`,
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := maps.Clone(test.files)
			files["/proc/swaps"] = swapsHeader
			h := machine(t, files)
			s := newKernelSwap(t, h).step()
			wantChanges(t, s, append([]string{onlyTarget}, test.want...)...)
			steptest.Converges(t, h, s)
			wantChanges(t, s, test.want...)
		})
	}
}

func FuzzCloudSwap(f *testing.F) {
	for _, seed := range []string{"", "swap: {size: 1}", "swap:\nmounts: [[a, none, swap], [b], c]", "a: &a\n  <<: *a\nswap: *a", "? [a]\n: b", "swap: !!null x\n---\nswap: {}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c cloudSwap
		c.read("f", data)
		for _, change := range c.changes() {
			if !change.Manual || change.Subject == "" || change.Have == change.Want {
				t.Errorf("%+v", change)
			}
		}
	})
}
