package nodeagent_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/nodeagent/nodeagent/"

// mayImport is the direction of imports, downwards: what of ours each package may import. A
// package that is not named here, or imports another one, fails.
var mayImport = map[string][]string{
	"cmd/nodeagent": {
		"pkg/agent", "pkg/bootstrap", "pkg/certs", "pkg/config", "pkg/etcd", "pkg/etcdbackup",
		"pkg/etcdbackup/drill", "pkg/etcdbackup/file", "pkg/etcdbackup/s3", "pkg/host", "pkg/kube", "pkg/metrics", "pkg/step", "pkg/systemd",
	},
	// The section types come from the domains, and nothing else does.
	"pkg/config":  {"pkg/bootstrap", "pkg/certs", "pkg/etcdbackup", "pkg/host", "pkg/kernel"},
	"pkg/agent":   {"pkg/host", "pkg/step"},
	"pkg/metrics": {},
	// Domains: access packages and step; no other domain, but bootstrap → kernel.
	"pkg/bootstrap":        {"pkg/host", "pkg/kernel", "pkg/kube", "pkg/step", "pkg/systemd"},
	"pkg/certs":            {"pkg/host", "pkg/step", "pkg/systemd", "pkg/kube", "pkg/etcd"},
	"pkg/etcdbackup":       {"pkg/host", "pkg/step", "pkg/systemd", "pkg/kube", "pkg/etcd"},
	"pkg/etcdbackup/drill": {"pkg/etcdbackup"},
	"pkg/etcdbackup/file":  {"pkg/etcdbackup", "pkg/host"},
	"pkg/etcdbackup/s3":    {"pkg/etcdbackup", "pkg/host"},
	"pkg/kernel":           {"pkg/host", "pkg/step", "pkg/systemd"},
	// Access to the machine.
	"pkg/systemd": {"pkg/host"},
	"pkg/kube":    {"pkg/host"},
	"pkg/etcd":    {"pkg/host"},
	"pkg/host":    {},
	"pkg/step":    {},
	// What tests are made of; nothing but tests, test/ and docs/ may import these.
	"pkg/certs/certstest":      {},
	"pkg/etcd/etcdtest":        {"pkg/etcd", "pkg/host"},
	"pkg/etcdbackup/storetest": {"pkg/etcdbackup"},
	"pkg/step/steptest":        {"pkg/host", "pkg/step"},
}

// onlyIn names libraries that few packages may know, so that a domain stays what it is.
var onlyIn = map[string][]string{
	"os/exec":                                {"pkg/host"},
	"github.com/spf13/cobra":                 {"cmd/nodeagent", "docs/generate"},
	"github.com/spf13/viper":                 {"pkg/config"},
	"github.com/prometheus/client_golang":    {"pkg/metrics", "pkg/agent"},
	"github.com/prometheus/exporter-toolkit": {"pkg/agent"},
	"github.com/coreos/go-systemd":           {"pkg/systemd", "pkg/kernel"}, // kernel: names of units
	"github.com/vishvananda/netlink":         {"pkg/kernel"},
	"k8s.io":                                 {"pkg/kube"},
	"go.etcd.io/etcd/client/v3":              {"pkg/etcd", "pkg/etcdbackup", "cmd/nodeagent"}, // cmd: hands one to the other
	"go.etcd.io/etcd/server":                 {"pkg/etcd/etcdtest", "pkg/etcdbackup/drill"},
	"go.etcd.io/etcd/etcdutl":                {"pkg/etcdbackup/drill"},
	"github.com/minio/minio-go":              {"pkg/etcdbackup/s3"},
}

// mayBeVar are variables of packages that are neither errors, regular expressions, embedded
// files nor tables that nothing writes.
var mayBeVar = []string{"cmd/nodeagent.version"} // the linker writes it

const maxLines = 400

// source is a Go file that is no test.
type source struct {
	path  string // from the root of the checkout, with slashes
	fset  *token.FileSet
	file  *ast.File
	lines int
}

func parse(name string, text []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
	return source{path: name, fset: fset, file: file, lines: strings.Count(string(text), "\n")}, err
}

func (s source) dir() string { return path.Dir(s.path) }

// product says that the file becomes part of the program, and of nothing that only tests it.
func (s source) product() bool {
	return strings.HasPrefix(s.path, "cmd/") || strings.HasPrefix(s.path, "pkg/") && !strings.HasSuffix(s.dir(), "test")
}

func (s source) at(node ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.fset.Position(node.Pos()).Line, fmt.Sprintf(format, args...))
}

// rule finds breaches in the files of a checkout.
type rule func([]source) []string

var rules = map[string]rule{
	"imports run downwards":            eachFile(importsDown),
	"libraries stay where they belong": eachFile(librariesStay),
	"one package comment per package":  onePackageComment,
	"no clock outside agent and cmd":   eachFile(noClock),
	"no init":                          eachFile(noInit),
	"no file over 400 lines":           eachFile(notTooLong),
	"no package state":                 noState,
	"no package named after nothing":   eachFile(namedAfterSomething),
	"files are written by pkg/host":    eachFile(writesInHost),
}

func eachFile(check func(source) []string) rule {
	return func(sources []source) (found []string) {
		for _, s := range sources {
			found = append(found, check(s)...)
		}
		return found
	}
}

