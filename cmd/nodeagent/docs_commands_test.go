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

	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// What the documentation shows is held against the program. A command of nodeagent's, in a block
// or between backticks, has to be one, and is run on a scratch machine unless ranElsewhere says who
// runs it. A target of make has to be one. Any other command in a block is named by a comment
// before it: <!-- run by: FILE TEST -->, or <!-- not run: REASON -->.

// ranElsewhere are the commands that only a running machine shows, and the tests that run them there.
var ranElsewhere = map[string]string{
	"nodeagent run":                      "cmd/nodeagent/daemon_test.go TestDaemonBootstraps",
	"nodeagent apply --only packages":    "test/integration/packages/packages_test.go TestPackages",
	"nodeagent status --wait":            "cmd/nodeagent/status_test.go TestStatusWait",
	"nodeagent completion bash|zsh|fish": "cmd/nodeagent/testdata/script/usage.txtar completion",
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

// document is a file of the documentation.
type document struct{ path, text string }

func documents(t *testing.T) (out []document) {
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
		text, err := os.ReadFile(filepath.Join(checkout, path))
		if path == "SECURITY.md" && os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, document{path, string(text)})
	}
	if len(out) < 12 {
		t.Fatalf("only %d documents", len(out))
	}
	return out
}

// shown is a command as a document shows it.
type shown struct {
	at    string // file and line
	text  string
	named bool // a comment before its block says who runs it
	prose bool // it stands between backticks
	block bool // it stands in a block that is tagged as a shell's
}

var (
	fence  = regexp.MustCompile("^ *```(.*)$")
	marker = regexp.MustCompile(`^ *<!-- (?:run by: (\S+) (\S+)|not run: .+) -->$`)
	span   = regexp.MustCompile("`((?:nodeagent|make) [^`]+)`")
	here   = regexp.MustCompile(`^(?:\$|#) `)
)

// commands are those of a document: in blocks of a shell or without a language, and in prose.
func commands(t *testing.T, d document) (out []shown) {
	t.Helper()
	inside, language, named, console := false, "", false, false
	for i, line := range strings.Split(d.text, "\n") {
		at := fmt.Sprintf("%s:%d", d.path, i+1)
		if m := marker.FindStringSubmatch(line); m != nil && !inside {
			named = true
			if m[1] != "" {
				hasTest(t, at, m[1]+" "+m[2])
			}
			continue
		}
		if m := fence.FindStringSubmatch(line); m != nil {
			if inside {
				named = false
			}
			inside, language, console = !inside, m[1], false
			continue
		}
		switch {
		case !inside:
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				out = append(out, shown{at: at, text: m[1], prose: true})
			}
			if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "<!--") {
				named = false
			}
		case language == "" || language == "sh" || language == "console":
			text := strings.TrimSpace(line)
			prompt := here.MatchString(text)
			console = console || prompt && strings.HasPrefix(text, "$")
			if console && !prompt || strings.HasPrefix(text, "#") {
				continue // what a command prints, or a comment
			}
			text = strings.TrimPrefix(text, "$ ")
			ours := strings.HasPrefix(text, "nodeagent ") || strings.HasPrefix(text, "make ")
			if text != "" && (ours || language != "") {
				out = append(out, shown{at: at, text: text, named: named, block: language != ""})
			}
		}
	}
	return out
}

func hasTest(t *testing.T, at, where string) {
	t.Helper()
	file, name, _ := strings.Cut(where, " ")
	text, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil || !bytes.Contains(text, []byte(name)) {
		t.Errorf("%s: %s has no %s: %v", at, file, name, err)
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
	for _, where := range ranElsewhere {
		hasTest(t, "ranElsewhere", where)
	}
	run, found := map[string]string{}, 0
	for _, d := range documents(t) {
		if d.path == "docs/cli.md" { // it is written from the commands, in the notation of their help
			continue
		}
		for _, c := range commands(t, d) {
			args := arguments(c.text)
			target, isMake := strings.CutPrefix(c.text, "make ")
			target, _, _ = strings.Cut(target, " ")
			switch {
			case isMake && !slices.Contains(targets, target):
				t.Errorf("%s: the Makefile has no %q", c.at, target)
			case isMake && !slices.Contains(made, target) && targetsElsewhere[target] == "":
				t.Errorf("%s: nobody runs `make %s`: neither .ci/run nor what targetsElsewhere names", c.at, target)
			case isMake:
				found++
			case args != nil:
				found++
				if d.path == "CHANGELOG.md" { // tells of several at once, and of the past
					continue
				}
				text := "nodeagent " + strings.Join(args, " ")
				if err := parses(args); err != nil && ranElsewhere[text] == "" {
					t.Errorf("%s: %s: %v", c.at, text, err)
				} else if ranElsewhere[text] == "" {
					run[text] = c.at
				}
			case c.block && !c.named && !strings.HasPrefix(c.at, "docs/runbooks/"):
				t.Errorf("%s: %q: who runs it? Say so before the block: <!-- run by: FILE TEST --> or <!-- not run: REASON -->", c.at, c.text)
			}
		}
	}
	if found < 40 || len(run) < 8 {
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
		for _, m := range link.FindAllStringSubmatch(d.text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			path := filepath.Join("../..", filepath.Dir(d.path), target)
			if target == "" {
				path = filepath.Join("../..", d.path)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s leads to nothing", d.path, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Errorf("%s: %s: %v", d.path, m[1], err)
			}
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(string(text), -1), func(h []string) bool { return slug(h[1]) == anchor }) {
				t.Errorf("%s: %s leads to no heading", d.path, m[1])
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
