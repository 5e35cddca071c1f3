package bootstrap

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
)

func TestSources(t *testing.T) {
	const oneLine = `# deb http://commented/ stable main
deb http://mirror.example.org/debian bookworm main # deb http://no/
deb-src http://source/ bookworm main
  deb	[arch=amd64 signed-by=/k.gpg]	https://options/	/
deb [ arch=amd64 ] https://spaces/ ./
deb [arch=amd64 https://unclosed/ /
deb https://alone/
debs https://x/ /
`
	want := []string{"http://mirror.example.org/debian", "https://options/", "https://spaces/"}
	if diff := cmp.Diff(want, parseSourcesList([]byte(oneLine))); diff != "" {
		t.Error(diff)
	}
	const deb822 = `# a comment
Types: deb deb-src
URIs: http://one/ http://two/
Suites: bookworm
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 x

types: deb
uris:
 http://three/
# between
 http://four/
enabled: no

Enabled: yes
Types: deb
URIs: http://five/

Types: deb-src
URIs: http://six/
`
	want = []string{"http://one/", "http://two/", "http://five/"}
	if diff := cmp.Diff(want, parseSources([]byte(deb822))); diff != "" {
		t.Error(diff)
	}
}

func TestFindSource(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	find := func(want string) {
		t.Helper()
		if got, err := findSource(h, communityURL, sourceFile); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	find("")
	put(t, h, sourceFile, "Types: deb\nURIs: "+communityURL+"\n", 0o644)
	put(t, h, sourcesDir+"/k8s.list.bak", "deb "+communityURL+" /\n", 0o644)
	put(t, h, sourcesDir+"/with space.list", "deb "+communityURL+" /\n", 0o644)
	put(t, h, sourcesDir+"/other.list", "deb https://pkgs.k8s.io/core:/stable:/v1.35/deb/ /\n", 0o644)
	find("")
	put(t, h, sourcesDir+"/z.sources", "Types: deb\nURIs: "+strings.TrimRight(communityURL, "/")+"\nSuites: /\n", 0o644)
	find(sourcesDir + "/z.sources")
	put(t, h, sourcesList, "deb HTTPS://PKGS.k8s.io/core:/stable:/v1.36/deb /\n", 0o644)
	find(sourcesList)
}

func TestSameURL(t *testing.T) {
	for _, same := range [][2]string{{"file:/srv/k8s", "file:///srv/k8s/"}, {"https://a/b", "https://A/b/"}} {
		if !sameURL(same[0], same[1]) {
			t.Errorf("%s is not %s", same[0], same[1])
		}
	}
	for _, other := range [][2]string{{"https://a/b", "http://a/b"}, {"https://a/b", "https://a/B"}, {"https://a:1/b", "https://a/b"}} {
		if sameURL(other[0], other[1]) {
			t.Errorf("%s is %s", other[0], other[1])
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [ a=b ] http://x/ y\n", "Types: deb\nURIs: x\n y\n")
	f.Add("deb [", "Types:\n\n :\n")
	f.Fuzz(func(t *testing.T, list, sources string) {
		for text, urls := range map[string][]string{list: parseSourcesList([]byte(list)), sources: parseSources([]byte(sources))} {
			if list == sources {
				return
			}
			for _, u := range urls {
				if u == "" || strings.ContainsAny(u, " \t\n") || !strings.Contains(text, u) {
					t.Errorf("%q of %q", u, text)
				}
				if !sameURL(u, u) {
					t.Errorf("%q is not itself", u)
				}
			}
		}
	})
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]string{
		"1.36.3-1.1": "1.36 1.36.3", "1:1.36.10-00": "1.36 1.36.10", "1.36.3": "1.36 1.36.3", "1.36.3+ds1-2": "1.36 1.36.3",
		"1.36.0~rc.1-1.1": " ", "1.36-1": " ", "git": " ", "": " ",
	} {
		minor, patch, ok := release(version)
		if got := minor + " " + patch; got != want || ok != (want != " ") {
			t.Errorf("%s: %q, %t, want %q", version, got, ok, want)
		}
	}
}

func TestMadison(t *testing.T) {
	const out = `   kubelet | 1.36.10-1.1 | https://m.example/k8s  Packages
   kubelet | 1.36.9-1.1 | https://m.example/k8s  Packages
   kubelet | 1.36.9-1.1 | https://m.example/k8s  Packages
   kubelet | 1.36.9-1.1 | https://m.example/k8s  Sources
   kubelet | 1.36.11-1.1 | http://mirror.example.org/debian sid/main amd64 Packages
   kubeadm | 1.36.9-1.2 | https://m.example/k8s  Packages
   kubeadm | 1.36.9-1.1 | https://m.example/k8s  Packages
N: something
`
	o := parseMadison(out, "https://m.example/k8s/")
	want := offer{"kubelet": {"1.36.10-1.1", "1.36.9-1.1"}, "kubeadm": {"1.36.9-1.2", "1.36.9-1.1"}}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Fatal(diff)
	}
	if patch, err := o.choose("1.36", "", []string{"kubelet"}); patch != "1.36.10" || err != nil {
		t.Errorf("%s, %v", patch, err)
	}
	// A mirror that is half-way has the newest of one and not of the other.
	if patch, err := o.choose("1.36", "", []string{"kubelet", "kubeadm"}); patch != "1.36.9" || err != nil {
		t.Errorf("%s, %v", patch, err)
	}
	if version, ok := o.version("kubeadm", "1.36.9"); version != "1.36.9-1.2" || !ok {
		t.Errorf("%s, %t", version, ok)
	}
	_, err := o.choose("1.36", "1.36.8", []string{"kubelet", "kubeadm"})
	wantError(t, err, "no 1.36.8 of kubelet, kubeadm in the repository; it has kubelet: 1.36.10-1.1 1.36.9-1.1; kubeadm: 1.36.9-1.2 1.36.9-1.1")
}

func TestPackagesConfigValidate(t *testing.T) {
	good := []PackagesConfig{
		{}, {KubernetesVersion: "1.36.0"}, {KubernetesVersion: "1.35"}, {KubernetesVersion: "1.37.1"}, {Containerd: "containerd.io"},
		{Repository: RepositoryConfig{URL: "https://m.example:8443/k8s/core:/stable:/v1.36/deb/"}},
		{Repository: RepositoryConfig{URL: "http://m.example/k8s", KeyFile: "/k.asc"}},
		{Repository: RepositoryConfig{URL: "file:///srv/k8s"}},
	}
	for _, c := range good {
		if c.KubernetesVersion == "" {
			c.KubernetesVersion = "1.36"
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	repository := func(url, key string) PackagesConfig {
		return PackagesConfig{KubernetesVersion: "1.36", Repository: RepositoryConfig{URL: url, KeyFile: key}}
	}
	for want, c := range map[string]PackagesConfig{
		`kubernetesVersion: "v1.36" is neither a minor`:                                       {KubernetesVersion: "v1.36"},
		`kubernetesVersion: "" is neither`:                                                    {},
		`kubernetesVersion: "1.34" is not supported: this version is tested with 1.36`:        {KubernetesVersion: "1.34"},
		`kubernetesVersion: "1.38.1" is not supported`:                                        {KubernetesVersion: "1.38.1"},
		`kubernetesVersion: "1.3" is not supported`:                                           {KubernetesVersion: "1.3"},
		`containerd: "two words" is no name of a package`:                                     {KubernetesVersion: "1.36", Containerd: "two words"},
		`containerd: "-o" is no name`:                                                         {KubernetesVersion: "1.36", Containerd: "-o"},
		`repository.url: "http://m.example/k8s": over http the key could be anybody's`:        repository("http://m.example/k8s", ""),
		`repository.url: holds a user or a password`:                                          repository("https://u:p@m.example/k8s", ""),
		`repository.url: is not a URL`:                                                        repository("https://m.example/k8s\nTrusted: yes", ""),
		`repository.url: "ftp://m.example/" is none of https://, http:// and file:///`:        repository("ftp://m.example/", ""),
		`repository.url: "https:///x" is none`:                                                repository("https:///x", ""),
		`repository.url: "file://host/x" is none`:                                             repository("file://host/x", ""),
		`repository.url: "srv/k8s" is none`:                                                   repository("srv/k8s", ""),
		`repository.url: "https://m.example/k8s?token=1": apt knows no query and no fragment`: repository("https://m.example/k8s?token=1", ""),
		`repository.keyFile: "key.asc" is not an absolute path`:                               repository("", "key.asc"),
	} {
		wantError(t, c.Validate(), want)
	}
}

func TestProxies(t *testing.T) {
	env := []string{"HTTP_PROXY=http://p:1", "https_proxy=http://user:secret@p:1", "no_proxy=", "PATH=/bin", "http_proxy=http://q:1", "NO_PROXY=a,b"}
	if diff := cmp.Diff([]string{"http_proxy=http://p:1", "no_proxy=a,b"}, proxyEnv(env)); diff != "" {
		t.Error(diff)
	}
	const config = "Acquire \nAcquire::http::Proxy http://p:1\nAcquire::https::Proxy::M.example DIRECT\n"
	for host, want := range map[string]string{"m.example": "DIRECT", "n.example": "http://p:1"} {
		if got := aptProxy(config, host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	if got := aptProxy(config+"Acquire::https::Proxy http://s:1\n", "n.example"); got != "http://s:1" {
		t.Error(got)
	}
	if got := aptProxy("Acquire \n", "n.example"); got != "" {
		t.Error(got)
	}
}
