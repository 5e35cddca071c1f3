package agent

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"
)

// CheckWebConfig says what is wrong with an exporter-toolkit file, the certificates that it names
// included. The error names the file, and quotes none of its values.
func CheckWebConfig(path string) error {
	if err := web.Validate(path); err != nil {
		return fmt.Errorf("%s: %s", path, withoutValues(err.Error()))
	}
	return nil
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
