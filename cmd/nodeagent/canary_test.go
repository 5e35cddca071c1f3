package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/pkg/bootstrap"
	"github.com/nodeagent/nodeagent/pkg/certs/certstest"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/etcd"
	"github.com/nodeagent/nodeagent/pkg/etcd/etcdtest"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// secretKeys are the keys of the configuration whose value is a secret, names a file with one, or
// may have one in it. A key that is neither here nor in harmlessKeys fails the test: whoever adds
// one says which it is and, if it is a secret, plants a canary in it.
var secretKeys = []string{
	"containerd.mirrors.endpoints.passwordFile", "containerd.mirrors.endpoints.usernameFile", "metrics.webConfigFile",
	"kubeadm.clusterConfiguration", "kubeadm.initConfiguration", "kubeadm.kubeletConfiguration", "kubeadm.kubeProxyConfiguration",
	// These are refused with a user in them, and the refusal is looked at.
	"containerd.mirrors.endpoints.url", "containerd.proxy.http", "containerd.proxy.https", "packages.repository.url", "backup.endpoints",
	"backup.stores.s3.endpoint",
	// The keys in these files are looked for in every error of the store by test/integration/s3.
	"backup.stores.s3.accessKeyFile", "backup.stores.s3.secretKeyFile",
}

var harmlessKeys = []string{
	"backup.caFile", "backup.certFile", "backup.keyFile", // paths: the key in the file is etcd's clients', not ours
	"backup.drill.dir", "backup.drill.identityFile", "backup.drill.schedule", // a path: what is in the file is read by the drill's own unit
	"addons", "backup.compression", "backup.rate", "backup.recipients", "backup.schedule", "backup.stores.file.dir", "backup.stores.s3.bucket", "backup.stores.s3.caFile",
	"backup.stores.s3.prefix", "backup.stores.s3.region", "backup.stores.s3.sse", "backup.timeZone", "certs.renew", "containerd.mirrors.endpoints.caFile",
	"containerd.mirrors.registry", "containerd.proxy.noProxy", "drift.mode", "images.archives", "kernel.modules", "kernel.swap",
	"kernel.sysctls.name", "kernel.sysctls.value", "kubeadm.certSANs", "kubeadm.controlPlaneEndpoint", "kubeadm.hardening.auditPolicyFile",
	"kubeadm.join", "kubeadm.patches", "log.format", "log.level", "metrics.listen", "metrics.textfile", "network.cni", "network.podSubnet", "network.serviceSubnet",
	"node.adminKubeconfigFor", "node.address", "node.name", "packages.containerd", "packages.kubernetesVersion",
	"packages.repository.keyFile", "preflight.ignore", "role",
}

// textKeys are the keys below a type that can hold a text.
func textKeys(typ reflect.Type, at string) []string {
	switch {
	case typ == reflect.TypeFor[bootstrap.Passthrough]() || typ.Kind() == reflect.String:
		return []string{at}
	case typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map:
		return textKeys(typ.Elem(), at)
	case typ.Kind() != reflect.Struct:
		return nil
	}
	var keys []string
	for field := range typ.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		key := strings.Trim(at+"."+name, ".")
		if options == "inline" {
			key = at
		}
		keys = append(keys, textKeys(field.Type, key)...)
	}
	return keys
}

func TestEveryKeyIsKnownToTheCanaries(t *testing.T) {
	keys := textKeys(reflect.TypeFor[config.Config](), "")
	known := slices.Concat(secretKeys, harmlessKeys)
	for _, key := range keys {
		if !slices.Contains(known, key) {
			t.Errorf("%s is new: enter it in secretKeys, with a canary in it, or in harmlessKeys", key)
		}
	}
	for _, key := range known {
		if !slices.Contains(keys, key) {
			t.Errorf("%s is no key any more", key)
		}
	}
}

// canaries are secrets by what they are.
type canaries map[string]string

// plant makes one up, in the shape that it has to have.
func (c canaries) plant(what, format string) string {
	c[what] = fmt.Sprintf(format, fmt.Sprintf("%06dcafe%06d", len(c)+1, 7919*(len(c)+1)))
	return c[what]
}

