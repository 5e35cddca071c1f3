package kernel

import (
	"maps"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

func TestSysctlsThatUFWSets(t *testing.T) {
	on := func(files map[string]string) map[string]string {
		all := map[string]string{ufwConf: "# comment\nENABLED=yes\n", ufwDefaults: "IPV6=yes\nIPT_SYSCTL=/etc/ufw/sysctl.conf\nIPT_MODULES=\"\"\n"}
		maps.Copy(all, files)
		return all
	}
	const forwards, file = "# no routing\n\nnet/ipv4/ip_forward=0\nnet/ipv4/conf/all/log_martians=0\n", "/etc/ufw/sysctl.conf"
	const found = `!net.ipv4.ip_forward when ufw starts: "0, by /etc/ufw/sysctl.conf line 3" → "1: remove that line"`
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"contradicts":        {on(map[string]string{file: forwards}), []string{found}},
		"through an alias":   {on(map[string]string{file: "net/ipv4/conf/all/forwarding=0"}), []string{`!net.ipv4.ip_forward when ufw starts: "net/ipv4/conf/all/forwarding = 0, by /etc/ufw/sysctl.conf line 1" → "1: remove that line"`}},
		"agrees":             {on(map[string]string{file: strings.ReplaceAll(forwards, "=0", "=1")}), nil},
		"last line holds":    {on(map[string]string{file: forwards + "net.ipv4.ip_forward = 1\n"}), nil},
		"off":                {on(map[string]string{file: forwards, ufwConf: "ENABLED=no\n"}), nil},
		"not there":          {on(nil), nil},
		"a limit, enough":    {on(map[string]string{file: "fs/inotify/max_user_watches=600000\n"}), nil},
		"told nothing":       {on(map[string]string{file: forwards, ufwDefaults: "IPT_SYSCTL=\n"}), nil},
		"another file":       {on(map[string]string{file: forwards, ufwDefaults: "IPT_SYSCTL=\"/etc/mine.conf\" # x\n", "/etc/mine.conf": "# x\nvm.overcommit_memory=2"}), []string{`!vm.overcommit_memory when ufw starts: "2, by /etc/mine.conf line 2" → "1: remove that line"`}},
		"another one loses":  {on(map[string]string{file: strings.ReplaceAll(forwards, "=0", "=1"), "/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward=0\n"}), []string{`!net.ipv4.ip_forward at boot: "0, by /etc/sysctl.d/99-x.conf line 1" → "1: remove that line"`}},
		"both are to blame":  {on(map[string]string{file: forwards, "/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward=0\n"}), []string{`!net.ipv4.ip_forward at boot: "0, by /etc/sysctl.d/99-x.conf line 1" → "1: remove that line"`, found}},
		"without its switch": {map[string]string{file: forwards}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := image(t, test.files)
			s := Sysctls(h, false, nil)
			steptest.Converges(t, h, s)
			wantChanges(t, s, test.want...)
		})
	}
}

func FuzzShellValue(f *testing.F) {
	for _, seed := range []string{"", "A=b\n", "export A='x y' # z\n", "A=\"\r\nA", "A=\"a'b\" c"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if value := shellValue(data, "A"); value != "" && (!strings.Contains(string(data), value) || strings.Contains(value, "\n")) {
			t.Errorf("A is %q in %q", value, data)
		}
	})
}
