package docblock

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Reached is what a test may come to within its package, as its source says: through the functions,
// methods and variables that are named on the way.
type Reached struct {
	Words []string   // the text of its string literals
	Calls [][]string // of the functions of this package: their arguments that are string literals
}

// Reach follows a test from its function on. root is the checkout's.
func Reach(root string, test Test) (Reached, error) {
	dir := filepath.Join(root, filepath.Dir(test.File))
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return Reached{}, err
	}
	named, start := map[string][]ast.Node{}, ast.Node(nil)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return Reached{}, fmt.Errorf("read test: %w", err)
		}
		for name, nodes := range declared(parsed) {
			named[name] = append(named[name], nodes...)
			if name == test.Name && filepath.Base(file) == filepath.Base(test.File) {
				start = nodes[0]
			}
		}
	}
	if _, is := start.(*ast.FuncDecl); !is || !strings.HasPrefix(test.Name, "Test") {
		return Reached{}, fmt.Errorf("%s has no %s", test.File, test.Name)
	}
	var r Reached
	queue, seen := []ast.Node{start}, map[ast.Node]bool{}
	for len(queue) > 0 {
		node := queue[0]
		queue = queue[1:]
		if seen[node] {
			continue
		}
		seen[node] = true
		ast.Inspect(node, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				queue = append(queue, named[n.Name]...)
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					r.Words = append(r.Words, text)
				}
			case *ast.CallExpr:
				r.call(n)
			}
			return true
		})
	}
	return r, nil
}

// declared are a file's functions, methods and variables, by their names.
func declared(file *ast.File) map[string][]ast.Node {
	out := map[string][]ast.Node{}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			out[decl.Name.Name] = append(out[decl.Name.Name], decl)
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range values.Names {
						out[name.Name] = append(out[name.Name], values)
					}
				}
			}
		}
	}
	return out
}

// call notes a call of this package.
func (r *Reached) call(c *ast.CallExpr) {
	f, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	if x, ok := f.X.(*ast.Ident); !ok || x.Name != "docblock" {
		return
	}
	var texts []string
	for _, arg := range c.Args {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				texts = append(texts, text)
			}
		}
	}
	r.Calls = append(r.Calls, texts)
}

// Reads says that the test takes a block's text from its document: it names document and heading, or
// the directory of the document.
func (r Reached) Reads(path, heading string) bool {
	return slices.ContainsFunc(r.Calls, func(args []string) bool {
		if len(args) == 1 {
			return args[0] == filepath.ToSlash(filepath.Dir(path))
		}
		return len(args) > 1 && args[0] == path && args[1] == heading
	})
}

// Says is whether each word of a command stands in a string of the test.
func (r Reached) Says(command string) bool {
	for _, word := range strings.FieldsFunc(command, func(c rune) bool { return c == ' ' || c == '|' }) {
		if !slices.ContainsFunc(r.Words, func(text string) bool { return slices.Contains(strings.Fields(text), word) }) {
			return false
		}
	}
	return true
}