func importsDown(s source) (found []string) {
	allowed, known := mayImport[s.dir()]
	if !known && (strings.HasPrefix(s.path, "cmd/") || strings.HasPrefix(s.path, "pkg/")) {
		found = append(found, s.at(s.file.Name, "package %s is not in the table of imports", s.dir()))
	}
	for _, spec := range s.file.Imports {
		ours, is := strings.CutPrefix(importPath(spec), module)
		outside := !strings.HasPrefix(s.path, "cmd/") && !strings.HasPrefix(s.path, "pkg/")
		if is && !outside && !slices.Contains(allowed, ours) {
			found = append(found, s.at(spec, "%s may not import %s", s.dir(), ours))
		}
	}
	return found
}

func librariesStay(s source) (found []string) {
	if !s.product() {
		return nil
	}
	for _, spec := range s.file.Imports {
		for library, dirs := range onlyIn {
			p := importPath(spec)
			if (p == library || strings.HasPrefix(p, library+"/")) && !slices.Contains(dirs, s.dir()) {
				found = append(found, s.at(spec, "only %s may import %s", strings.Join(dirs, ", "), p))
			}
		}
	}
	return found
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return p
}

func onePackageComment(sources []source) (found []string) {
	comments, names := map[string]int{}, map[string]string{}
	for _, s := range sources {
		names[s.dir()] = s.file.Name.Name
		if s.file.Doc == nil {
			comments[s.dir()] += 0
			continue
		}
		comments[s.dir()]++
		begin := "Package " + s.file.Name.Name
		if s.file.Name.Name == "main" {
			begin = "Command " + path.Base(s.dir())
		}
		if text := s.file.Doc.Text(); !strings.HasPrefix(text, begin+" ") {
			found = append(found, s.at(s.file.Doc, "the package comment does not begin with %q", begin))
		}
	}
	for dir, n := range comments {
		if n != 1 {
			found = append(found, fmt.Sprintf("%s: package %s has %d package comments, not 1", dir, names[dir], n))
		}
	}
	return found
}

func noClock(s source) (found []string) {
	if !s.product() || strings.HasPrefix(s.path, "cmd/") || s.dir() == "pkg/agent" {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "time" && selector.Sel.Name == "Now" {
			found = append(found, s.at(n, "time.Now: pass now"))
		}
		return true
	})
	return found
}

func noInit(s source) (found []string) {
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			found = append(found, s.at(f, "init()"))
		}
	}
	return found
}

func notTooLong(s source) []string {
	if s.lines <= maxLines {
		return nil
	}
	return []string{fmt.Sprintf("%s: %d lines, %d are allowed", s.path, s.lines, maxLines)}
}

func noState(sources []source) (found []string) {
	writes := map[string]bool{} // directory.variable
	for _, s := range sources {
		for name := range written(s.file) {
			writes[s.dir()+"."+name] = true
		}
	}
	for _, s := range sources {
		for _, d := range s.file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR || !s.product() || embedded(decl) {
				continue
			}
			for _, spec := range decl.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					full := s.dir() + "." + name.Name
					if name.Name != "_" && (!fixed(v, i) || writes[full]) && !slices.Contains(mayBeVar, full) {
						found = append(found, s.at(name, "%s is state of its package: hand it in", name.Name))
					}
				}
			}
		}
	}
	return found
}

// fixed says that a variable's value is an error, a regular expression or a table.
func fixed(v *ast.ValueSpec, i int) bool {
	if i >= len(v.Values) {
		return false
	}
	switch value := v.Values[i].(type) {
	case *ast.CompositeLit:
		return len(value.Elts) > 0
	case *ast.CallExpr:
		selector, ok := value.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := selector.X.(*ast.Ident)
		return ok && slices.Contains([]string{"errors.New", "fmt.Errorf", "regexp.MustCompile"}, pkg.Name+"."+selector.Sel.Name)
	}
	return false
}

// written are the names that a file assigns to, takes the address of or deletes from.
func written(file *ast.File) map[string]bool {
	names := map[string]bool{}
	var write func(ast.Expr)
	write = func(e ast.Expr) {
		switch e := e.(type) {
		case *ast.Ident:
			names[e.Name] = true
		case *ast.IndexExpr:
			write(e.X)
		case *ast.SelectorExpr:
			write(e.X)
		case *ast.StarExpr:
			write(e.X)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if n.Tok != token.DEFINE {
					write(left)
				}
			}
		case *ast.IncDecStmt:
			write(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				write(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") && len(n.Args) > 0 {
				write(n.Args[0])
			}
		}
		return true
	})
	return names
}

func embedded(d *ast.GenDecl) bool {
	return d.Doc != nil && slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

func namedAfterSomething(s source) []string {
	if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base"}, s.file.Name.Name) {
		return []string{s.at(s.file.Name, "package %s is named after nothing", s.file.Name.Name)}
	}
	return nil
}

func TestHouse(t *testing.T) {
	sources := checkout(t)
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, breach := range rule(sources) {
				t.Error(breach)
			}
		})
	}
}

// checkout reads every Go file but tests, those of nested modules too.
func checkout(t *testing.T) []source {
	var sources []source
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := len(entry.Name()) > 1 && strings.ContainsAny(entry.Name()[:1], "._")
		if entry.IsDir() && (hidden || slices.Contains([]string{"testdata", "dist", "bin"}, entry.Name())) {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(name), text)
		sources = append(sources, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 50 {
		t.Fatalf("only %d files found: is this the checkout?", len(sources))
	}
	return sources
}
