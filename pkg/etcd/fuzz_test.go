package etcd

import (
	"path"
	"strings"
	"testing"
)

// sound is what every result of a parser has to be.
func sound(t *testing.T, s settings, dir string) {
	t.Helper()
	for _, u := range append(append(s.listen, s.plain...), s.advertise...) {
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || isUnix(u) == (u.Host != "") {
			t.Errorf("URL %#v", u)
		}
	}
	for _, name := range []string{s.caFile, s.server.cert, s.server.key, s.client.cert, s.client.key, s.peer.cert, s.peer.key} {
		if name != "" && !path.IsAbs(name) {
			t.Errorf("%q is not absolute", name)
		}
	}
	if dir != "" && !path.IsAbs(s.dataDir) {
		t.Errorf("data in %q", s.dataDir)
	}
	p := process{settings: s}
	for _, endpoint := range p.endpoints(t.Context(), lan) {
		if !strings.Contains(endpoint, "://") {
			t.Errorf("endpoint %q", endpoint)
		}
	}
	_, _ = p.describe(), p.clientPairs()
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifestOf("etcd", "--listen-client-urls=https://127.0.0.1:2379", "--cert-file", "/a", "--key-file", "/b")))
	f.Add([]byte(manifestOf("etcd", "--listen-client-urls=http://[::]:1,http://:2,://", "-", "--", "---x")))
	f.Add([]byte("kind: Pod\nspec: {containers: [{command: [etcd, &a [*a]]}]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseManifest(data); err == nil {
			sound(t, s, "")
		}
	})
}

// FuzzProcess reads a command line and an environment as /proc has them.
func FuzzProcess(f *testing.F) {
	f.Add([]byte("etcd\x00--listen-client-urls\x00unix://a:1,unix:///b,https://[fe80::1%eth0]:1\x00--auto-tls\x00"), []byte("ETCD_NAME=a\x00TOKEN=x\x00"))
	f.Add([]byte("etcd\x00-\x00--\x00--config-file"), []byte("ETCD_CONFIG_FILE=x\x00\x00=\x00ETCD_"))
	f.Add([]byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, cmdline, environ []byte) {
		line, env := splitNUL(cmdline), splitNUL(environ)
		isServer(line)
		flags := parseFlags(line)
		configFile(flags, env)
		if s, err := settingsOf(byCommandLine(flags, env), "/w"); err == nil {
			sound(t, s, "/w")
		}
	})
}

// FuzzParseConfigFile: no error holds what is in the file.
func FuzzParseConfigFile(f *testing.F) {
	f.Add([]byte("name: m1\nlisten-client-urls: https://127.0.0.1:2379\nclient-transport-security: {cert-file: a, auto-tls: true}\n"))
	f.Add([]byte("discovery-config: {password: *secret}\n"))
	f.Add([]byte("client-cert-auth: [\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		get, err := parseConfigFile(data)
		if err != nil {
			if text := lineNumber.ReplaceAllString(err.Error(), ""); text != "is no YAML that etcd would read" && text != "is no YAML that etcd would read: " {
				t.Errorf("error %q", text)
			}
			return
		}
		if s, err := settingsOf(get, "/w"); err == nil {
			sound(t, s, "/w")
		}
	})
}

func FuzzParseRunner(f *testing.F) {
	f.Add("1:name=systemd:/user.slice/user-1.slice/session-1.scope\n0::/\n", "1")
	f.Add("0::/kubepods/pod0123456789abcdef0123456789abcdef/x", "0")
	f.Fuzz(func(t *testing.T, groups, user string) {
		if r := parseRunner(groups, user); user == "0" && r.session {
			t.Errorf("%q: root has a session: %+v", groups, r)
		}
		effectiveUser(groups)
	})
}
