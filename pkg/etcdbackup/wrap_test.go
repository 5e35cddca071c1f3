package etcdbackup_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// pair is a recipient and the file of its identity, as age-keygen writes it.
func pair(t *testing.T, hybrid bool) (recipient string, identity []byte) {
	t.Helper()
	if hybrid {
		key, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		return key.Recipient().String(), []byte("# a comment\n" + key.String() + "\n")
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return key.Recipient().String(), []byte("# a comment\n" + key.String() + "\n")
}

func recipients(t *testing.T, list ...string) etcdbackup.Recipients {
	t.Helper()
	r, err := etcdbackup.ParseRecipients(list)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func identities(t *testing.T, file []byte) etcdbackup.Identities {
	t.Helper()
	i, err := etcdbackup.ParseIdentities(file)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Each way of wrapping is verified, is opened by the libraries that the stock programs are made
// of, and a flipped bit anywhere in it is found, with an identity and without.
func TestWrapped(t *testing.T) {
	classic, classicKey := pair(t, false)
	second, secondKey := pair(t, false)
	hybrid, hybridKey := pair(t, true)
	_, strangersKey := pair(t, false)
	for ending, tt := range map[string]struct {
		compress bool
		to       []string
		keys     [][]byte
	}{
		".db":         {},
		".db.zst":     {compress: true},
		".db.age":     {to: []string{classic}, keys: [][]byte{classicKey}},
		".db.zst.age": {compress: true, to: []string{classic, second}, keys: [][]byte{classicKey, secondKey}},
		"hybrid.age":  {compress: true, to: []string{hybrid}, keys: [][]byte{hybridKey}},
	} {
		t.Run(ending, func(t *testing.T) {
			h, s := newStore(t)
			req := request(noon)
			req.Compress, req.Recipients = tt.compress, recipients(t, tt.to...)
			report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req)
			if err != nil {
				t.Fatal(err)
			}
			m := report.Manifest
			if _, suffix, _ := strings.Cut(m.Object.Name, ".db"); ending != "hybrid.age" && ".db"+suffix != ending {
				t.Errorf("the object is %s", m.Object.Name)
			}
			if len(m.Recipients) != len(tt.to) || slices.ContainsFunc(m.Recipients, func(f string) bool { return !strings.HasPrefix(f, "sha256:") }) {
				t.Errorf("recipients %q", m.Recipients)
			}
			path := filepath.Join(dir, m.Object.Name)
			object, err := h.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if tt.compress && m.Object.Size >= m.Snapshot.Size/2 {
				t.Errorf("%d bytes became %d", m.Snapshot.Size, m.Object.Size)
			}
			wantVerified(t, s, m, nil, len(tt.to) == 0)
			for _, key := range tt.keys {
				wantVerified(t, s, m, key, true)
				if plain := unwrapped(t, object, tt.compress, key); int64(len(plain)) != m.Snapshot.Size || !bytes.Equal(withTrailer(plain[:len(plain)-32]), plain) {
					t.Errorf("unwrapped by hand: %d bytes, not the snapshot of %d", len(plain), m.Snapshot.Size)
				}
			}
			if len(tt.to) > 0 {
				if _, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, identities(t, strangersKey)); !errors.Is(err, etcdbackup.ErrNoIdentity) {
					t.Errorf("with a stranger's identity: %v", err)
				}
			}
			for at := 0; at < len(object); at += len(object)/17 + 1 {
				damaged := bytes.Clone(object)
				damaged[at] ^= 1
				if err := h.WriteFile(path, damaged, 0o600); err != nil {
					t.Fatal(err)
				}
				for _, key := range append(tt.keys, nil) {
					if _, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, some(t, key)); err == nil {
						t.Errorf("byte %d of %d changed: verified", at, len(object))
					}
				}
			}
		})
	}
}

func some(t *testing.T, key []byte) etcdbackup.Identities {
	t.Helper()
	if key == nil {
		return etcdbackup.Identities{}
	}
	return identities(t, key)
}

func wantVerified(t *testing.T, s etcdbackup.Local, m etcdbackup.Manifest, key []byte, opened bool) {
	t.Helper()
	got, err := etcdbackup.Verify(t.Context(), s, m.Object.Name, some(t, key))
	if err != nil || got.Opened != opened {
		t.Errorf("verify: opened %t, %v, want opened %t", got.Opened, err, opened)
	}
}

