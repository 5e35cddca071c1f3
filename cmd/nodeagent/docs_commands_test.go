package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/test/docblock"
)

// What the documentation shows is held against the program. A command of nodeagent's, in a block
// or between backticks, has to be one, and is run on a scratch machine unless ranElsewhere says who
// runs it. A target of make has to be one. For any other command a comment before its block names the
// test, which has to take the text from the document (test/docblock), or says why there is none:
// <!-- run by: FILE TEST -->, <!-- not run: REASON -->. docs/testing.md has all that are not run.

// ranElsewhere are the commands that only a running machine shows, and the tests that run them there.
// Their words have to stand in what the test comes to.
var ranElsewhere = map[string]string{
	"nodeagent run":                   "cmd/nodeagent/daemon_test.go TestDaemonBootstraps",
	"nodeagent apply --only packages": "test/integration/packages/packages_test.go TestPackages",
	"nodeagent status --wait":         "cmd/nodeagent/status_test.go TestStatusWait",
}

// targetsElsewhere are the targets that CI does not make, and why.
var targetsElsewhere = map[string]string{
	"help":     "lists the rest",
	"demo":     "test/demo/demo_test.go runs what it runs",
	"bench":    "measures; minutes on an idle machine",
	"bench-vm": "measures; an hour on an idle machine",
	"soak":     "further VMs, hours",
	"check":    "is what .ci/run does",
	"build":    "make demo does it",
}

