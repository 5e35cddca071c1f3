package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// CheckWebConfig says what is wrong with an exporter-toolkit file, a real path: with what is in it,
// and with the files that it names. The key has to be one that a secret may lie in, and the
// certificates none that somebody else has put there. The error names the file, and quotes none of
// its values but for those paths.
func CheckWebConfig(path string) error {
	if err := web.Validate(path); err != nil {
		return fmt.Errorf("%s: %s", path, withoutValues(err.Error()))
	}
	if path == "" {
		return nil
	}
	if err := checkNamed(path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkNamed looks at the files that an exporter-toolkit file names; a relative name is of its
// directory.
func checkNamed(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var named struct {
		TLS struct {
			Key         string `yaml:"key_file"`
			Certificate string `yaml:"cert_file"`
			Clients     string `yaml:"client_ca_file"`
		} `yaml:"tls_server_config"`
	}
	if err := yaml.Unmarshal(text, &named); err != nil {
		return errors.New(withoutValues(err.Error()))
	}
	machine := host.New("/") // these paths are real ones, as the server reads them
	var errs []error
	for _, file := range []struct {
		key, name string
		check     func(string) error
	}{
		{"key_file", named.TLS.Key, machine.CheckSecret},
		{"cert_file", named.TLS.Certificate, machine.CheckTrusted},
		{"client_ca_file", named.TLS.Clients, machine.CheckTrusted},
	} {
		if file.name == "" {
			continue
		}
		if !filepath.IsAbs(file.name) {
			file.name = filepath.Join(filepath.Dir(path), file.name)
		}
		if err := file.check(file.name); err != nil {
			errs = append(errs, fmt.Errorf("tls_server_config.%s: %w", file.key, err))
		}
	}
	return errors.Join(errs...)
}

// quoted is what YAML's complaints quote of a file, from the first quotation mark to the last:
// the value may have some in it.
var quoted = regexp.MustCompile("(?s)`.*`|'.*'")

// withoutValues is a complaint about an exporter-toolkit file without what it quotes of it, which
// may be a password, its hash or a private key.
func withoutValues(text string) string {
	if strings.HasPrefix(text, "crypto/bcrypt: ") {
		return "basic_auth_users: a password is not given as its bcrypt hash"
	}
	return quoted.ReplaceAllString(text, "`...`")
}

// discreet is a log in which no value of the exporter-toolkit's file is quoted: it reads the file
// anew at each request, and logs what is wrong with it then.
type discreet struct{ slog.Handler }

func (d discreet) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, withoutValues(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindString {
			a.Value = slog.StringValue(withoutValues(a.Value.String()))
		}
		clean.AddAttrs(a)
		return true
	})
	return d.Handler.Handle(ctx, clean)
}

func (d discreet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return discreet{d.Handler.WithAttrs(attrs)}
}
func (d discreet) WithGroup(name string) slog.Handler { return discreet{d.Handler.WithGroup(name)} }
