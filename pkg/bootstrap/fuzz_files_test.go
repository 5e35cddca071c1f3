package bootstrap

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// What the section "containerd" accepts is in the files that are made of it, and nothing else is:
// no line, no key that its values have smuggled in.
func FuzzContainerdFiles(f *testing.F) {
	for _, seed := range []string{"http://proxy.example:3128", "https://mirror.example/v2/x", "10.0.0.0/8", "a\nb", "%h", "http://a/\x00", "http://a/'\"", "http://é.example", "http://a\u0085"} {
		f.Add("docker.io", seed, seed)
		f.Add(seed, "https://a", "x")
	}
	f.Fuzz(func(t *testing.T, registry, url, noProxy string) {
		c := ContainerdConfig{Proxy: ProxyConfig{HTTP: url, NoProxy: []string{noProxy}}}
		if c.Validate() == nil {
			file := string(renderProxy(map[string]string{"HTTP_PROXY": url, "NO_PROXY": noProxy}))
			lines := strings.Split(file, "\n")
			control := func(r rune) bool { return unicode.IsControl(r) && r != '\n' }
			if len(lines) != 5 || strings.ContainsFunc(file, control) || strings.Count(file, `"`) != 4 || !utf8.ValidString(file) {
				t.Errorf("proxy %q but for %q becomes %q", url, noProxy, file)
			}
			for i, want := range []string{"HTTP_PROXY=" + url, "NO_PROXY=" + noProxy} {
				have, _ := strings.CutPrefix(lines[2+i], `Environment="`)
				if strings.ReplaceAll(strings.TrimSuffix(have, `"`), "%%", "%") != want {
					t.Errorf("%q is set by %q", want, lines[2+i])
				}
			}
		}
		mirror := MirrorConfig{Registry: registry, Endpoints: []EndpointConfig{{URL: url}}}
		if (ContainerdConfig{Mirrors: []MirrorConfig{mirror}}).Validate() != nil {
			return
		}
		r := registries{host: &host.Host{Root: "/nowhere"}, mirrors: []MirrorConfig{mirror}}
		file, err := r.render(mirror)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := decodeTOML(file.content)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", url, file.content, err)
		}
		hosts, _ := tree["host"].(map[string]any)
		if _, there := hosts[url]; !there || len(hosts) != 1 || len(tree) != 1 {
			t.Errorf("%q becomes %v", url, tree)
		}
		path, _, err := r.place("/certs", registry)
		if err != nil || !strings.HasPrefix(path, "/certs/") || strings.Count(path, "/") != 3 {
			t.Errorf("%q lies at %q, %v", registry, path, err)
		}
	})
}

// Of what apt and kubeadm print only what is there is believed.
func FuzzVersions(f *testing.F) {
	for _, seed := range []string{
		"kubelet | 1.36.3-1.1 | https://pkgs.example/deb  Packages\n", "a | b |  c Packages\n | | Packages", "v1.36.3", "v1.36", "v1.x.y\n",
		"kubelet|1.36.10-1.1|u Packages\nkubelet|1.36.9-1.1|u Packages\n", "Acquire::https::Proxy http://p:1\nACQUIRE::HTTP::proxy::H DIRECT\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, out string) {
		o := parseMadison(out, "")
		for name, versions := range o {
			for _, v := range versions {
				if !strings.Contains(out, v) || !strings.Contains(out, name) {
					t.Errorf("%s of %q", v, name)
				}
			}
			patches := o.patches("1.36", []string{name})
			if !slices.IsSortedFunc(patches, func(a, b string) int { return byPatch(b, a) }) {
				t.Errorf("patches %q", patches)
			}
			if chosen, err := o.choose("1.36", "", []string{name}); err == nil {
				if v, ok := o.version(name, chosen); !ok || !strings.HasPrefix(chosen, "1.36.") || !slices.Contains(versions, v) {
					t.Errorf("chose %q, which is %q", chosen, v)
				}
			}
		}
		if version, minor, err := parseVersion([]byte(out)); err == nil && !strings.HasPrefix(version, "v"+minor+".") {
			t.Errorf("%q is %q of %q", out, version, minor)
		}
		if proxy := aptProxy(out, "h"); proxy != "" && !strings.Contains(out, proxy) {
			t.Errorf("proxy %q of %q", proxy, out)
		}
	})
}
