package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// writer is a function by which the agent changes files, and a way to call it.
type writer struct {
	paths []string                    // what it is called for; their directories are attacked as well
	do    func(t *testing.T, h *Host) // refused or not: what counts is what is left
}

func try(t *testing.T, err error) { t.Helper(); t.Log(err) }

// writers has every exported method of Host that changes a file but those in others: whatever
// changes a file in this program is one of them (a rule of the house, at the root of the checkout).
var writers = map[string]writer{
	"WriteFile": {[]string{"/etc/agent/file"}, func(t *testing.T, h *Host) { try(t, h.WriteFile("/etc/agent/file", []byte("ours"), 0o600)) }},
	"MkdirAll":  {[]string{"/etc/agent/new/er"}, func(t *testing.T, h *Host) { try(t, h.MkdirAll("/etc/agent/new/er", 0o700)) }},
	"Symlink":   {[]string{"/etc/agent/link"}, func(t *testing.T, h *Host) { try(t, h.Symlink("/dev/null", "/etc/agent/link")) }},
	"Rename": {[]string{"/etc/agent/file", "/etc/agent/to"}, func(t *testing.T, h *Host) {
		try(t, h.Rename("/etc/agent/file", "/etc/agent/to"))
	}},
	"Remove":    {[]string{"/etc/agent/file"}, func(t *testing.T, h *Host) { try(t, h.Remove("/etc/agent/file")) }},
	"RemoveAll": {[]string{"/etc/agent/tree"}, func(t *testing.T, h *Host) { try(t, h.RemoveAll("/etc/agent/tree")) }},
	"KeepOriginal": {[]string{originals + "/etc/agent/file"}, func(t *testing.T, h *Host) {
		try(t, h.KeepOriginal("/etc/agent/file"))
	}},
	"Narrow": {[]string{"/etc/agent/file"}, func(t *testing.T, h *Host) { try(t, h.Narrow("/etc/agent/file", 0o600)) }},
	"OpenLog": {[]string{"/etc/agent/file"}, func(t *testing.T, h *Host) {
		f, err := h.OpenLog("/etc/agent/file")
		if try(t, err); err == nil {
			_, err = f.WriteString("ours")
			try(t, errors.Join(err, f.Close()))
		}
	}},
	"OpenDir": {[]string{"/etc/agent/new"}, func(t *testing.T, h *Host) {
		dir, err := h.OpenDir("/etc/agent/new", 0o700)
		if try(t, err); err == nil {
			try(t, errors.Join(dir.WriteFile("file", []byte("ours"), 0o600), dir.Close()))
		}
	}},
	"ScratchFile": {[]string{"/etc/agent/new"}, func(t *testing.T, h *Host) {
		f, err := h.ScratchFile("/etc/agent/new")
		if try(t, err); err == nil {
			_, err = f.WriteString("ours")
			try(t, errors.Join(err, f.Close()))
		}
	}},
	"TryLock": {[]string{lockDir + "/host.lock"}, func(t *testing.T, h *Host) {
		unlock, err := h.TryLock(LockHost, "attack")
		if try(t, err); err == nil {
			unlock()
		}
	}},
	"WriteInHome": {[]string{"/home/u/.kube/config"}, func(t *testing.T, h *Host) {
		try(t, h.WriteInHome(me(), ".kube", "config", []byte("ours"), 0o600))
	}},
	"RemoveInHome": {[]string{"/home/u/.kube/config"}, func(t *testing.T, h *Host) { try(t, h.RemoveInHome(me(), ".kube", "config")) }},
}

// others change no file, or none that anybody could have put there.
var others = map[string]string{
	"Lock": "is TryLock, and waits", "WriteKernel": "writes in /proc and /sys, where nobody makes a link",
	"Run": "", "RunCommand": "", "Path": "", "ReadFile": "", "Exists": "", "Stat": "", "Lstat": "", "Readlink": "", "ReadDir": "", "Open": "",
	"ReadInHome": "", "ReadSecret": "", "SecretFile": "", "ReadTrusted": "", "OpenTrusted": "", "CheckTrusted": "", "CheckSecret": "",
	"LookupUser": "",
}

func me() User { return User{Name: "u", UID: os.Geteuid(), GID: os.Getegid(), Home: "/home/u"} }

