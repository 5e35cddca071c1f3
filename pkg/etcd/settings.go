package etcd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// settings is the little of what etcd was told that is needed to reach it. Nothing else is
// kept: flags, environment and file may hold tokens and passwords.
type settings struct {
	name    string
	dataDir string
	// listen is where gRPC is served, plain where only HTTP is, advertise what clients are told.
	listen, plain, advertise []*url.URL
	server, client, peer     names // of files
	caFile, peerCAFile       string
	configFile               string // "": flags and environment
	asksClients              bool   // a client needs a certificate
}

// names are a certificate's file and its key's.
type names struct{ cert, key string }

// etcdURL is the default of both --listen-client-urls and --advertise-client-urls.
const etcdURL = "http://localhost:2379"

// told is the value of one setting, by the name of its flag, and whether it was given.
type told func(flag string) (value string, given bool)

// splitNUL splits what /proc has of a command line or an environment.
func splitNUL(data []byte) []string {
	text := strings.TrimSuffix(string(data), "\x00")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\x00")
}

// parseFlags reads --flag=value, --flag value and -flag the way Go's flag package, which etcd
// uses, does; a flag without a value is there with an empty one, and the last of several wins.
// etcd has boolean flags, which take no separate value: those are followed by another flag or
// by nothing, so that what follows a flag and is none itself is its value.
func parseFlags(args []string) map[string]string {
	flags := map[string]string{}
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			break
		}
		name, ok := strings.CutPrefix(args[i], "-")
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, "-")
		name, value, hasValue := strings.Cut(name, "=")
		if !hasValue && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			value = args[i]
		}
		flags[name] = value
	}
	return flags
}

// byCommandLine is etcd's precedence where there is no configuration file: a flag, else the
// variable that is named after it, unless that is empty.
func byCommandLine(flags map[string]string, environ []string) told {
	return func(flag string) (string, bool) {
		if value, given := flags[flag]; given {
			return value, true
		}
		value := variable(environ, flag)
		return value, value != ""
	}
}

// variable is the environment variable of a flag. Of several the first counts, as in Go's
// os.Getenv.
func variable(environ []string, flag string) string {
	key := "ETCD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) + "="
	for _, entry := range environ {
		if value, is := strings.CutPrefix(entry, key); is {
			return value
		}
	}
	return ""
}

// configFile is what etcd reads instead of its other flags and its environment; "" if there is
// none.
func configFile(flags map[string]string, environ []string) string {
	if flags["config-file"] != "" {
		return flags["config-file"]
	}
	return variable(environ, "config-file")
}

type security struct {
	CertFile       string `json:"cert-file"`
	KeyFile        string `json:"key-file"`
	ClientCertFile string `json:"client-cert-file"`
	ClientKeyFile  string `json:"client-key-file"`
	CertAuth       bool   `json:"client-cert-auth"`
	TrustedCAFile  string `json:"trusted-ca-file"`
	AutoTLS        bool   `json:"auto-tls"`
}

var lineNumber = regexp.MustCompile(`line \d+`)

// parseConfigFile reads etcd's configuration file. Its errors hold nothing of the file, in
// which passwords may be.
func parseConfigFile(data []byte) (told, error) {
	var c struct {
		Name                string   `json:"name"`
		DataDir             string   `json:"data-dir"`
		ListenClientURLs    string   `json:"listen-client-urls"`
		ListenHTTPURLs      string   `json:"listen-client-http-urls"`
		AdvertiseClientURLs string   `json:"advertise-client-urls"`
		Client              security `json:"client-transport-security"`
		Peer                security `json:"peer-transport-security"`
	}
	if err := yaml.Unmarshal(data, &c); err != nil {
		if line := lineNumber.FindString(err.Error()); line != "" {
			return nil, fmt.Errorf("is no YAML that etcd would read: %s", line)
		}
		return nil, errors.New("is no YAML that etcd would read")
	}
	values := map[string]string{
		"name": c.Name, "data-dir": c.DataDir,
		"listen-client-urls": c.ListenClientURLs, "listen-client-http-urls": c.ListenHTTPURLs,
		"advertise-client-urls": c.AdvertiseClientURLs,
		"cert-file":             c.Client.CertFile, "key-file": c.Client.KeyFile,
		"client-cert-file": c.Client.ClientCertFile, "client-key-file": c.Client.ClientKeyFile,
		"client-cert-auth": strconv.FormatBool(c.Client.CertAuth), "auto-tls": strconv.FormatBool(c.Client.AutoTLS),
		"trusted-ca-file": c.Client.TrustedCAFile,
		"peer-cert-file":  c.Peer.CertFile, "peer-key-file": c.Peer.KeyFile, "peer-trusted-ca-file": c.Peer.TrustedCAFile,
	}
	return func(flag string) (string, bool) { return values[flag], values[flag] != "" }, nil
}

