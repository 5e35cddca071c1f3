package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/step"
	"github.com/nodeagent/nodeagent/pkg/step/steptest"
)

// A public key as gpg --armor --export writes it, the same not armored as far as anybody looks,
// and the beginning of a secret one.
const (
	armoredKey = `-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaSB4dRYJKwYBBAHaRw8BAQdAfakeKeyfakeKeyfakeKeyfakeKeyfakeKeyf
=abcd
-----END PGP PUBLIC KEY BLOCK-----
`
	binaryKey = "\x98\x33\x04public"
	secretKey = "\x94\x58\x04secret"
)

func fetched(key string, asked *[]string) func(context.Context, string) ([]byte, error) {
	return func(_ context.Context, from string) ([]byte, error) {
		*asked = append(*asked, from)
		if key == "" {
			return nil, errors.New("no such host")
		}
		return []byte(key), nil
	}
}

func TestRepositoryConverges(t *testing.T) {
	const mirror = "https://mirror.example:8443/k8s"
	tests := map[string]struct {
		config  PackagesConfig
		prepare func(t *testing.T, h *host.Host)
		key     string // as fetched
		asked   []string
		files   map[string]string // what they contain
		absent  []string
	}{
		"the community's": {
			key: armoredKey, asked: []string{communityURL + "Release.key"},
			files: map[string]string{
				sourceFile: "Types: deb\nURIs: " + communityURL + "\nSuites: /\nSigned-By: " + keyArmored + "\n",
				keyArmored: armoredKey,
				pinFile:    "Package: kubelet kubeadm kubectl\nPin: version 1.36.*\nPin-Priority: 990\n\nPackage: kubelet kubeadm kubectl\nPin: release *\nPin-Priority: -1\n\nPackage: cri-tools kubernetes-cni\nPin: origin \"pkgs.k8s.io\"\n",
			},
			absent: []string{keyBinary},
		},
		"a mirror, pinned, its key binary": {
			config: PackagesConfig{KubernetesVersion: "1.36.3", Repository: RepositoryConfig{URL: mirror}},
			key:    binaryKey, asked: []string{mirror + "/Release.key"},
			files: map[string]string{
				sourceFile: "URIs: " + mirror + "/\nSuites: /\nSigned-By: " + keyBinary + "\n", keyBinary: binaryKey,
				pinFile: "Pin: version 1.36.3-*\n",
			},
			absent: []string{keyArmored},
		},
		"a key of the operator's": {
			config: PackagesConfig{Repository: RepositoryConfig{URL: "http://mirror.example/k8s/", KeyFile: "/root/key.asc"}},
			prepare: func(t *testing.T, h *host.Host) {
				put(t, h, "/root/key.asc", armoredKey, 0o600)
			},
			files: map[string]string{keyArmored: armoredKey, sourceFile: "URIs: http://mirror.example/k8s/\n"},
		},
		"a directory": {
			config: PackagesConfig{Repository: RepositoryConfig{URL: "file:///srv/k8s"}},
			prepare: func(t *testing.T, h *host.Host) {
				put(t, h, "/srv/k8s/Release.key", armoredKey, 0o644)
			},
			files: map[string]string{keyArmored: armoredKey, sourceFile: "URIs: file:///srv/k8s/\n", pinFile: "Pin: origin \"\"\n"},
		},
		"another repository than before": {
			prepare: func(t *testing.T, h *host.Host) {
				put(t, h, sourceFile, "URIs: https://old.example/\nSigned-By: "+keyBinary+"\n", 0o644)
				put(t, h, keyBinary, binaryKey, 0o644)
			},
			key: armoredKey, asked: []string{communityURL + "Release.key"},
			files:  map[string]string{keyArmored: armoredKey, sourceFile: communityURL},
			absent: []string{keyBinary},
		},
		"a damaged key": {
			prepare: func(t *testing.T, h *host.Host) {
				put(t, h, sourceFile, "x\nURIs: "+communityURL+"\nSigned-By: "+keyArmored+"\n", 0o644)
				put(t, h, keyArmored, "", 0o644)
			},
			key: armoredKey, asked: []string{communityURL + "Release.key"},
			files: map[string]string{keyArmored: armoredKey},
		},
		"the operator's own source": {
			prepare: func(t *testing.T, h *host.Host) {
				put(t, h, sourcesDir+"/kubernetes.list", "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] "+communityURL+" /\n", 0o644)
				put(t, h, sourceFile, "an earlier one\n", 0o644)
			},
			files:  map[string]string{sourcesDir + "/kubernetes.list": "kubernetes-apt-keyring", pinFile: "1.36.*"},
			absent: []string{sourceFile, keyArmored, keyBinary},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := &host.Host{Root: t.TempDir()}
			if test.prepare != nil {
				test.prepare(t, h)
			}
			if test.config.KubernetesVersion == "" {
				test.config.KubernetesVersion = "1.36"
			}
			if err := test.config.Validate(); err != nil {
				t.Fatal(err)
			}
			var asked []string
			steptest.Converges(t, h, Repository(h, test.config, fetched(test.key, &asked)))
			if diff := cmp.Diff(test.asked, asked); diff != "" {
				t.Errorf("asked for keys (- wanted):\n%s", diff)
			}
			for path, want := range test.files {
				data, err := h.ReadFile(path)
				if err != nil || !strings.Contains(string(data), want) {
					t.Errorf("%s is\n%s%v", path, data, err)
				}
				if info, err := h.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			for _, path := range test.absent {
				if there, err := h.Exists(path); there || err != nil {
					t.Errorf("%s is there: %v", path, err)
				}
			}
		})
	}
}