// in are those that are in a text, as they are or in base64, as they are put into a header.
func (c canaries) in(data []byte) []string {
	var found []string
	for what, canary := range c {
		// At the three offsets that it can have there, without what its neighbors have a part in.
		forms := [][]byte{[]byte(canary)}
		for pad := range 3 {
			coded := base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{0}, pad), canary...))
			forms = append(forms, []byte(coded[4:len(coded)-4]))
		}
		if slices.ContainsFunc(forms, func(form []byte) bool { return bytes.Contains(data, form) }) {
			found = append(found, what)
		}
	}
	slices.Sort(found)
	return found
}

// emitted fails the test for what is in a text that somebody sees.
func (c canaries) emitted(t *testing.T, where string, data []byte) {
	t.Helper()
	if found := c.in(data); len(found) > 0 {
		t.Errorf("%s tells %q:\n%s", where, found, data)
	}
}

var pemKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----\n[^\n]+\n([^\n]{20,})\n`)

// keysBelow takes the private keys on a machine for canaries: those in files, and in kubeconfigs.
func (c canaries) keysBelow(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile(`client-key-data: *(\S+)`).FindAllSubmatch(data, -1) {
			plain, err := base64.StdEncoding.DecodeString(string(m[1]))
			if err != nil {
				return err
			}
			c["coded key in "+filepath.Base(path)] = string(m[1][100:160])
			data = append(data, plain...)
		}
		for _, m := range pemKey.FindAllSubmatch(data, -1) {
			c["key in "+strings.TrimPrefix(path, root)] = string(m[1])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c) < 20 {
		t.Fatalf("there are %d secrets only: %q", len(c), slices.Sorted(maps.Keys(c)))
	}
}

// canaryHost is a control plane with a canary in every secret that there can be.
func canaryHost(t *testing.T) (*host.Host, canaries) {
	t.Helper()
	c := canaries{}
	h := scratch(t, "")
	c["token"] = "ca4a4y." + "ca4a4y7h0k3n0fb7"
	write(t, h, configFile, strings.NewReplacer(
		"TOKEN", c["token"], "CERTIFICATEKEY", c.plant("certificate key", "%s"), "ETCDPASSWORD", c.plant("password in a variable", "%s"),
		"PROXYPASSWORD", c.plant("password of a proxy", "%s"), "KUBELETSECRET", c.plant("secret of the kubelet", "%s"),
		"PROXYSECRET", c.plant("secret of kube-proxy", "%s"),
	).Replace(`
role: control-plane
network: {cni: bridge}
metrics: {listen: "127.0.0.1:0", webConfigFile: /etc/nodeagent/web.yaml}
packages: {manage: false}
backup: {interval: 1s, retention: {keepLast: 1}}
drift: {interval: 1s}
containerd:
  mirrors: [{registry: docker.io, endpoints: [{url: "https://mirror.example", usernameFile: /etc/nodeagent/user, passwordFile: /etc/nodeagent/password}]}]
log: {level: debug}
kubeadm:
  clusterConfiguration:
    apiServer:
      extraArgs: [{name: encryption-provider-config, value: /etc/kubernetes/pki/encryption.yaml}]
      extraEnvs: [{name: HTTPS_PROXY, value: "http://me:PROXYPASSWORD@proxy.example:3128"}, {name: ETCD_PASSWORD, value: ETCDPASSWORD}]
  initConfiguration: {certificateKey: CERTIFICATEKEY, bootstrapTokens: [{token: TOKEN}]}
  kubeletConfiguration: {secret: KUBELETSECRET}
  kubeProxyConfiguration: {secret: PROXYSECRET}
