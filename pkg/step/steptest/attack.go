package steptest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Attack fails t if what write changes, below a root of its own, can be led elsewhere by somebody
// who can put a link on the way. fresh makes a machine anew each time: the directory that is its
// root, and what is to be run there. It is run once in peace, to see what it changes; then again
// for each of those paths, the directories above them and the names of their drafts, with a link in
// that place which another user could have made. Whether it fails then does not matter: nothing
// behind the link may be another. It returns the paths that were attacked.
//
// As root, the link also belongs to somebody else once; otherwise it is the directory it lies in
// that others can write.
func Attack(t *testing.T, fresh func(t *testing.T) (root string, write func() error)) []string {
	t.Helper()
	root, write := fresh(t)
	before, err := snapshot(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Fatalf("in peace: %v", err)
	}
	after, err := snapshot(root)
	if err != nil {
		t.Fatal(err)
	}
	paths := slices.Sorted(maps.Keys(places(before, after)))
	for i, path := range paths {
		info, err := os.Lstat(filepath.Join(root, path))
		isDir := err == nil && info.IsDir()
		for name, foreign := range map[string]bool{"r": false, "f": true} {
			if foreign && (os.Geteuid() != 0 || strings.HasSuffix(path, ".nodeagent")) {
				continue // whose the link is matters for what lies there before
			}
			// Its directory has the name of the test, and the path of a socket in it a hundred characters.
			t.Run(fmt.Sprintf("%s%d", name, i), func(t *testing.T) {
				t.Parallel()
				root, write := fresh(t)
				if err := attack(root, filepath.Join(t.TempDir(), "elsewhere"), write, path, isDir, foreign); err != nil {
					t.Error(err)
				}
			})
		}
	}
	return paths
}

// places are what has changed, all above it, and the drafts of pkg/host for it.
func places(before, after tree) map[string]bool {
	all := map[string]bool{}
	add := func(path string) {
		if strings.HasPrefix(path, "proc/") || strings.HasPrefix(path, "sys/") {
			return // the kernel's: nobody makes a link there
		}
		all[filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".nodeagent")] = true
		for ; path != "."; path = filepath.Dir(path) {
			all[path] = true
		}
	}
	for path, is := range after {
		was, there := before[path]
		// A directory in which something was made has another time: what was made is enough.
		if path != "." && (!there || was != is && !strings.HasPrefix(is, "d")) {
			add(path)
		}
	}
	for path := range before {
		if _, there := after[path]; !there {
			add(path)
		}
	}
	return all
}

// attack puts a link to elsewhere at a path below root, runs write, and returns what it has changed
// behind the link.
func attack(root, elsewhere string, write func() error, path string, isDir, foreign bool) error {
	inside := filepath.Join(root, elsewhere) // where the link leads by the machine's reckoning
	real := filepath.Join(root, path)
	err := errors.Join(os.MkdirAll(filepath.Dir(inside), 0o755), os.MkdirAll(filepath.Dir(real), 0o755))
	if err == nil {
		err = lure(real, inside, isDir)
	}
	if err == nil {
		err = copyOf(inside, elsewhere)
	}
	if err == nil {
		err = os.Symlink(elsewhere, real)
	}
	if err == nil && foreign {
		err = os.Lchown(real, 4711, 4711)
	} else if err == nil {
		err = os.Chmod(filepath.Dir(real), 0o777)
	}
	if err != nil {
		return err
	}
	both := []string{elsewhere, inside}
	var before []tree
	for _, at := range both {
		was, err := snapshot(at)
		if err != nil {
			return err
		}
		before = append(before, was)
	}
	refused := write()
	for i, at := range both {
		if err := before[i].unchanged(at); err != nil {
			return fmt.Errorf("behind a link at /%s: %w\nit ended with: %s", path, err, fmt.Sprint(refused))
		}
	}
	return nil
}

// lure moves what is at a path to where the link will lead, or makes something there.
func lure(real, to string, isDir bool) error {
	err := os.Rename(real, to)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isDir:
		return os.Mkdir(to, 0o755)
	case errors.Is(err, fs.ErrNotExist):
		return os.WriteFile(to, []byte("precious"), 0o640)
	}
	return err
}

// copyOf copies a tree; a socket in it is left out.
func copyOf(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch at := filepath.Join(to, rel); {
		case d.IsDir():
			return os.Mkdir(at, 0o755)
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(at, data, 0o640)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		}
		return nil
	})
}