// No writer is forgotten here.
func TestEveryWriterIsAttacked(t *testing.T) {
	methods := map[string]bool{}
	typ := reflect.TypeFor[*Host]()
	for method := range typ.Methods() {
		name := method.Name
		methods[name] = true
		_, attacked := writers[name]
		if _, is := others[name]; is == attacked {
			t.Errorf("Host.%s is to be in one of the tables writers and others", name)
		}
	}
	for name := range writers {
		if !methods[name] {
			t.Errorf("Host.%s is attacked, and is not there", name)
		}
	}
}

// Wherever somebody else can put something, on the way to a path, at the path or where its draft is
// to be, nothing that they have chosen is written to, made, moved, removed, or given another mode.
func TestAttacks(t *testing.T) {
	for name, w := range writers {
		for _, path := range w.paths {
			for at := path; at != "/"; at = filepath.Dir(at) {
				for _, at := range []string{at, filepath.Join(filepath.Dir(at), draftName(filepath.Base(at)))} {
					for kind, plant := range plants {
						if name == "Narrow" && kind == "hard link" {
							continue // it takes from the mode of a file that nobody need protect from that
						}
						t.Run(name+at+"/"+kind, func(t *testing.T) { attack(t, w, at, plant) })
					}
				}
			}
		}
	}
}

// plants are what an attacker puts at a path to have it done to precious, which is what had been
// there. They can, since they may write the directory: or, as its owner is nobody else, since the
// link is theirs.
var plants = map[string]func(at, precious string) error{
	"link, replaceable": func(at, precious string) error {
		return errors.Join(os.Symlink(precious, at), os.Chmod(filepath.Dir(at), 0o777))
	},
	"link, theirs": func(at, precious string) error {
		err := os.Symlink(precious, at)
		if os.Geteuid() == 0 {
			return errors.Join(err, os.Lchown(at, 4711, 4711))
		}
		return errors.Join(err, os.Chmod(filepath.Dir(at), 0o777))
	},
	"link, relative": func(at, precious string) error {
		up := strings.Repeat("../", strings.Count(at, "/")+5)
		return errors.Join(os.Symlink(up+precious[1:], at), os.Chmod(filepath.Dir(at), 0o777))
	},
	"hard link": func(at, precious string) error {
		if info, err := os.Lstat(precious); err != nil || !info.Mode().IsRegular() {
			return err // there is none of a directory
		}
		return errors.Join(os.Link(precious, at), os.Chmod(filepath.Dir(at), 0o777))
	},
	"pipe": func(at, _ string) error {
		return errors.Join(syscall.Mkfifo(at, 0o666), os.Chmod(filepath.Dir(at), 0o777))
	},
}

func attack(t *testing.T, w writer, at string, plant func(at, precious string) error) {
	h := New(t.TempDir())
	for _, path := range []string{"/etc/agent/file", "/etc/agent/tree/file", "/home/u/.kube/config"} {
		real := filepath.Join(h.Root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(real), 0o755), os.WriteFile(real, []byte("precious"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// A link leads out of Root by the kernel's reckoning, and to a place below Root by the machine's.
	real, precious := filepath.Join(h.Root, at), filepath.Join(t.TempDir(), "precious")
	inside := filepath.Join(h.Root, precious)
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Dir(inside), 0o755) },
		func() error { return os.MkdirAll(filepath.Dir(real), 0o755) },
		func() error { return moveOrMake(real, precious, leads(w, at)) },
		func() error { return os.CopyFS(filepath.Dir(inside), os.DirFS(filepath.Dir(precious))) },
		func() error { return plant(real, precious) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	before := all(t, precious, inside)
	w.do(t, h)
	if after := all(t, precious, inside); !slices.Equal(before, after) {
		t.Errorf("what the attacker has chosen was\n%s\nand is\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// leads says whether a path is a directory on the way to one that is written.
func leads(w writer, at string) bool {
	return slices.ContainsFunc(w.paths, func(path string) bool { return strings.HasPrefix(path, at+"/") })
}

// moveOrMake makes precious of what is at a path, or if that is nothing a directory or a file.
func moveOrMake(real, precious string, dir bool) error {
	err := os.Rename(real, precious)
	switch {
	case errors.Is(err, fs.ErrNotExist) && dir:
		return os.Mkdir(precious, 0o755)
	case errors.Is(err, fs.ErrNotExist):
		return os.WriteFile(precious, []byte("precious"), 0o644)
	}
	return err
}

func all(t *testing.T, roots ...string) (found []string) {
	t.Helper()
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Dir(root), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := os.Lstat(path)
			if err != nil {
				return err
			}
			text := ""
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text = string(data)
			}
			found = append(found, fmt.Sprintf("%s %s %q", path, info.Mode(), text))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