`))
	write(t, h, "/etc/nodeagent/web.yaml", "basic_auth_users:\n  prometheus: "+c.plant("hash of a password", "$2y$05$%sabcdefghijklmnopqrstuvwxyzabcdefghijk")+"\n")
	write(t, h, "/etc/nodeagent/user", c.plant("user of a registry", "puller-%s")+"\n")
	write(t, h, "/etc/nodeagent/password", c.plant("password of a registry", "%s")+"\n")
	write(t, h, "/var/lib/nodeagent/kubeadm.yaml", "bootstrapTokens: [{token: "+c["token"]+"}]\n")
	write(t, h, "/etc/fstab", "/dev/vdb1 none swap sw 0 0\n//nas/x /mnt/x cifs credentials=/x,password="+c.plant("password in fstab", "%s")+" 0 0\n")
	write(t, h, "/etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r\".auth]\n  password = \""+c.plant("password in config.toml", "%s")+"\"\n")
	write(t, h, "/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n")
	if err := certstest.Write(h.Root, certstest.Options{Now: time.Now(), Kubelet: true}); err != nil {
		t.Fatal(err)
	}
	write(t, h, "/etc/kubernetes/pki/encryption.yaml", "kind: EncryptionConfiguration\nsecret: "+c.plant("encryption key", "%s")+"\n")
	write(t, h, "/etc/kubernetes/scheduler.conf", "users: [{name: x, user: {token: "+c.plant("token in a kubeconfig", "%s")+", password: x}}]\n")
	c.keysBelow(t, h.Root)
	return h, c
}

// Every secret that the program can come by is planted, and nothing that it emits has one in it:
// output of every command, logs, metrics, pages, what it leaves on the machine.
func TestNoSecretIsEmitted(t *testing.T) {
	h, c := canaryHost(t)
	member, err := etcdtest.Start(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = member.Close() }()
	c.keysBelow(t, h.Root) // etcd's own
	putCanary(t, h, c.plant("a Secret in etcd", "%s"))
	before := bearers(t, h, c)
	for _, command := range []string{
		"config check", "config print", "config init", "plan", "plan -o json", "plan -o yaml", "apply", "apply", "plan", "status", "status -o json", "status -o yaml",
		"certs list", "certs list -o json", "snapshot save", "snapshot list", "snapshot list -o json", "version", "config check extra",
	} {
		c.emitted(t, command, command1(t, h, command))
	}
	p := start(t, h, "HTTPS_PROXY=http://me:"+c.plant("password in the environment", "%s")+"@proxy.example")
	until(t, "a snapshot and a look at the host", func() bool {
		return strings.Contains(p.output(), "job=snapshot") && strings.Contains(p.output(), "job=drift")
	})
	for _, page := range []string{"/", "/metrics", "/healthz", "/readyz", "/none"} {
		status, body := p.get(t, page)
		if page == "/metrics" && status != http.StatusUnauthorized {
			t.Errorf("%s without a password: %d", page, status)
		}
		c.emitted(t, page, []byte(body))
	}
	p.stop(t)
	write(t, h, configFile, strings.Replace(readText(t, h, configFile), ", webConfigFile: /etc/nodeagent/web.yaml", "", 1))
	p = start(t, h)
	for _, page := range []string{"/", "/metrics", "/healthz", "/readyz", "/none"} {
		_, body := p.get(t, page)
		if page == "/metrics" && !strings.Contains(body, "nodeagent_build_info") {
			t.Errorf("no metrics: %s", body)
		}
		c.emitted(t, page, []byte(body))
	}
	p.stop(t)
	c.emitted(t, "the daemon", []byte(p.output()+p.told()))
	for path, found := range bearers(t, h, c) {
		if _, was := before[path]; !was && !mayHold(path) {
			t.Errorf("%s holds %q", path, found)
		}
		if info, err := h.Lstat(path); err != nil || !strings.HasSuffix(path, "fstab") && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s holds %q and has mode %v, %v", path, found, info.Mode(), err)
		}
	}
}

// mayHold says whether a file that the agent makes may have secrets in it.
func mayHold(path string) bool {
	return strings.HasPrefix(path, "/var/lib/nodeagent/originals/") ||
		path == "/etc/containerd/certs.d/docker.io/hosts.toml" ||
		strings.HasPrefix(path, "/var/lib/nodeagent/backups/") && strings.HasSuffix(path, ".db.zst")
}

// bearers are the files on the machine that have a canary in them.
func bearers(t *testing.T, h *host.Host, c canaries) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	err := filepath.WalkDir(h.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if found := c.in(data); len(found) > 0 {
			all[strings.TrimPrefix(path, h.Root)] = found
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Fatalf("canaries are in %q only", slices.Sorted(maps.Keys(all)))
	}
	return all
}

func readText(t *testing.T, h *host.Host, path string) string {
	t.Helper()
	data, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func putCanary(t *testing.T, h *host.Host, value string) {
	t.Helper()
	local, err := etcd.FindLocal(h)
	if err != nil {
		t.Fatal(err)
	}
	client, err := local.Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Put(t.Context(), "/registry/secrets/default/x", value); err != nil {
		t.Fatal(err)
	}
}

// command1 runs the program to its end, whatever that is, and returns all that it printed.
func command1(t *testing.T, h *host.Host, line string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nodeagent", append([]string{"--root", h.Root}, strings.Fields(line)...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Errorf("%s prints nothing", line)
	}
	return out
}

// Mistakes near a secret, and secrets where none belongs: the complaint does not quote them.
func TestComplaintsTellNoSecret(t *testing.T) {
	c := canaries{}
	secret := c.plant("the secret", "%s")
	for name, text := range map[string]string{
		"a tab after it":         "kubeadm: {initConfiguration: {certificateKey: SECRET}}\n\tx: y",
		"an open quote":          "kubeadm: {initConfiguration: {certificateKey: \"SECRET}}",
		"an open brace":          "kubeadm: {initConfiguration: {certificateKey: SECRET",
		"a second colon":         "kubeadm:\n  initConfiguration:\n    certificateKey: SECRET: x",
		"an unknown anchor":      "kubeadm: {initConfiguration: {certificateKey: *SECRET}}",
		"not UTF-8":              "kubeadm: {initConfiguration: {certificateKey: SECRET\xff}}",
		"no mapping":             "kubeadm: {initConfiguration: SECRET}",
		"a list":                 "kubeadm: {initConfiguration: [SECRET]}",
		"a misspelt section":     "kubeadm: {initConfigration: {certificateKey: SECRET}}",
		"a misspelt key":         "metrics: {webConfigFil: SECRET}",
		"twice":                  "kubeadm: {initConfiguration: {certificateKey: SECRET, certificateKey: SECRET}}",
		"a key that is ours":     "kubeadm: {initConfiguration: {nodeRegistration: {name: x}, bootstrapTokens: [{token: SECRET}]}}",
		"an unknown key":         "kubeadm: {token: SECRET}",
		"join":                   "kubeadm: {join: {token: SECRET}}",
		"the file's content":     "metrics: {webConfigFile: SECRET}",
		"the password itself":    "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://m', usernameFile: /u, passwordFile: SECRET}]}]}",
		"the user itself":        "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://m', usernameFile: SECRET, passwordFile: /p}]}]}",
		"a list of passwords":    "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://m', usernameFile: /u, passwordFile: [SECRET]}]}]}",
		"a proxy's":              "containerd: {proxy: {http: 'http://me:SECRET@proxy'}}",
		"a proxy's, no URL":      "containerd: {proxy: {https: 'http://me:SECRET@pro xy:x'}}",
		"a mirror's":             "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://me:SECRET@m'}]}]}",
		"a mirror's, no URL":     "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'https://me:SECRET@m m:x'}]}]}",
		"a mirror's, no scheme":  "containerd: {mirrors: [{registry: docker.io, endpoints: [{url: 'me:SECRET@m'}]}]}",
		"a repository's":         "packages: {repository: {url: 'https://me:SECRET@r/'}}",
		"a repository's, no URL": "packages: {repository: {url: 'https://me:SECRET@r r:x/'}}",
		"a bucket's":             "backup: {stores: [{s3: {endpoint: 'https://me:SECRET@s', bucket: b, accessKeyFile: /a, secretKeyFile: /b}}]}",
		"a bucket's key":         "backup: {stores: [{s3: {endpoint: 'https://s', bucket: bbb, accessKeyFile: SECRET, secretKeyFile: SECRET}}]}",
		"etcd's":                 "backup: {endpoints: ['https://me:SECRET@e:2379']}",
		"etcd's, no URL":         "backup: {endpoints: ['https://me:SECRET@e e:x']}",
		"a repository's, ftp":    "packages: {repository: {url: 'ftp://me:SECRET@r/'}}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := scratch(t, "role: control-plane\n"+strings.ReplaceAll(text, "SECRET", secret)+"\n")
			for _, line := range []string{"config check", "plan -o json", "run"} {
				out := command1(t, h, line)
				c.emitted(t, line, out)
				if !bytes.Contains(out, []byte("config.yaml")) {
					t.Fatalf("%s takes it:\n%s", line, out)
				}
			}
		})
	}
}