// documents are README.md and its like, and all of docs and test.
func documents(t *testing.T) (out []docblock.Document) {
	t.Helper()
	const checkout = "../.."
	paths := []string{"README.md", "CHANGELOG.md", "SECURITY.md"}
	for _, dir := range []string{"docs", "test"} {
		err := fs.WalkDir(os.DirFS(checkout), dir, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".md") {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range paths {
		out = append(out, docblock.Read(t, path))
	}
	if len(out) < 30 {
		t.Fatalf("only %d documents", len(out))
	}
	return out
}

// languages are those of blocks. One without a language could be anything, commands too.
var languages = []string{"sh", "console", "yaml", "ini", "nginx", "text"}

// blocksAreRun holds each block of commands against the test that its comment names.
func blocksAreRun(t *testing.T, d docblock.Document) {
	t.Helper()
	for _, mistake := range d.Mistakes {
		t.Error(mistake)
	}
	for _, b := range d.Blocks {
		at := fmt.Sprintf("%s:%d", d.Path, b.Line)
		if !slices.Contains(languages, b.Language) {
			t.Errorf("%s: a block of %q: it is one of %q", at, b.Language, languages)
		}
		if b.RunBy != nil {
			reached, err := docblock.Reach("../..", *b.RunBy)
			if err != nil {
				t.Errorf("%s: %v", at, err)
			} else if !reached.Reads(d.Path, b.Heading) {
				t.Errorf("%s: %s of %s does not take it from here: nothing in it calls docblock with %q, %q", at, b.RunBy.Name, b.RunBy.File, d.Path, b.Heading)
			}
		}
		others := slices.DeleteFunc(b.Commands(), func(c string) bool { return arguments(c) != nil || strings.HasPrefix(c, "make ") })
		if b.Shell() && len(others) > 0 && b.RunBy == nil && b.NotRun == "" {
			t.Errorf("%s: %q: who runs it? Say so before the block: <!-- run by: FILE TEST --> or <!-- not run: REASON -->", at, others)
		}
	}
}

// TestNotRunIsListed: docs/testing.md names every command that is not run, and its reason; and no other.
func TestNotRunIsListed(t *testing.T) {
	want := map[string]bool{}
	for _, d := range documents(t) {
		for _, e := range d.Excuses {
			want[fmt.Sprintf("| `%s` | %s |", e.Begins, e.Reason)] = true
		}
		for _, b := range d.Blocks {
			if b.NotRun != "" {
				want[fmt.Sprintf("| [%s](%s#%s) | %s |", b.Heading, strings.TrimPrefix(d.Path, "docs/"), slug(b.Heading), b.NotRun)] = true
			}
		}
	}
	_, list, _ := strings.Cut(docblock.Read(t, "docs/testing.md").Text, "\n| Command | Why no test runs it |\n|---|---|\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); !want[line] {
			t.Errorf("docs/testing.md lists what no document says: %s", line)
		}
		delete(want, line)
	}
	for line := range want {
		t.Errorf("docs/testing.md does not list: %s", line)
	}
}

// arguments are those of a command of nodeagent's in a line of a shell, nil when it is another's.
func arguments(line string) []string {
	line, _, _ = strings.Cut(line, " #")
	line = regexp.MustCompile(`\s+(?:\||>|&|&&|;)(?:\s.*)?$`).ReplaceAllString(line, "")
	words := strings.Fields(strings.NewReplacer(`"`, "", "'", "").Replace(line))
	if len(words) > 0 && words[0] == "sudo" {
		words = words[1:]
	}
	if len(words) == 0 || filepath.Base(words[0]) != "nodeagent" {
		return nil
	}
	return words[1:]
}

// TestCommandsInDocs holds each command that the documentation shows against the program.
func TestCommandsInDocs(t *testing.T) {
	targets, made := makeTargets(t)
	for command, where := range ranElsewhere {
		file, name, _ := strings.Cut(where, " ")
		if reached, err := docblock.Reach("../..", docblock.Test{File: file, Name: name}); err != nil || !reached.Says(strings.TrimPrefix(command, "nodeagent ")) {
			t.Errorf("%s of %s does not run `%s`: %v", name, file, command, err)
		}
	}
	run, found := map[string]string{}, 0
	for _, d := range documents(t) {
		if d.Path == "docs/cli.md" { // it is written from the commands, in the notation of their help
			continue
		}
		blocksAreRun(t, d)
		for _, c := range d.Commands("nodeagent", "make") {
			at := fmt.Sprintf("%s:%d", d.Path, c.Line)
			args := arguments(c.Command)
			target, isMake := strings.CutPrefix(c.Command, "make ")
			target, _, _ = strings.Cut(target, " ")
			switch {
			case isMake && !slices.Contains(targets, target):
				t.Errorf("%s: the Makefile has no %q", at, target)
			case isMake && !slices.Contains(made, target) && targetsElsewhere[target] == "":
				t.Errorf("%s: nobody runs `make %s`: neither .ci/run nor what targetsElsewhere names", at, target)
			case isMake:
				found++
			case args != nil:
				found++
				if d.Path == "CHANGELOG.md" { // tells of several at once, and of the past
					continue
				}
				text := "nodeagent " + strings.Join(args, " ")
				if ranElsewhere[text] != "" {
					continue
				}
				if err := parses(args); err != nil {
					t.Errorf("%s: %s: %v", at, text, err)
				} else {
					run[text] = at
				}
			}
		}
	}
	if found < 100 || len(run) < 15 {
		t.Errorf("%d commands found, %d to run: are these the docs?", found, len(run))
	}
	for text, at := range run {
		runShown(t, at, text)
	}
}

// makeTargets are those of the Makefile, and those that CI makes.
func makeTargets(t *testing.T) (all, made []string) {
	t.Helper()
	for path, list := range map[string]*[]string{"Makefile": &all, ".ci/run": &made} {
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:stage make )?([a-z][a-z0-9-]*)(?::.*)?$`).FindAllStringSubmatch(string(text), -1) {
			*list = append(*list, m[1])
		}
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	// What a target needs or makes is made with it.
	for i := 0; i < len(made); i++ {
		_, recipe, _ := strings.Cut("\n"+string(makefile), "\n"+made[i]+":")
		recipe, _, _ = strings.Cut(recipe, "\n\n")
		for _, word := range regexp.MustCompile(`[a-z][a-z0-9-]*`).FindAllString(makes(recipe), -1) {
			if slices.Contains(all, word) && !slices.Contains(made, word) {
				made = append(made, word)
			}
		}
	}
	if len(all) < 10 || len(made) < 5 {
		t.Fatalf("%v, %v", all, made)
	}
	return all, made
}

// makes is what a rule needs, what its recipe calls make for, and the targets whose recipe it has in a
// variable: $(E2E) is what e2e does.
func makes(rule string) string {
	needs, recipe, _ := strings.Cut(rule, "\n")
	needs, _, _ = strings.Cut(needs, "##")
	for _, m := range regexp.MustCompile(`\$\((?:MAKE\) ([a-z0-9-]+)|([A-Z0-9]+)\))`).FindAllStringSubmatch(recipe, -1) {
		needs += " " + m[1] + " " + strings.ToLower(m[2])
	}
	return needs
}

// parses says what is wrong with a command line: the command, a flag, the number of arguments.
func parses(args []string) error {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	cmd, rest, err := a.rootCommand().Find(args)
	if err != nil {
		return err
	}
	if cmd.HasAvailableSubCommands() {
		return needsCommand(cmd, nil)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// runShown runs a command on a scratch machine: a control plane with a real etcd and a snapshot.
func runShown(t *testing.T, at, text string) {
	t.Run(text, func(t *testing.T) {
		root := t.TempDir()
		h := host.New(root)
		write(t, h, "/etc/hostname", "node-1\n")
		write(t, h, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
		write(t, h, "/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n")
		write(t, h, "/etc/containerd/config.toml", "version = 2\n")
		for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
			if err := h.WriteFile("/usr/lib/cni/"+plugin, []byte("#!"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := certstest.Write(root, certstest.Options{Now: time.Now(), Kubelet: true}); err != nil {
			t.Fatal(err)
		}
		configFile := filepath.Join(root, "config.yaml")
		const config = "role: control-plane\nnetwork: {cni: bridge}\npackages: {manage: false}\n"
		write(t, h, "/config.yaml", config)
		if !strings.Contains(text, "config init") {
			write(t, h, "/etc/nodeagent/config.yaml", config)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if strings.Contains(text, " snapshot ") {
			member, err := etcdtest.Run(h, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = member.Close() })
			if code := run(ctx, []string{"--root", root, "snapshot", "save"}, nil, io.Discard, t.Output()); code != 0 {
				t.Fatalf("exit code %d", code)
			}
		}
		args := arguments(text)
		for i, word := range args {
			if i > 0 && args[i-1] == "--from" {
				args[i] = filepath.Join(root, "/var/lib/nodeagent/backups")
				continue
			}
			if i > 0 && args[i-1] == "--identity" {
				key, err := age.GenerateX25519Identity()
				if err != nil {
					t.Fatal(err)
				}
				write(t, h, "/identity.txt", key.String()+"\n")
				args[i] = filepath.Join(root, "identity.txt")
			}
			if word == "$ROOT" || word == "$TREE" || word == "DIR" {
				args[i] = root
			}
			if word == "$PWD/config.yaml" {
				args[i] = configFile
			}
		}
		if !slices.Contains(args, "--root") {
			args = append(args, "--root", root)
		}
		var stdout, stderr bytes.Buffer
		code := run(ctx, args, strings.NewReader(""), &stdout, &stderr)
		differs := slices.Contains(args, "plan") || slices.Contains(args, "status")
		if code != exitOK && (!differs || code != exitDiffers) {
			t.Errorf("%s: %s: exit code %d\n%s%s", at, text, code, stdout.String(), stderr.String())
		}
	})
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// TestLinksInDocs: each link within the checkout leads to a file, and its anchor to a heading.
func TestLinksInDocs(t *testing.T) {
	links := 0
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(d.Text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			path := filepath.Join("../..", filepath.Dir(d.Path), target)
			if target == "" {
				path = filepath.Join("../..", d.Path)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s leads to nothing", d.Path, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Errorf("%s: %s: %v", d.Path, m[1], err)
			}
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(string(text), -1), func(h []string) bool { return slug(h[1]) == anchor }) {
				t.Errorf("%s: %s leads to no heading", d.Path, m[1])
			}
		}
	}
	if links < 60 {
		t.Errorf("only %d links: are these the docs?", links)
	}
}

// slug is the anchor that a heading has on GitHub and the like.
func slug(heading string) string {
	text := strings.ToLower(regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(heading, ""))
	return strings.ReplaceAll(text, " ", "-")
}