// unwrapped does what `age -d | zstd -d` does.
func unwrapped(t *testing.T, object []byte, compressed bool, key []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(object)
	keys, err := age.ParseIdentities(bytes.NewReader(key))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = age.Decrypt(r, keys...); err != nil {
		t.Fatal(err)
	}
	if compressed {
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestRecipients(t *testing.T) {
	classic, secret := pair(t, false)
	hybrid, _ := pair(t, true)
	for name, tt := range map[string]struct {
		list []string
		want string
	}{
		"mixed":       {[]string{classic, hybrid}, "cannot be mixed"},
		"an identity": {[]string{classic, strings.Fields(string(secret))[3]}, "recipients[1]: is an identity"},
		"cut short":   {[]string{classic[:40]}, "recipients[0]: "},
		"an ssh key":  {[]string{"ssh-ed25519 AAAA"}, "no age recipient"},
		"empty":       {[]string{""}, "no age recipient"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := etcdbackup.ParseRecipients(tt.list)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
				t.Errorf("error %v, want one with %q and without a secret", err, tt.want)
			}
		})
	}
	if _, err := etcdbackup.ParseIdentities([]byte("AGE-SECRET-KEY-1NOTONE\n")); err == nil || strings.Contains(err.Error(), "NOTONE") {
		t.Errorf("a wrong identity: %v", err)
	}
}

// rke2#6281, k3s#13085: a restore on a new node fails for the want of what no snapshot holds.
func TestFilesGoWithIt(t *testing.T) {
	recipient, key := pair(t, false)
	h, s := newStore(t)
	const secret = "-----BEGIN RSA PRIVATE KEY-----"
	for path, perm := range map[string]os.FileMode{"/etc/kubernetes/pki/ca.key": 0o600, "/etc/kubernetes/pki/etcd/ca.crt": 0o644} {
		if err := errors.Join(h.MkdirAll(filepath.Dir(path), 0o755), h.WriteFile(path, []byte(secret+path), perm)); err != nil {
			t.Fatal(err)
		}
	}
	collected, err := etcdbackup.CollectFiles(h, []string{"/etc/kubernetes/pki", "/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/absent.conf"})
	if err != nil || len(collected) != 2 {
		t.Fatalf("collected %+v, %v", collected, err)
	}
	req := request(noon)
	req.Compress, req.Files = true, collected
	report, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req)
	if err != nil || report.Manifest.Files != nil {
		t.Errorf("without recipients: %+v, %v, want no files", report.Manifest.Files, err)
	}

	req.Now, req.Recipients = noon.Add(time.Hour), recipients(t, recipient)
	report, err = etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req)
	if err != nil || report.Manifest.Files == nil {
		t.Fatalf("%+v, %v, want files", report, err)
	}
	m := report.Manifest
	archive, err := h.ReadFile(filepath.Join(dir, m.Files.Name))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(unwrapped(t, archive, true, key))); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || header.Mode&0o7777 == 0 {
			t.Fatalf("%+v, %v", header, err)
		}
		got[header.Name] = string(data)
	}
	if len(got) != 2 || got["etc/kubernetes/pki/ca.key"] != secret+"/etc/kubernetes/pki/ca.key" {
		t.Errorf("the archive holds %q", got)
	}
	for _, name := range files(t, h) {
		if data, err := h.ReadFile(filepath.Join(dir, name)); err != nil || bytes.Contains(data, []byte("PRIVATE KEY")) {
			t.Errorf("%s: a key lies there unencrypted, or %v", name, err)
		}
	}
	wantVerified(t, s, m, key, true)
	if err := h.WriteFile(filepath.Join(dir, m.Files.Name), archive[:len(archive)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if c := list(t, s); len(c.Backups) != 1 || !strings.Contains(c.Ignored[0].Reason, m.Files.Name) {
		t.Errorf("with files cut short: %+v", c)
	}
}

// Where the plain snapshot cannot be verified in a file of its own there is no backup.
func TestNoScratch(t *testing.T) {
	h, s := newStore(t)
	req := request(noon)
	req.Compress = true
	req.Scratch = func(int64) (*os.File, error) { return nil, errBroken }
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	full := host.New(t.TempDir())
	req.Scratch = func(int64) (*os.File, error) {
		f, err := full.ScratchFile("/")
		if err != nil {
			return nil, err
		}
		return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY, 0) // nothing can be written to it
	}
	if _, err := etcdbackup.Save(t.Context(), source(t), []etcdbackup.Local{s}, req); err == nil || !strings.Contains(err.Error(), "write") {
		t.Errorf("error %v", err)
	}
	if got := files(t, h); len(got) != 0 {
		t.Errorf("left %q", got)
	}
}
