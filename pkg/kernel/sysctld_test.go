package kernel

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodeagent/nodeagent/pkg/step"
)

const forwardIs0 = "net.ipv4.ip_forward = 0"

func TestSysctlsNameTheFileThatWins(t *testing.T) {
	link := map[string]string{"/etc/sysctl.conf": "\nnet/ipv4/ip_forward = 0", "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf"}
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"later": {map[string]string{"/etc/sysctl.d/99-mine.conf": "# mine\n\nnet.ipv4.ip_forward=0\n"},
			[]string{`!net.ipv4.ip_forward at boot: "0, by /etc/sysctl.d/99-mine.conf line 3" → "1: remove that line"`}},
		"debian 12's link to sysctl.conf": {link,
			[]string{`!net.ipv4.ip_forward at boot: "0, by /etc/sysctl.d/99-sysctl.conf line 2" → "1: remove that line"`}},
		"debian 13's sysctl.conf": {map[string]string{"/etc/sysctl.conf": "# x\nnet.ipv4.ip_forward=0\n"},
			[]string{`!net.ipv4.ip_forward after sysctl --system: "0, by /etc/sysctl.conf line 2" → "1: remove that line"`}},
		"sysctl.conf and another": {map[string]string{"/etc/sysctl.conf": "net.ipv4.ip_forward=0", "/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward=2"}, []string{
			`!net.ipv4.ip_forward at boot: "2, by /etc/sysctl.d/99-x.conf line 1" → "1: remove that line"`,
			`!net.ipv4.ip_forward after sysctl --system: "0, by /etc/sysctl.conf line 1" → "1: remove that line"`,
		}},
		"sysctl.conf that agrees":         {map[string]string{"/etc/sysctl.conf": "net.ipv4.ip_forward=1"}, nil},
		"sysctl.conf's limit is higher":   {map[string]string{"/etc/sysctl.conf": "fs.inotify.max_user_watches=1048576"}, nil},
		"later by name, not by directory": {map[string]string{"/usr/lib/sysctl.d/95-vendor.conf": "-net.bridge.bridge-nf-call-iptables = 0\n"}, []string{`!net.bridge.bridge-nf-call-iptables at boot: "0, by /usr/lib/sysctl.d/95-vendor.conf line 1" → "1: remove that line"`}},
		"capital letters come first":      {map[string]string{"/etc/sysctl.d/Z.conf": "net.bridge.bridge-nf-call-iptables = 0\n"}, []string{`!net.bridge.bridge-nf-call-iptables at boot: "0, by /etc/sysctl.d/Z.conf line 1" → "1: remove that line"`}},
		"hidden by its namesake":          {map[string]string{"/usr/lib/sysctl.d/99-x.conf": forwardIs0, "/run/sysctl.d/99-x.conf": "# nothing", "/etc/sysctl.d/98-y.conf": ""}, nil},
		"hidden by a mask":                {map[string]string{"/usr/local/lib/sysctl.d/99-x.conf": forwardIs0, "/etc/sysctl.d/99-x.conf": "-> /dev/null"}, nil},
		"hidden by a broken link":         {map[string]string{"/usr/lib/sysctl.d/99-x.conf": forwardIs0, "/etc/sysctl.d/99-x.conf": "-> 99-x.conf"}, nil},
		"hidden by a directory":           {map[string]string{"/usr/lib/sysctl.d/99-x.conf": forwardIs0, "/etc/sysctl.d/99-x.conf": "dir"}, nil},
		"ours hides a namesake":           {map[string]string{"/usr/lib/sysctl.d/90-nodeagent.conf": forwardIs0}, nil},
		"in /lib alone":                   {map[string]string{"/lib/sysctl.d/99-x.conf": forwardIs0}, []string{`!net.ipv4.ip_forward at boot: "0, by /lib/sysctl.d/99-x.conf line 1" → "1: remove that line"`}},
		"earlier":                         {map[string]string{"/etc/sysctl.d/10-x.conf": forwardIs0}, nil},
		"agrees":                          {map[string]string{"/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward =1 "}, nil},
		"set back":                        {map[string]string{"/etc/sysctl.d/98-x.conf": forwardIs0, "/etc/sysctl.d/99-x.conf": "net.ipv4.ip_forward = 1"}, nil},
		"not .conf":                       {map[string]string{"/etc/sysctl.d/99-x.conf.bak": forwardIs0}, nil},
		"a glob":                          {map[string]string{"/etc/sysctl.d/99-x.conf": "net.ipv4.ip_* = 0"}, nil},
		"a glob for its other name": {map[string]string{"/etc/sysctl.d/99-x.conf": "net.ipv4.conf.*.forwarding = 0"},
			[]string{`!net.ipv4.ip_forward at boot: "net/ipv4/conf/*/forwarding = 0, by /etc/sysctl.d/99-x.conf line 1" → "1: remove that line"`}},
		"an earlier glob for its other name": {map[string]string{"/etc/sysctl.d/10-x.conf": "net.ipv4.conf.*.forwarding = 0"}, nil},
		"its other name": {map[string]string{"/etc/sysctl.d/99-x.conf": "net.ipv4.conf.all.forwarding = 0"},
			[]string{`!net.ipv4.ip_forward at boot: "net/ipv4/conf/all/forwarding = 0, by /etc/sysctl.d/99-x.conf line 1" → "1: remove that line"`}},
		"excluded": {map[string]string{"/etc/sysctl.d/99-x.conf": "-net.ipv4.ip_forward\n"},
			[]string{`!net.ipv4.ip_forward at boot: "not set, by /etc/sysctl.d/99-x.conf line 1" → "1: remove that line"`}},
		"a limit that is lower": {map[string]string{"/etc/sysctl.d/99-x.conf": "fs.inotify.max_user_instances = 128\n"},
			[]string{`!fs.inotify.max_user_instances at boot: "128, by /etc/sysctl.d/99-x.conf line 1" → "8192: remove that line"`}},
		"a limit that is higher": {map[string]string{"/etc/sysctl.d/99-x.conf": "fs.inotify.max_user_instances = 65536\n"}, nil},
		"elsewhere":              {map[string]string{"/etc/sysctl.d/99-x.conf": "kernel.core_uses_pid = 0"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, s := range map[string]step.Step{
				"machine": Sysctls(machine(t, freshSysctls(test.files)), false, nil),
				"image":   Sysctls(image(t, test.files), false, nil),
			} {
				t.Log(kind)
				if _, run := test.files["/run/sysctl.d/99-x.conf"]; run && kind == "image" {
					continue // what lies in /run of an image is gone at its boot
				}
				// Told beforehand, and as it will be then.
				before, err := s.Check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var told []step.Change
				for _, c := range before {
					if c.Manual {
						told = append(told, c)
					}
				}
				apply(t, s)
				wantChanges(t, s, test.want...)
				after, err := s.Check(t.Context())
				if diff := cmp.Diff(told, after, cmpopts.EquateEmpty()); err != nil || diff != "" {
					t.Errorf("findings (- before, + after): %v\n%s", err, diff)
				}
			}
		})
	}
}

