package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// proc is a process as /proc shows it.
type proc struct {
	exe, cgroup, cwd string
	args             []string // the program's name included
	env              []string
	uid              string
	net              string            // its network namespace, "" for the host's
	files            map[string]string // of a root of its own; without any it is the host's
}

const unitGroup = "0::/system.slice/etc.service\n"

// put lays p out below h, in real files.
func (p proc) put(t *testing.T, h *host.Host, pid int) {
	t.Helper()
	dir := filepath.Join(h.Root, "proc", strconv.Itoa(pid))
	link := func(target, name string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.Symlink(target, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	or := func(value, other string) string {
		if value == "" {
			return other
		}
		return value
	}
	if p.exe != "none" {
		link(or(p.exe, "/usr/bin/etcd"), "exe")
	}
	link(or(p.cwd, "/var/lib/etcd"), "cwd")
	link(or(p.net, "net:[1]"), "ns/net")
	files := map[string]string{
		"cmdline": strings.Join(p.args, "\x00") + "\x00", "environ": strings.Join(p.env, "\x00") + "\x00",
		"cgroup": or(p.cgroup, unitGroup), "status": "Name:\tetcd\nUid:\t0\t" + or(p.uid, "0") + "\t0\t0\n",
	}
	if p.files == nil {
		link("../..", "root")
	}
	for name, text := range p.files {
		files["root"+name] = text
	}
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// lan is a host at 192.0.2.10 that is called cp1.example; vip.example is somebody else.
var lan = network{
	addresses: func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.ParseIP("192.0.2.10"), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2001:db8::a"), Mask: net.CIDRMask(64, 128)}}, nil
	},
	lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "cp1.example":
			return []netip.Addr{netip.MustParseAddr("192.0.2.10")}, nil
		case "vip.example":
			return []netip.Addr{netip.MustParseAddr("192.0.2.99")}, nil
		}
		return nil, errors.New("no such host")
	},
}

func running(t *testing.T, procs ...proc) *host.Host {
	t.Helper()
	h := host.New(t.TempDir())
	h.Offline = false
	proc{exe: "/usr/bin/bash", args: []string{"bash"}}.put(t, h, 2)
	proc{exe: "none", args: nil}.put(t, h, 3) // a kernel thread
	if err := os.Symlink("2", filepath.Join(h.Root, "proc/self")); err != nil {
		t.Fatal(err)
	}
	for i, p := range procs {
		p.put(t, h, 100+i)
	}
	return h
}

// seen is what of a Local a table can hold.
func seen(l Local) string {
	text := fmt.Sprintf("%s in %s by %s at %s", l.Name, l.DataDir, l.Runs, strings.Join(l.Endpoints, " "))
	if l.Stacked {
		text += " stacked"
	}
	if l.ca.path != "" {
		text += fmt.Sprintf(" ca %d%s", l.ca.pid, l.ca.path)
	}
	for _, p := range l.pairs {
		if !p.perhaps {
			text += fmt.Sprintf(" cert %d%s", p.cert.pid, p.cert.path)
		}
	}
	if l.bare {
		text += " bare"
	}
	return text
}

var securely = []string{"etcd", "--name=m1", "--data-dir=/d", "--listen-client-urls=https://127.0.0.1:2379", "--cert-file=/p/s.crt", "--key-file=/p/s.key", "--trusted-ca-file=/p/ca.crt"}

const securelySeen = "m1 in /d by unit etc.service at https://127.0.0.1:2379 ca 100/p/ca.crt cert 100/p/s.crt"