// settingsOf takes what is needed. Relative names are relative to dir, the working directory;
// where that is not known they are an error.
func settingsOf(get told, dir string) (settings, error) {
	value := func(flag string) string { v, _ := get(flag); return v }
	pair := func(prefix string) names { return names{value(prefix + "cert-file"), value(prefix + "key-file")} }
	s := settings{
		name: value("name"), dataDir: value("data-dir"),
		server: pair(""), client: pair("client-"), peer: pair("peer-"), caFile: value("trusted-ca-file"), peerCAFile: value("peer-trusted-ca-file"),
		plain: clientURLs(value("listen-client-http-urls")),
	}
	s.asksClients = s.caFile != "" || isTrue(get, "client-cert-auth")
	if s.name == "" {
		s.name = "default"
	}
	if s.dataDir == "" {
		s.dataDir = s.name + ".etcd"
	}
	if s.server.cert == "" && isTrue(get, "auto-tls") {
		// etcd signs it itself, so that it is its own authority.
		s.server.cert, s.server.key = path.Join(s.dataDir, "fixtures/client/cert.pem"), path.Join(s.dataDir, "fixtures/client/key.pem")
		if s.caFile == "" {
			s.caFile = s.server.cert
		}
	}
	listen, given := get("listen-client-urls")
	if advertise, told := get("advertise-client-urls"); told {
		s.advertise = clientURLs(advertise)
	}
	if !given || listen == "" {
		listen = etcdURL
	}
	if s.listen = clientURLs(listen); len(s.listen)+len(s.advertise) == 0 {
		return settings{}, errors.New("no client URL in --listen-client-urls or --advertise-client-urls")
	}
	return s, s.resolve(dir)
}

// resolve makes all names absolute. A data directory may stay relative where dir is unknown: it
// is only told.
func (s *settings) resolve(dir string) error {
	if dir != "" && !path.IsAbs(s.dataDir) {
		s.dataDir = path.Join(dir, s.dataDir)
	}
	files := []*string{&s.caFile, &s.peerCAFile, &s.server.cert, &s.server.key, &s.client.cert, &s.client.key, &s.peer.cert, &s.peer.key}
	for _, name := range files {
		switch {
		case *name == "" || path.IsAbs(*name):
		case dir == "":
			return fmt.Errorf("certificate file %q is not an absolute path", *name)
		default:
			*name = path.Join(dir, *name)
		}
	}
	for _, u := range append(append([]*url.URL{}, s.listen...), s.advertise...) {
		if !isUnix(u) || path.IsAbs(u.Path) {
			continue
		}
		if dir == "" {
			return fmt.Errorf("socket %q is not an absolute path", u.Path)
		}
		u.Path = path.Join(dir, u.Path)
	}
	return nil
}

// isTrue reads a boolean flag, which is true where it stands alone.
func isTrue(get told, flag string) bool {
	value, given := get(flag)
	is, err := strconv.ParseBool(value)
	return given && (value == "" || err == nil && is)
}

// clientURLs reads a comma-separated list and drops what cannot be dialed. Of a URL only scheme,
// host and port are kept, of a socket's its path: etcd makes one of all that follows the scheme.
func clientURLs(list string) []*url.URL {
	var urls []*url.URL
	for s := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil {
			continue
		}
		if isUnix(u) {
			if file := u.Host + u.Path; file != "" {
				urls = append(urls, &url.URL{Scheme: u.Scheme, Path: file})
			}
			continue
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" {
			continue
		}
		urls = append(urls, &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), u.Port())})
	}
	return urls
}

func isUnix(u *url.URL) bool { return u.Scheme == "unix" || u.Scheme == "unixs" }

// isSecure says that TLS is spoken at an endpoint.
func isSecure(endpoint string) bool {
	return strings.HasPrefix(endpoint, "https:") || strings.HasPrefix(endpoint, "unixs:")
}
