package docblock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = "# Page\n\nType `df -h /` or `findmnt`, see `df`.\n\n## First\n\n<!-- run by: a/b_test.go TestB -->\n" +
	"```sh\n# a comment\nls \\\n  -l\nrm   x\n```\n\n## Second\n\n<!-- not run: `crictl ps`: there is no crictl here -->\n" +
	"   ```console\n   $ crictl ps -a\n   output\n   # crictl info\n   ```\n\n<!-- not run: a cloud's own machine -->\n\n```sh\nssh host\n```\n\n" +
	"<!-- run by: lost_test.go TestLost -->\nwords\n```\nplain\n```\n"

func TestParse(t *testing.T) {
	d := Parse("docs/page.md", page)
	var got []string
	for _, c := range d.Commands("df", "findmnt!") {
		line := c.Command
		if c.Block != nil {
			line = c.Block.Heading + ": " + line
		}
		got = append(got, line+" | "+d.Excused(c))
	}
	want := []string{
		"df -h / | ", "findmnt | ", "First: ls -l | ", "First: rm x | ",
		"Second: crictl ps -a | there is no crictl here", "Second: crictl info | ", "Second: ssh host | a cloud's own machine",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(d.Blocks) != 4 || len(d.Mistakes) != 0 {
		t.Fatalf("%d blocks, mistakes %q", len(d.Blocks), d.Mistakes)
	}
	if r := d.Blocks[0].RunBy; r == nil || *r != (Test{"a/b_test.go", "TestB"}) {
		t.Errorf("the first is run by %v", r)
	}
	if last := d.Blocks[3]; last.RunBy != nil || last.NotRun != "" || last.Language != "" {
		t.Errorf("the last has another's comment: %+v", last)
	}
}

// A comment that this package would pass over excuses nothing.
func TestMistakes(t *testing.T) {
	for _, line := range []string{
		"<!-- not run -->", "<!-- not run: -->", "<!-- not run: no -->", "<!-- not run: `crictl ps` -->", "<!-- not run: `crictl ps`: -->",
		"<!-- run by: a_test.go -->", "<!--run by: a_test.go TestA-->",
	} {
		d := Parse("docs/page.md", line+"\n```sh\nls\n```\n")
		if len(d.Mistakes) != 1 || d.Excused(d.Commands()[0]) != "" || d.Blocks[0].RunBy != nil {
			t.Errorf("%s: %q, %+v", line, d.Mistakes, d.Blocks[0])
		}
	}
}

const tests = `package x
import ("testing"; "example/docblock")
var table = map[string]func(*testing.T){"one": one}
func TestOne(t *testing.T) { for _, f := range table { f(t) } }
func one(t *testing.T) { m{}.run("nodeagent apply", "--only=x") }
func (m) run(args ...string) { docblock.Script(nil, "docs/page.md", "First") }
func TestOther(t *testing.T) { docblock.ReadAll(t, "docs/runbooks"); docblock.Read(t, "docs/lone.md") }
`

func TestReach(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"x_test.go": tests, "m.go": "package x\ntype m struct{}\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one, err := Reach(root, Test{"x_test.go", "TestOne"})
	if err != nil {
		t.Fatal(err)
	}
	if !one.Reads("docs/page.md", "First") || one.Reads("docs/page.md", "Second") || one.Reads("docs/runbooks/A.md", "First") {
		t.Errorf("TestOne reads %q", one.Calls)
	}
	if !one.Says("nodeagent apply --only=x") || one.Says("nodeagent plan") {
		t.Errorf("TestOne says %q", one.Words)
	}
	other, err := Reach(root, Test{"x_test.go", "TestOther"})
	if err != nil {
		t.Fatal(err)
	}
	if other.Reads("docs/page.md", "First") || !other.Reads("docs/runbooks/A.md", "First") {
		t.Errorf("TestOther reads %q", other.Calls)
	}
	for _, none := range []Test{{"x_test.go", "TestNone"}, {"x_test.go", "one"}, {"m.go", "TestOne"}, {"gone/x_test.go", "TestOne"}} {
		if _, err := Reach(root, none); err == nil || !strings.Contains(err.Error(), "has no") {
			t.Errorf("%v: %v", none, err)
		}
	}
}

func TestText(t *testing.T) {
	if got := Lines(t, "README.md", "Try it", "make demo", "make x"); !cmp.Equal(got, []string{"make x", "make test"}) {
		t.Errorf("%q", got)
	}
}