// The order and the exclusions as systemd-sysctl 252 carries them out.
func TestBootOrder(t *testing.T) {
	file := func(text string) []setting { return parseSysctl(confFile{Data: []byte(text)}) }
	tests := map[string]struct{ text, path, want string }{
		"last holds":                        {"a.b=1\na.b=2\n", "a/b", "2"},
		"none":                              {"a.b=1\n", "a/c", "nothing"},
		"glob":                              {"a.*.c=1\n", "a/b/c", "1"},
		"last glob":                         {"a.*.c=1\na.?.c=2\n", "a/b/c", "2"},
		"a star stays in its directory":     {"a.*=1\n", "a/b/c", "nothing"},
		"a set":                             {"a.[!x].c=1\n", "a/b/c", "1"},
		"a set that it is not in":           {"a.[!b].c=1\n", "a/b/c", "nothing"},
		"a bad pattern":                     {"a.[.c=1\n", "a/b/c", "nothing"},
		"name before glob":                  {"a.b.c=1\na.*.c=2\n", "a/b/c", "1"},
		"name after glob":                   {"a.*.c=2\na.b.c=1\n", "a/b/c", "1"},
		"excluded from globs":               {"-a.b.c\na.*.c=2\n", "a/b/c", "not set"},
		"excluded after all":                {"a.b.c=1\n-a.b.c\n", "a/b/c", "not set"},
		"set after an exclusion":            {"-a.b.c\na.b.c=1\n", "a/b/c", "1"},
		"alias":                             {"net.ipv4.conf.all.forwarding=1", "net/ipv4/ip_forward", "1"},
		"alias, last holds":                 {"net.ipv4.ip_forward=1\nnet.ipv4.conf.all.forwarding=0\n", "net/ipv4/ip_forward", "0"},
		"said twice, stays at its place":    {"net.ipv4.ip_forward=1\nnet.ipv4.conf.all.forwarding=0\nnet.ipv4.ip_forward=1\n", "net/ipv4/ip_forward", "0"},
		"said otherwise, goes to the end":   {"net.ipv4.ip_forward=0\nnet.ipv4.conf.all.forwarding=0\nnet.ipv4.ip_forward=1\n", "net/ipv4/ip_forward", "1"},
		"excluded, and set under its alias": {"-net.ipv4.ip_forward\nnet.ipv4.conf.all.forwarding=0\n", "net/ipv4/ip_forward", "0"},
		"glob of an alias":                  {"net.ipv4.ip_forward=1\nnet.ipv4.conf.*.forwarding=0\n", "net/ipv4/ip_forward", "0"},
		"glob of an alias that is named":    {"net.ipv4.ip_forward=1\nnet.ipv4.conf.*.forwarding=0\n-net.ipv4.conf.all.forwarding\n", "net/ipv4/ip_forward", "1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			last, found := lastOf(bootOrder(file(test.text)), test.path)
			have := last.Value
			if !found {
				have = "nothing"
			} else if last.Exclude {
				have = "not set"
			}
			if have != test.want {
				t.Errorf("%s comes to %q, want %q", test.path, have, test.want)
			}
		})
	}
}

