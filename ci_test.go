package nodeagent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestFailuresAgain: what CI repeats at its end is what the failing tests said, nothing of those
// that passed, however much that was.
func TestFailuresAgain(t *testing.T) {
	const verbose = `=== RUN   TestDisk
=== RUN   TestDisk/good
    disk_test.go:7: all is well
=== RUN   TestDisk/full
    disk_test.go:9: it says
        E: something else
    nspawn.go:211: console of it
--- FAIL: TestDisk (0.10s)
    --- PASS: TestDisk/good (0.05s)
    --- FAIL: TestDisk/full (0.05s)
FAIL
FAIL	example/disk	0.101s
=== RUN   TestPage
    page_test.go:3: a page
--- PASS: TestPage (13.01s)
PASS
ok  	example/page	13.008s
=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
=== PAUSE TestB
=== CONT  TestA
=== CONT  TestB
    b_test.go:1: good
=== NAME  TestA
    a_test.go:1: bad
--- PASS: TestB (0.00s)
--- FAIL: TestA (0.00s)
FAIL
`
	const quiet = `ok  	example/page	0.008s
--- FAIL: TestOne (0.00s)
    one_test.go:5: one is two
        and so on
ok  	example/ok	0.1s
FAIL	example/one	0.1s
panic: nil map

goroutine 1 [running]:
FAIL	example/two	0.1s
?   	example/none	[no test files]
`
	const build = `==> make lint
downloading
pkg/x/x.go:5:2: undefined: y (typecheck)
make: *** [Makefile:59: lint] Error 1
`
	for name, test := range map[string]struct{ log, want string }{
		"verbose": {verbose, `    disk_test.go:9: it says
        E: something else
    nspawn.go:211: console of it
--- FAIL: TestDisk (0.10s)
    --- FAIL: TestDisk/full (0.05s)
FAIL
FAIL	example/disk	0.101s
    a_test.go:1: bad
--- FAIL: TestA (0.00s)
FAIL
`},
		"quiet": {quiet, `--- FAIL: TestOne (0.00s)
    one_test.go:5: one is two
        and so on
FAIL	example/one	0.1s
panic: nil map

goroutine 1 [running]:
FAIL	example/two	0.1s
`},
		"build":   {build, "pkg/x/x.go:5:2: undefined: y (typecheck)\nmake: *** [Makefile:59: lint] Error 1\n"},
		"nothing": {"ok  \texample/page\t0.008s\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(log, []byte(test.log), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "/usr/bin/awk", "-f", ".ci/failures.awk", log, log).CombinedOutput()
			if err != nil || string(out) != test.want {
				t.Errorf("err %v, it prints\n%s\nwant\n%s", err, out, test.want)
			}
		})
	}
}