func TestFind(t *testing.T) {
	config := "name: m1\ndata-dir: /d\nlisten-client-urls: https://127.0.0.1:2379\nclient-transport-security: {cert-file: /p/s.crt, key-file: /p/s.key, trusted-ca-file: /p/ca.crt}\n"
	at := func(urls ...string) []string {
		return []string{"etcd", "--name=m1", "--data-dir=/d", "--listen-client-urls=" + urls[0], "--advertise-client-urls=" + strings.Join(urls[1:], ",")}
	}
	pod := "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice/cri-containerd-" + strings.Repeat("ab", 32) + ".scope\n"
	docker := "12:pids:/docker/x\n1:name=systemd:/docker/" + strings.Repeat("cd", 32) + "\n"
	for name, tt := range map[string]struct {
		procs  []proc
		choice Choice
		want   string // an error begins with "!"
	}{
		"flags, a unit of another name":    {procs: []proc{{args: securely}}, want: securelySeen},
		"a link called etc":                {procs: []proc{{args: append([]string{"/opt/etc"}, securely[1:]...)}}, want: securelySeen},
		"replaced by an upgrade":           {procs: []proc{{exe: "/usr/bin/etcd (deleted)", args: append([]string{"etc"}, securely[1:]...)}}, want: securelySeen},
		"a version in the name":            {procs: []proc{{exe: "/opt/etcd-v3.5.9", args: append([]string{"x"}, securely[1:]...)}}, want: securelySeen},
		"by the name it was started by":    {procs: []proc{{exe: "/opt/app", args: securely}}, want: securelySeen},
		"a child of a shell":               {procs: []proc{{exe: "/bin/dash", args: []string{"sh", "-c", "etcd"}}, {args: securely}}, want: strings.ReplaceAll(securelySeen, "100", "101")},
		"defaults":                         {procs: []proc{{args: []string{"etcd"}}}, want: "default in /var/lib/etcd/default.etcd by unit etc.service at http://localhost:2379 bare"},
		"environment":                      {procs: []proc{{args: []string{"etcd"}, env: []string{"ETCD_NAME=m1", "ETCD_DATA_DIR=/d", "ETCD_LISTEN_CLIENT_URLS=https://127.0.0.1:2379", "ETCD_CERT_FILE=/p/s.crt", "ETCD_KEY_FILE=/p/s.key", "ETCD_TRUSTED_CA_FILE=/p/ca.crt"}}}, want: securelySeen},
		"a flag before the environment":    {procs: []proc{{args: securely, env: []string{"ETCD_NAME=other", "ETCD_DATA_DIR=", "ETCD_CERT_FILE=/other"}}}, want: securelySeen},
		"the file before all":              {procs: []proc{{args: append([]string{"etcd", "--config-file=/etcd.yaml"}, "--name=no", "--listen-client-urls=http://127.0.0.1:1"), env: []string{"ETCD_DATA_DIR=/no"}, files: map[string]string{"/etcd.yaml": config}}}, want: securelySeen},
		"the file named in environment":    {procs: []proc{{args: []string{"etcd"}, env: []string{"ETCD_CONFIG_FILE=conf/etcd.yaml"}, cwd: "/srv", files: map[string]string{"/srv/conf/etcd.yaml": config}}}, want: securelySeen},
		"relative names":                   {procs: []proc{{args: []string{"etcd", "--data-dir=d", "--cert-file=s.crt", "--key-file=s.key", "--trusted-ca-file=../ca.crt", "--listen-client-urls=https://127.0.0.1:2379"}, cwd: "/p/x"}}, want: "default in /p/x/d by unit etc.service at https://127.0.0.1:2379 ca 100/p/ca.crt cert 100/p/x/s.crt"},
		"no file":                          {procs: []proc{{args: []string{"etcd", "--config-file=/etcd.yaml"}, files: map[string]string{"/x": ""}}}, want: "!process 100, unit etc.service: read its configuration file: stat /etcd.yaml: no such file or directory, as process 100 sees it"},
		"a password in a broken file":      {procs: []proc{{args: []string{"etcd", "--config-file=/etcd.yaml"}, files: map[string]string{"/etcd.yaml": "name: m1\ndiscovery-config: {password: *secret}\n"}}}, want: "!/etcd.yaml is no YAML that etcd would read"},
		"a pipe for a file":                {procs: []proc{{args: []string{"etcd", "--config-file=/dir"}, files: map[string]string{"/dir/x": ""}}}, want: "!/dir is no file of less than"},
		"a gateway and a proxy":            {procs: []proc{{args: []string{"etcd", "gateway", "start"}}, {args: []string{"etcd", "grpc-proxy", "start"}}, {args: []string{"etcd", "--version"}}}, want: "!no etcd on this host"},
		"its peer's pair and its own":      {procs: []proc{{args: append([]string{"etcd", "--client-cert-file=/p/c.crt", "--client-key-file=/p/c.key", "--peer-cert-file=/p/p.crt", "--peer-key-file=/p/p.key"}, securely[1:]...)}}, want: "m1 in /d by unit etc.service at https://127.0.0.1:2379 ca 100/p/ca.crt cert 100/p/c.crt cert 100/p/s.crt cert 100/p/p.crt"},
		"certificates made by itself":      {procs: []proc{{args: []string{"etcd", "--auto-tls", "--data-dir=/d", "--listen-client-urls=https://127.0.0.1:2379"}}}, want: "default in /d by unit etc.service at https://127.0.0.1:2379 ca 100/d/fixtures/client/cert.pem cert 100/d/fixtures/client/cert.pem bare"},
		"in a container with its files":    {procs: []proc{{args: securely, cgroup: docker, files: map[string]string{"/p/ca.crt": ""}}}, want: "m1 in /d by container cdcdcdcdcdcd at https://127.0.0.1:2379 ca 100/p/ca.crt cert 100/p/s.crt"},
		"in a pod":                         {procs: []proc{{args: at("http://127.0.0.1:1"), cgroup: pod}}, want: "m1 in /d by pod 0123456789abcdef0123456789abcdef at http://127.0.0.1:1 bare"},
		"events beside it":                 {procs: []proc{{args: at("http://127.0.0.1:1"), cgroup: pod}, {args: at("http://127.0.0.1:2"), cgroup: pod}}, want: "!which of these is meant cannot be told: process 100, pod 0123456789abcdef0123456789abcdef, at http://127.0.0.1:1, data in /d; process 101, pod 0123456789abcdef0123456789abcdef, at http://127.0.0.1:2, data in /d: name its URL in backup.endpoints"},
		"events beside it, chosen":         {procs: []proc{{args: at("http://127.0.0.1:1")}, {args: securely}}, choice: Choice{Endpoints: []string{"https://127.0.0.1:2379"}}, want: strings.ReplaceAll(securelySeen, "100", "101")},
		"a user's trial beside it":         {procs: []proc{{args: securely}, {args: at("http://127.0.0.1:1"), cgroup: "0::/user.slice/user-1000.slice/session-4.scope\n", uid: "1000"}}, want: securelySeen},
		"root's trial beside it":           {procs: []proc{{args: securely}, {args: at("http://127.0.0.1:1"), cgroup: "0::/user.slice/user-1000.slice/session-4.scope\n"}}, want: "!unit session-4.scope"},
		"a user's trial alone":             {procs: []proc{{args: at("http://127.0.0.1:1"), cgroup: "0::/user.slice/user-1000.slice/session-4.scope\n", uid: "1000"}}, want: "!process 100, login session of user 1000, at http://127.0.0.1:1, data in /d is not taken for this host's by itself"},
		"somebody else's network":          {procs: []proc{{args: at("http://0.0.0.0:1", "http://172.18.0.2:1"), cgroup: docker, net: "net:[2]"}}, want: "!process 100, container cdcdcdcdcdcd in a network of its own, at http://0.0.0.0:1, data in /d is not taken for this host's"},
		"the same address elsewhere":       {procs: []proc{{args: at("http://0.0.0.0:1", "http://192.0.2.10:1")}, {args: at("http://0.0.0.0:1", "http://192.0.2.10:1"), net: "net:[2]"}}, want: "m1 in /d by unit etc.service at http://192.0.2.10:1 http://127.0.0.1:1 bare"},
		"another port of the same address": {procs: []proc{{args: at("http://0.0.0.0:2", "http://192.0.2.10:2")}, {args: at("http://0.0.0.0:1", "http://192.0.2.10:1"), net: "net:[2]"}}, want: "!which of these is meant cannot be told"},
		"a published port":                 {procs: []proc{{args: at("http://0.0.0.0:1", "http://192.0.2.10:1"), cgroup: docker, net: "net:[2]"}}, want: "m1 in /d by container cdcdcdcdcdcd at http://192.0.2.10:1 bare"},
		"a published port, chosen":         {procs: []proc{{args: at("http://0.0.0.0:1", "http://127.0.0.1:1"), cgroup: docker, net: "net:[2]"}}, choice: Choice{Endpoints: []string{"http://127.0.0.1:1"}}, want: "m1 in /d by container cdcdcdcdcdcd at http://127.0.0.1:1 bare"},
		"a socket":                         {procs: []proc{{args: at("unix:///run/etcd.sock", "http://127.0.0.1:1"), net: "net:[2]"}}, want: "m1 in /d by unit etc.service at unix:///run/etcd.sock bare"},
		"a socket beside a port":           {procs: []proc{{args: at("unix://etcd.sock:0,http://127.0.0.1:1")}}, want: "m1 in /d by unit etc.service at http://127.0.0.1:1 unix:///var/lib/etcd/etcd.sock:0 bare"},
		"no loopback":                      {procs: []proc{{args: at("http://192.0.2.10:1", "http://cp1.example:1")}}, want: "m1 in /d by unit etc.service at http://192.0.2.10:1 http://cp1.example:1 bare"},
		"IPv6":                             {procs: []proc{{args: at("http://[2001:db8::a]:1,http://[::1]:1")}}, want: "m1 in /d by unit etc.service at http://[::1]:1 http://[2001:db8::a]:1 bare"},
		"everywhere, behind a balancer":    {procs: []proc{{args: at("http://0.0.0.0:1", "http://vip.example:1", "http://gone.example:1")}}, want: "m1 in /d by unit etc.service at http://127.0.0.1:1 bare"},
		"everywhere, by IPv6":              {procs: []proc{{args: at("http://[::]:1", "http://[2001:db8::a]:1")}}, want: "m1 in /d by unit etc.service at http://[2001:db8::a]:1 http://[::1]:1 bare"},
		"a port for HTTP alone":            {procs: []proc{{args: append(at("http://0.0.0.0:1", "http://192.0.2.10:2", "http://192.0.2.10:1"), "--listen-client-http-urls=http://192.0.2.10:2")}}, want: "m1 in /d by unit etc.service at http://192.0.2.10:1 http://127.0.0.1:1 bare"},
		"one list for all hosts":           {procs: []proc{{args: at("http://0.0.0.0:1")}}, choice: Choice{Endpoints: []string{"http://192.0.2.9:1", "http://192.0.2.10:1", "http://vip.example:1"}}, want: "m1 in /d by unit etc.service at http://192.0.2.10:1 bare"},
		"two of the same member":           {procs: []proc{{args: at("http://0.0.0.0:1")}}, choice: Choice{Endpoints: []string{"http://cp1.example:1", "http://localhost:1"}}, want: "m1 in /d by unit etc.service at http://cp1.example:1 bare"},
		"two of this host":                 {procs: []proc{{args: at("http://127.0.0.1:1")}, {args: at("http://127.0.0.1:2")}}, choice: Choice{Endpoints: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}}, want: "!both http://127.0.0.1:1 and http://127.0.0.1:2 are on this host"},
		"none of this host":                {procs: []proc{{args: at("http://127.0.0.1:1")}}, choice: Choice{Endpoints: []string{"http://192.0.2.9:1", "http://vip.example:1"}}, want: "!backup.endpoints: none of http://192.0.2.9:1, http://vip.example:1 is on this host"},
		"chosen, and nothing to be seen":   {choice: Choice{Endpoints: []string{"https://192.0.2.10:1"}, CAFile: "/ca", CertFile: "/c", KeyFile: "/k"}, want: " in  by  at https://192.0.2.10:1 ca 0/ca cert 0/c"},
		"files that are configured":        {procs: []proc{{args: securely}}, choice: Choice{CAFile: "/ca", CertFile: "/c", KeyFile: "/k"}, want: "m1 in /d by unit etc.service at https://127.0.0.1:2379 ca 0/ca cert 0/c"},
		"nobody":                           {want: "!no etcd on this host"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := find(t.Context(), running(t, tt.procs...), tt.choice, lan)
			if want, is := strings.CutPrefix(tt.want, "!"); is {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("found %s, error %v, want %q", seen(l), err, want)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("a password in %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, seen(l)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// What is found beside a static pod manifest.
func TestFindBesideManifest(t *testing.T) {
	args := []string{"etcd", "--listen-client-urls=http://127.0.0.1:1"}
	pod := "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/" + strings.Repeat("ab", 32) + "\n"
	for name, tt := range map[string]struct {
		procs   []proc
		wantErr string
	}{
		"not running":        {},
		"its pod":            {procs: []proc{{args: args, cgroup: pod}}},
		"its pod, as it was": {procs: []proc{{args: []string{"etcd", "--listen-client-urls=http://127.0.0.1:2"}, cgroup: pod}}},
		"a stand-in":         {procs: []proc{{args: args}}},
		"something else":     {procs: []proc{{args: []string{"etcd"}}}, wantErr: "process 100, unit etc.service, at http://localhost:2379, data in /var/lib/etcd/default.etcd; the static pod of " + Manifest + ", which does not run"},
	} {
		t.Run(name, func(t *testing.T) {
			h := running(t, tt.procs...)
			if err := h.WriteFile(Manifest, []byte(manifestOf(args...)), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := find(t.Context(), h, Choice{}, lan)
			var several *SeveralError
			switch {
			case tt.wantErr != "" && (!errors.As(err, &several) || !strings.Contains(err.Error(), tt.wantErr)):
				t.Errorf("error %v, want a SeveralError with %q", err, tt.wantErr)
			case tt.wantErr == "" && (err != nil || !l.Stacked || l.PID != 0 != (len(tt.procs) > 0)):
				t.Errorf("found %+v, %v", l, err)
			}
		})
	}
	t.Run("an image", func(t *testing.T) {
		h := running(t, proc{args: args})
		h.Offline = true
		if _, err := find(t.Context(), h, Choice{}, lan); !errors.Is(err, ErrNoMember) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a process is seen in a tree that does not run: %v", err)
		}
	})
}

func TestParseRunner(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for group, want := range map[string]runner{
		"0::/system.slice/etcd-server.service\n":                            {kind: "unit", name: "etcd-server.service"},
		"11:cpu:/\n1:name=systemd:/system.slice/etc.service\n0::/other\n":   {kind: "unit", name: "etc.service"},
		"0::/system.slice/docker-" + id + ".scope\n":                        {kind: "container", name: "0123456789ab"},
		"0::/machine.slice/libpod-" + id + ".scope/container\n":             {kind: "container", name: "0123456789ab"},
		"0::/kubepods-pod1a2b3c4d_1234_5678_9abc_def012345678.slice/x":      {kind: "pod", name: "1a2b3c4d-1234-5678-9abc-def012345678"},
		"0::/kubepods/pod1a2b3c4d-1234-5678-9abc-def012345678/" + id + "\n": {kind: "pod", name: "1a2b3c4d-1234-5678-9abc-def012345678"},
		"0::/user.slice/user-7.slice/user@7.service/app.slice/a.service\n":  {kind: "unit", name: "a.service", session: true},
		"0::/user.slice/user-7.slice/user@7.service\n":                      {kind: "login session of user", name: "7", session: true},
		"0::/default/etcd\n": {kind: "control group", name: "/default/etcd"},
		"0::/\n":             {kind: "no unit"},
		"":                   {kind: "no unit"},
		"x":                  {kind: "no unit"},
	} {
		if got := parseRunner(group, "7"); got != want {
			t.Errorf("%q: %+v, want %+v", group, got, want)
		}
	}
}

func TestValidateChoice(t *testing.T) {
	for want, c := range map[string]Choice{
		"": {Endpoints: []string{"https://192.0.2.10:2379", "http://[::1]:1", "https://cp1.example:2379", "unix:///run/etcd.sock"}, CAFile: "/a", CertFile: "/b", KeyFile: "/c"},
		"endpoints[0]: is no URL of etcd's, as in":           {Endpoints: []string{"https://u:secret@192.0.2.10:2379"}},
		"endpoints[0]: is no URL of etcd's":                  {Endpoints: []string{"192.0.2.10:2379"}},
		"endpoints[0]: is no URL of etcd's, as":              {Endpoints: []string{"https://a:1,https://b:1"}},
		"endpoints[0]: \"https://a:1/v3\" is no URL":         {Endpoints: []string{"https://a:1/v3"}},
		"endpoints[0]: \"unix://etcd.sock\" is no URL":       {Endpoints: []string{"unix://etcd.sock"}},
		"endpoints[0]: \"http://0.0.0.0:1\" is no address":   {Endpoints: []string{"http://0.0.0.0:1"}},
		"endpoints[1]: \"http://a:1\" is there twice":        {Endpoints: []string{"http://a:1", "http://a:1"}},
		"caFile: \"ca.crt\" is not a plain absolute path":    {CAFile: "ca.crt"},
		"certFile: \"/a/../b\" is not a plain absolute path": {CertFile: "/a/../b", KeyFile: "/k"},
		"certFile: is missing beside keyFile":                {KeyFile: "/k"},
		"keyFile: is missing beside certFile":                {CertFile: "/c"},
	} {
		err := c.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password in %v", err)
		}
	}
}