func TestParseSysctl(t *testing.T) {
	const file = "; old comment\n#net.a = 1\n\n  net.ipv4.ip_forward\t= 1  \r\n- kernel.x=a=b\nnet/ipv4/conf/eth0.1/x = 1 2\t3\nnot an assignment\n-net.skip\nnet.*.y = 1\n= 1\n-\nempty.value =\nlast=1"
	want := []setting{
		{Path: "net/ipv4/ip_forward", Value: "1", Line: 4}, {Path: "kernel/x", Value: "a=b", Line: 5},
		{Path: "net/ipv4/conf/eth0.1/x", Value: "1 2\t3", Line: 6}, {Path: "net/skip", Exclude: true, Line: 8},
		{Path: "net/*/y", Value: "1", Line: 9}, {Path: "empty/value", Line: 12}, {Path: "last", Value: "1", Line: 13},
	}
	for i := range want {
		want[i].File = "f"
	}
	if diff := cmp.Diff(want, parseSysctl(confFile{"f", []byte(file)})); diff != "" {
		t.Errorf("settings (- wanted, + found):\n%s", diff)
	}
}

func FuzzParseSysctl(f *testing.F) {
	for _, seed := range []string{"", "a.b = 1", "-a/b.c=1\r\n#x\n", "../../x = 1", "= =\n-=\n", "a\x00.b=\xff", "-a.*.b\na.[!c].b=1\n", "a=1\na=2\n-a\na=2"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := parseSysctl(confFile{Data: data})
		last := 0
		for _, s := range lines {
			if s.Line <= last {
				t.Errorf("line %d comes after line %d", s.Line, last)
			}
			last = s.Line
			if !filepath.IsLocal(s.Path) || s.Exclude && s.Value != "" {
				t.Errorf("%+v", s)
			}
			if s.Exclude || strings.TrimSpace(s.Path) != s.Path {
				continue // the blanks would be taken for those around the name
			}
			again := parseSysctl(confFile{Data: []byte("x/../" + s.Path + " = " + s.Value)})
			if len(again) != 1 || again[0].Value != s.Value {
				t.Errorf("%+v printed reads as %+v", s, again)
			}
		}
		ordered := bootOrder(lines)
		seen := map[string]bool{}
		for _, s := range ordered {
			if seen[s.Path] {
				t.Errorf("%s is there twice", s.Path)
			}
			seen[s.Path] = true
		}
		for _, s := range lines {
			// What is named last is what holds, whatever comes before.
			if got, found := lastOf(ordered, s.Path); !seen[s.Path] || !found && !s.glob() || found && got.Line < 1 {
				t.Errorf("%s comes to %+v, %v", s.Path, got, found)
			}
		}
	})
}
