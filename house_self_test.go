package nodeagent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A rule that cannot fail is no rule: each finds what it is for, and nothing in what is like
// it and allowed.
func TestRulesFindBreaches(t *testing.T) {
	tests := []struct {
		rule, path, text string
		want             string // "" for what is allowed
	}{
		{"imports run downwards", "pkg/step/x.go", `package step; import _ "` + module + `pkg/host"`, "pkg/step/x.go:1: pkg/step may not import pkg/host"},
		{"imports run downwards", "pkg/kernel/x.go", `package kernel; import _ "` + module + `pkg/bootstrap"`, "may not import pkg/bootstrap"},
		{"imports run downwards", "pkg/agent/x.go", `package agent; import _ "` + module + `pkg/step/steptest"`, "may not import pkg/step/steptest"},
		{"imports run downwards", "pkg/fresh/x.go", `package fresh`, "not in the table"},
		{"imports run downwards", "pkg/bootstrap/x.go", `package bootstrap; import _ "` + module + `pkg/kernel"`, ""},
		{"imports run downwards", "test/demo/x.go", `package main; import _ "` + module + `pkg/kernel"`, ""},
		{"libraries stay where they belong", "pkg/kernel/x.go", `package kernel; import "os/exec"`, "only pkg/host may import os/exec"},
		{"libraries stay where they belong", "cmd/nodeagent/x.go", `package main; import "os/exec"`, "only pkg/host may import os/exec"},
		{"libraries stay where they belong", "pkg/certs/x.go", `package certs; import "github.com/prometheus/client_golang/prometheus"`, "only pkg/metrics, pkg/agent"},
		{"libraries stay where they belong", "pkg/host/x.go", `package host; import "os/exec"`, ""},
		{"libraries stay where they belong", "test/vm/x.go", `package vm; import "os/exec"`, ""},
		{"one package comment per package", "pkg/step/x.go", `package step`, "pkg/step: package step has 0 package comments"},
		{"one package comment per package", "pkg/step/x.go", "// Something else.\npackage step", `does not begin with "Package step"`},
		{"one package comment per package", "cmd/nodeagent/x.go", "// Package main is a program.\npackage main", `does not begin with "Command nodeagent"`},
		{"one package comment per package", "pkg/step/x.go", "// Package step is fine.\npackage step", ""},
		{"no clock outside agent and cmd", "pkg/host/x.go", "package host\nimport \"time\"\nvar t = time.Now", "pkg/host/x.go:3: time.Now"},
		{"no clock outside agent and cmd", "pkg/agent/x.go", "package agent\nimport \"time\"\nvar t = time.Now()", ""},
		{"no init", "test/vm/x.go", "package vm\nfunc init() {}", "test/vm/x.go:2: init()"},
		{"no init", "pkg/bootstrap/x.go", "package bootstrap\nfunc (i Init) init() {}", ""},
		{"no file over 400 lines", "pkg/host/x.go", "package host\n" + strings.Repeat("\n", 400), "401 lines"},
		{"no file over 400 lines", "pkg/host/x.go", "package host\n" + strings.Repeat("\n", 399), ""},
		{"no package state", "pkg/host/x.go", "package host\nvar count int", "count is state"},
		{"no package state", "pkg/host/x.go", "package host\nvar cache = map[string]int{}", "cache is state"},
		{"no package state", "pkg/host/x.go", "package host\nvar cache = map[string]int{\"\": 1}\nfunc f() { cache[\"x\"] = 2 }", "cache is state"},
		{"no package state", "pkg/host/x.go", "package host\nvar list = []int{1}\nfunc f() { list = append(list, 2) }", "list is state"},
		{"no package state", "pkg/host/x.go", "package host\nvar list = []int{1}\nfunc f() *[]int { return &list }", "list is state"},
		{"no package state", "pkg/host/x.go", "package host\nvar m = map[int]int{1: 1}\nfunc f() { delete(m, 1) }", "m is state"},
		{"no package state", "pkg/host/x.go", "package host\nvar table = []int{1}\nfunc f(i int) int { return table[i] }", ""},
		{"no package state", "pkg/host/x.go", "package host\nvar a = errors.New(\"\")", ""},
		{"no package state", "pkg/host/x.go", "package host\nvar _ fmt.Stringer = x{}", ""},
		{"no package state", "pkg/host/x.go", "package host\n//go:embed x.html\nvar page string", ""},
		{"no package named after nothing", "pkg/util/x.go", "package util", "named after nothing"},
		{"no package named after nothing", "pkg/host/x.go", "package host", ""},
		{"files are written by pkg/host", "pkg/kernel/x.go", "package kernel\nimport \"os\"\nvar _ = os.WriteFile", "pkg/kernel/x.go:3: os.WriteFile: files are written by pkg/host"},
		{"files are written by pkg/host", "cmd/nodeagent/x.go", "package main\nimport \"os\"\nfunc f() { os.CreateTemp(\"\", \"\") }", "os.CreateTemp"},
		{"files are written by pkg/host", "pkg/certs/x.go", "package certs\nimport my \"os\"\nfunc f() { my.MkdirAll(\"\", 0) }", "my.MkdirAll"},
		{"files are written by pkg/host", "pkg/certs/x.go", "package certs\nimport . \"os\"", "without its name"},
		{"files are written by pkg/host", "pkg/certs/x.go", "package certs\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.Unlinkat(0, \"\", 0) }", "unix.Unlinkat"},
		{"files are written by pkg/host", "pkg/agent/x.go", "package agent\nimport \"syscall\"\nfunc f() { syscall.Open(\"\", 0, 0) }", "syscall.Open"},
		{"files are written by pkg/host", "pkg/certs/x.go", "package certs\nimport \"go.etcd.io/bbolt\"\nfunc f() { bbolt.Open(\"\", 0, nil) }", "bbolt.Open"},
		{"files are written by pkg/host", "pkg/etcdbackup/file/x.go", "package file\nimport \"os\"\nfunc f(d *os.Root) { d.Mkdir(\"\", 0) }", ""},
		{"files are written by pkg/host", "pkg/etcdbackup/file/x.go", "package file\nimport \"os\"\nfunc f() { os.Rename(\"\", \"\") }", "os.Rename"},
		{"files are written by pkg/host", "pkg/etcdbackup/inspect.go", "package etcdbackup\nimport \"go.etcd.io/bbolt\"\nfunc f() { bbolt.Open(\"\", 0, nil) }", ""},
		{"files are written by pkg/host", "pkg/kernel/x.go", "package kernel\nimport \"os\"\nfunc f() { os.ReadFile(\"\"); os.Open(\"\"); os.Getpid() }", ""},
		{"files are written by pkg/host", "pkg/host/x.go", "package host\nimport \"os\"\nvar _ = os.WriteFile", ""},
		{"files are written by pkg/host", "test/demo/x.go", "package main\nimport \"os\"\nvar _ = os.WriteFile", ""},
	}
	tested := map[string]bool{}
	for _, test := range tests {
		s, err := parse(test.path, []byte(test.text))
		if err != nil {
			t.Fatalf("%s: %v", test.text, err)
		}
		got := fmt.Sprint(rules[test.rule]([]source{s}))
		if test.want == "" && got != "[]" || !strings.Contains(got, test.want) {
			t.Errorf("%s, %s: %q\ngot  %s\nwant %q", test.rule, test.path, test.text, got, test.want)
		}
		if test.want != "" {
			tested[test.rule] = true
		}
	}
	for name := range rules {
		if !tested[name] {
			t.Errorf("nothing here breaks the rule %q", name)
		}
	}
}

// Two package comments are one too many, wherever in the package they are.
func TestSecondPackageComment(t *testing.T) {
	var sources []source
	for _, name := range []string{"pkg/step/a.go", "pkg/step/b.go"} {
		s, err := parse(name, []byte("// Package step is fine.\npackage step"))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, s)
	}
	if got := onePackageComment(sources); !slices.Equal(got, []string{"pkg/step: package step has 2 package comments, not 1"}) {
		t.Error(got)
	}
}
