package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever path, and whatever links lie on the way: nothing outside of the root is reached.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/", "/etc/passwd", "/../x", "/up/x", "/abs/x", "/loop/x", "/etc/../up/../x", "//a//b/", "/self/self/etc", "etc", "", "/a\x00b", "/up", "/chain/up/abs"} {
		f.Add(seed, "x")
	}
	root := filepath.Join(f.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		f.Fatal(err)
	}
	for link, target := range map[string]string{"up": "../../../../../..", "abs": "/", "loop": "loop", "self": ".", "chain": "up/../abs", "etc/out": "/../../tmp"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			f.Fatal(err)
		}
	}
	// Where there are links above the root, they are none of ours.
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		f.Fatal(err)
	}
	h := &Host{Root: real}
	inside := func(t *testing.T, path, at string) {
		t.Helper()
		if at != real && !strings.HasPrefix(at, real+"/") {
			t.Errorf("%q lies at %q", path, at)
		}
	}
	f.Fuzz(func(t *testing.T, path, more string) {
		for _, path := range []string{path, path + "/" + more} {
			if at, err := h.follow(path); err == nil {
				inside(t, path, at)
			}
			at, err := h.Path(path)
			if err != nil {
				continue
			}
			inside(t, path, at)
			// Its directories are real ones, or not there.
			if dir, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil && at != real {
				inside(t, path, dir)
			}
		}
	})
}

func FuzzValidateSecret(f *testing.F) {
	for _, seed := range []string{"", "/a", "credential:x", "credential:..", "credential:a/b", "credential:", "a"} {
		f.Add(seed)
	}
	h := &Host{Root: "/nowhere"}
	f.Fuzz(func(t *testing.T, source string) {
		if ValidateSecret(source) != nil {
			return
		}
		path, err := h.secretPath(source)
		if err != nil || !filepath.IsAbs(path) {
			t.Errorf("%q lies at %q, %v", source, path, err)
		}
		if name, is := strings.CutPrefix(source, credentialPrefix); is && filepath.Base(path) != name {
			t.Errorf("%q lies at %q", source, path)
		}
	})
}

// Whoever can write a line of /etc/passwd is root; a broken one is nobody, and no number is
// another one than it says.
func FuzzPasswd(f *testing.F) {
	for _, seed := range []string{"", "a:x:1000:1001:A:/home/a:/bin/sh\n", "a:x:4294967295:0:::\n", "a:x:-1:0:::", "a:x:1:1::/h", "a:x:18446744073709551616:0:::", "\n:::::::\n", "a:x:0x0:0:::", "a:x:+1:1:::"} {
		f.Add(seed, "a")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		u, ok := parsePasswd(text, name)
		if !ok {
			return
		}
		if u.Name != name || name == "" || u.UID < 0 || u.GID < 0 || u.UID >= 1<<32-1 || u.GID >= 1<<32-1 || !strings.Contains(text, name+":") {
			t.Errorf("%+v of %q", u, text)
		}
	})
}