// Who chooses the key chooses what is installed.
func TestRepositoryKeyOfOthers(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	put(t, h, "/key", armoredKey, 0o664)
	put(t, h, "/srv/mirror/Release.key", armoredKey, 0o666)
	for _, c := range []RepositoryConfig{{KeyFile: "/key"}, {URL: "file:///srv/mirror/"}} {
		_, err := step.Apply(t.Context(), []step.Step{Repository(h, PackagesConfig{KubernetesVersion: "1.36", Repository: c}, nil)}, nil)
		if !errors.Is(err, host.ErrUntrusted) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestRepositoryErrors(t *testing.T) {
	file := PackagesConfig{KubernetesVersion: "1.36", Repository: RepositoryConfig{KeyFile: "/key"}}
	tests := map[string]struct {
		config PackagesConfig
		key    string // fetched
		file   string // at /key
		want   []string
	}{
		"no way there":       {PackagesConfig{KubernetesVersion: "1.36"}, "", "", []string{"fetch key of repository: no such host", "packages.repository.keyFile"}},
		"a page, not a key":  {PackagesConfig{KubernetesVersion: "1.36"}, "<html>", "", []string{communityURL + "Release.key: it is no OpenPGP key"}},
		"no file":            {file, "", "", []string{"read key of repository", "/key", "no such file"}},
		"a secret key":       {file, "", secretKey, []string{"/key: it is a secret key: export the public one"}},
		"an armored secret":  {file, "", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", []string{"no public key"}},
		"a signature":        {file, "", "\x88\x01", []string{"no public key"}},
		"a new signature":    {file, "", "\xc2\x01", []string{"no public key"}},
		"cut off":            {file, "", armoredKey[:60], []string{"it is cut off"}},
		"no empty line":      {file, "", strings.Replace(armoredKey, "\n\n", "\n", 1), []string{"no empty line"}},
		"damaged":            {file, "", strings.Replace(armoredKey, "mDME", "m!ME", 1), []string{"its armor is damaged"}},
		"endless":            {file, "", strings.Repeat("x", maxKey+1), []string{"/key is larger than 1048576 bytes"}},
		"endless on its way": {PackagesConfig{KubernetesVersion: "1.36"}, strings.Repeat("x", maxKey+1), "", []string{"larger than 1048576 bytes"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := &host.Host{Root: t.TempDir()}
			if test.file != "" {
				put(t, h, "/key", test.file, 0o644)
			}
			var asked []string
			s := Repository(h, test.config, fetched(test.key, &asked))
			_, err := step.Apply(t.Context(), []step.Step{s}, nil)
			wantError(t, err, test.want...)
			if there, err := h.Exists(sourceFile); there || err != nil {
				t.Errorf("there is a source without a key: %v", err)
			}
		})
	}
}

// In an image everything is written but a key that has to be fetched, and the source with it.
func TestRepositoryOffline(t *testing.T) {
	h := &host.Host{Root: t.TempDir(), Offline: true}
	never := func(context.Context, string) ([]byte, error) { t.Error("fetched"); return nil, errors.New("offline") }
	s := Repository(h, PackagesConfig{KubernetesVersion: "1.36"}, never)
	if _, err := s.Check(t.Context()); !errors.Is(err, step.Blocked{On: step.Boot}) || !strings.Contains(err.Error(), "Release.key") {
		t.Error(err)
	}
	put(t, h, "/key", armoredKey, 0o644)
	steptest.Converges(t, h, Repository(h, PackagesConfig{KubernetesVersion: "1.36", Repository: RepositoryConfig{KeyFile: "/key"}}, never))
}

func TestRepositoryFindings(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	var asked []string
	s := Repository(h, PackagesConfig{KubernetesVersion: "1.36"}, fetched(armoredKey, &asked))
	steptest.Converges(t, h, s)
	real, err := h.Path(keyringDir)
	if err != nil {
		t.Fatal(err)
	}
	chmod(t, real, 0o700)
	changes, err := s.Check(t.Context())
	if err != nil || len(changes) != 1 || !changes[0].Manual || !strings.Contains(changes[0].Want, "chmod 0755") {
		t.Errorf("%v, %v", changes, err)
	}
	chmod(t, real, 0o755)
	put(t, h, pinFile, "else\n", 0o644)
	key, _ := h.Path(keyArmored)
	chmod(t, key, 0o600)
	changes, err = s.Check(t.Context())
	if err != nil || fmt.Sprint(changes) != `[`+pinFile+`: "other content" → "for `+communityURL+`" `+keyArmored+` mode: "0600" → "0644"]` {
		t.Errorf("%v, %v", changes, err)
	}
}

func TestFetchKey(t *testing.T) {
	mux := http.NewServeMux()
	plain := httptest.NewServer(mux)
	t.Cleanup(plain.Close)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/Release.key", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, armoredKey) })
	mux.Handle("/moved", http.RedirectHandler("/Release.key", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/plain", http.RedirectHandler(plain.URL+"/Release.key", http.StatusFound))
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", maxKey+1000)) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, armoredKey[:20])
	})
	transport, ok := server.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	for path, want := range map[string]string{
		"/Release.key": "", "/moved": "", "/none": "404 Not Found", "/loop": "again and again",
		"/plain": "is sent on to http://", "/cut": "unexpected EOF",
	} {
		key, err := fetchKey(t.Context(), transport, server.URL+path)
		if want != "" {
			wantError(t, err, want)
		} else if err != nil || string(key) != armoredKey {
			t.Errorf("%s: %q, %v", path, key, err)
		}
	}
	if key, err := fetchKey(t.Context(), transport, server.URL+"/endless"); err != nil || len(key) != maxKey+1 {
		t.Errorf("%d bytes, %v", len(key), err)
	}
	if _, err := fetchKey(t.Context(), &http.Transport{}, server.URL+"/Release.key"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
}

func FuzzKey(f *testing.F) {
	f.Add(armoredKey)
	f.Add(binaryKey)
	f.Add(strings.ReplaceAll(armoredKey, "\n", "\r\n"))
	f.Fuzz(func(t *testing.T, data string) {
		armored, err := checkKey([]byte(data))
		if err != nil {
			return
		}
		if armored && (!strings.Contains(data, armorBegin) || !strings.Contains(data, armorEnd)) || !armored && data[0]&0x80 == 0 {
			t.Errorf("%q is taken for a key", data)
		}
	})
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
