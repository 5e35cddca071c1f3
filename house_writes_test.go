package nodeagent_test

import (
	"go/ast"
	"path"
	"slices"
)

// writers are the functions by which a package of the standard library or of x/sys changes a file
// by its name. Whoever calls one has to know who could have put a link on the way, and pkg/host
// is where that is known. A trailing * is for all that begin so.
var writers = map[string][]string{
	"os": {
		"Chmod", "Chown", "Chtimes", "CopyFS", "Create*", "Lchown", "Link", "Mkdir*", "OpenFile", "OpenRoot",
		"Remove*", "Rename", "Symlink", "Truncate", "WriteFile",
	},
	"io/ioutil": {"*"},
	"syscall": {
		"Chmod", "Chown", "Creat", "Fchmodat", "Fchownat", "Lchown", "Link*", "Mkdir*", "Mkfifo", "Mknod*", "Open*",
		"Rename*", "Rmdir", "Symlink*", "Truncate", "Unlink*", "Utime*",
	},
	"golang.org/x/sys/unix": {
		"Chmod", "Chown", "Creat", "Fchmodat", "Fchownat", "Lchown", "Link*", "Mkdir*", "Mkfifo*", "Mknod*", "Open*",
		"Rename*", "Rmdir", "Symlink*", "Truncate", "Unlink*", "Utime*", "*etxattr", "*removexattr",
	},
	// A database is opened to be read, where it was received.
	"go.etcd.io/bbolt": {"Open"},
}

// mayCall are the exceptions, by file: each says why beside its call.
var mayCall = map[string][]string{
	"pkg/etcdbackup/inspect.go":       {"bbolt.Open"},
	"pkg/etcdbackup/drill/scratch.go": {"os.MkdirTemp", "os.Remove", "os.RemoveAll", "os.OpenFile"},
}

// writesInHost finds what changes files outside of pkg/host, so that every path that is written is
// one that the attacks of pkg/host, test/crash and steptest are for. What is done in a directory that
// host.OpenDir has opened is no breach: no name in it leads out of it.
func writesInHost(s source) (found []string) {
	if !s.product() || s.dir() == "pkg/host" {
		return nil
	}
	called := map[string]string{} // package by the name that the file knows it by
	for _, spec := range s.file.Imports {
		p := importPath(spec)
		if writers[p] == nil {
			continue
		}
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			found = append(found, s.at(spec, "%s is imported without its name", p))
		}
		called[name] = p
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := selector.X.(*ast.Ident)
		if !ok || called[pkg.Name] == "" {
			return true
		}
		p, name := called[pkg.Name], selector.Sel.Name
		matches := func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok }
		if slices.ContainsFunc(writers[p], matches) && !slices.Contains(mayCall[s.path], pkg.Name+"."+name) {
			found = append(found, s.at(n, "%s.%s: files are written by pkg/host", pkg.Name, name))
		}
		return true
	})
	return found
}
