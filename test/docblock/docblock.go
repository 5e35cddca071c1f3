// Package docblock reads the commands that the documentation shows, so that a test runs what a reader
// would type, and shows that a test does so.
package docblock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Block is a fenced block of a document.
type Block struct {
	Line     int    // of its fence
	Heading  string // the last one above it, without its marks
	Language string
	Text     string // without the indentation of its fence
	RunBy    *Test  // by the comment before it
	NotRun   string // the reason in the comment before it
}

// Test is a test function, and its file from the root of the checkout.
type Test struct{ File, Name string }

// Shown is a command that stands in a block, or between backticks.
type Shown struct {
	Line    int
	Command string
	Block   *Block // nil: it stands between backticks
}

// Excuse is a command, known by its beginning, that no test runs wherever its document shows it.
type Excuse struct{ Begins, Reason string }

// Document is a file of the documentation.
type Document struct {
	Path     string // from the root of the checkout, with slashes
	Text     string
	Blocks   []Block
	Excuses  []Excuse
	Mistakes []string // comments like those that this package reads, and not quite
	prose    []Shown
}

var (
	fence   = regexp.MustCompile("^( *)```(.*)$")
	title   = regexp.MustCompile(`^#+ (.+)$`)
	comment = regexp.MustCompile(`^ *<!-- *(?:not run|run by)\b.*`)
	runBy   = regexp.MustCompile(`^ *<!-- run by: (\S+) (\S+) -->$`)
	notRun  = regexp.MustCompile("^ *<!-- not run: (?:`([^`]+)`: )?([^`].*\\S) -->$")
	span    = regexp.MustCompile("`([^`]+)`")
	prompt  = regexp.MustCompile(`^[$#] `)
)

// minReason is what a reason has at least: a few words.
const minReason = 15

// Parse finds a document's blocks and commands.
func Parse(path, text string) Document {
	d := Document{Path: path, Text: text}
	heading, before, indent := "", Block{}, ""
	var open *Block
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && open != nil:
			d.Blocks = append(d.Blocks, *open)
			open = nil
		case m != nil:
			b := before
			b.Line, b.Heading, b.Language = i+1, heading, m[2]
			open, indent, before = &b, m[1], Block{}
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent) + "\n"
		case comment.MatchString(line):
			d.remark(i+1, line, &before)
		default:
			if m := title.FindStringSubmatch(line); m != nil {
				heading = m[1]
			}
			if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "<!--") {
				before = Block{}
			}
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				d.prose = append(d.prose, Shown{Line: i + 1, Command: m[1]})
			}
		}
	}
	return d
}

// remark takes a comment to the block that follows it, or to the document.
func (d *Document) remark(at int, line string, before *Block) {
	if m := runBy.FindStringSubmatch(line); m != nil {
		before.RunBy = &Test{m[1], m[2]}
		return
	}
	m := notRun.FindStringSubmatch(line)
	switch {
	case m == nil || len(m[2]) < minReason:
		d.Mistakes = append(d.Mistakes, fmt.Sprintf("%s:%d: %s: it is <!-- run by: FILE TEST -->, <!-- not run: REASON --> or <!-- not run: `COMMAND`: REASON -->, with a reason that says something", d.Path, at, strings.TrimSpace(line)))
	case m[1] == "":
		before.NotRun = m[2]
	default:
		d.Excuses = append(d.Excuses, Excuse{m[1], m[2]})
	}
}

// Commands are those of a block: its lines without comments, continued ones joined. Of a session
// ("console") they are the lines with a prompt.
func (b *Block) Commands() (out []string) {
	text := strings.ReplaceAll(b.Text, "\\\n", "")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		session := b.Language == "console"
		if line == "" || session && !prompt.MatchString(line) || !session && strings.HasPrefix(line, "#") {
			continue
		}
		out = append(out, strings.Join(strings.Fields(prompt.ReplaceAllString(line, "")), " "))
	}
	return out
}

// Shell says that the block is one of commands.
func (b *Block) Shell() bool { return b.Language == "sh" || b.Language == "console" }

// Commands are all that the document shows, in its order: in blocks of a shell, and between backticks
// where the first word is one of programs. A program alone is a name, unless it is said to be whole
// by a trailing "!" in programs.
func (d *Document) Commands(programs ...string) (out []Shown) {
	for i := range d.Blocks {
		if b := &d.Blocks[i]; b.Shell() {
			for _, c := range b.Commands() {
				out = append(out, Shown{b.Line, c, b})
			}
		}
	}
	for _, s := range d.prose {
		program, _, more := strings.Cut(s.Command, " ")
		if more && slices.Contains(programs, program) || slices.Contains(programs, s.Command+"!") {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Shown) int { return a.Line - b.Line })
	return out
}

// Excused is the reason why no test runs a command, or "".
func (d *Document) Excused(c Shown) string {
	if c.Block != nil && c.Block.NotRun != "" {
		return c.Block.NotRun
	}
	for _, e := range d.Excuses {
		if c.Command == e.Begins || strings.HasPrefix(c.Command, e.Begins+" ") {
			return e.Reason
		}
	}
	return ""
}

// Checkout is the root of the checkout that the working directory is in.
func Checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "docs", "testing.md"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the checkout: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

// Read parses a file of the checkout.
func Read(t testing.TB, path string) Document {
	t.Helper()
	root, err := Checkout()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return Parse(path, string(text))
}

// ReadAll parses all documents of a directory of the checkout.
func ReadAll(t testing.TB, dir string) (out []Document) {
	t.Helper()
	root, err := Checkout()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, dir, "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents in %s: %v", dir, err)
	}
	for _, file := range files {
		out = append(out, Read(t, dir+"/"+filepath.Base(file)))
	}
	return out
}

// Blocks are those of a language below a heading of a document, up to the next heading.
func Blocks(t testing.TB, path, heading, language string) (out []Block) {
	t.Helper()
	d := Read(t, path)
	for _, b := range d.Blocks {
		if b.Heading == heading && b.Language == language {
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s below %q", path, language, heading)
	}
	return out
}

// Text is the text of Blocks, one behind the other. The words of replace, each followed by what is put
// in its place, have to be there.
func Text(t testing.TB, path, heading, language string, replace ...string) string {
	t.Helper()
	var all strings.Builder
	for _, b := range Blocks(t, path, heading, language) {
		all.WriteString(b.Text)
	}
	text := all.String()
	for i := 0; i+1 < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s has no %q below %q", path, replace[i], heading)
		}
	}
	return strings.NewReplacer(replace...).Replace(text)
}

// Script is Text of the shell's blocks, for a test to run.
func Script(t testing.TB, path, heading string, replace ...string) string {
	t.Helper()
	return Text(t, path, heading, "sh", replace...)
}

// Lines is Script, command by command.
func Lines(t testing.TB, path, heading string, replace ...string) []string {
	t.Helper()
	b := Block{Language: "sh", Text: Script(t, path, heading, replace...)}
	return b.Commands()
}
