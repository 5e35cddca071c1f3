package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// LogHandler is the slog handler for a format: "text" or "json" on w, "journal" for journald's
// own protocol with a field for each attribute, and "auto": the journal when standard error
// leads there, text otherwise. Where journald cannot be reached or refuses an entry, the entry
// goes to w as text behind its priority, "<4>…", which journald understands on a service's
// standard error.
func LogHandler(w io.Writer, format string, level slog.Leveler) (slog.Handler, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.NewTextHandler(w, options), nil
	case "json":
		return slog.NewJSONHandler(w, options), nil
	case "journal":
		return newJournalHandler(w, level, journal.Send), nil
	case "", "auto":
		if is, err := journal.StderrIsJournalStream(); err == nil && is {
			return newJournalHandler(w, level, journal.Send), nil
		}
		return slog.NewTextHandler(w, options), nil
	}
	return nil, fmt.Errorf("choose log format: %q is none of auto, text, json, journal", format)
}

type sendFunc func(message string, priority journal.Priority, fields map[string]string) error

// journalHandler sends records to journald. Its text twin carries the same attributes and
// groups, for entries that cannot be sent.
type journalHandler struct {
	level  slog.Leveler
	send   sendFunc
	prefix string            // of the groups that are open: "ETCD_"
	fields map[string]string // of WithAttrs; never modified once it is shared
	shared *textOut
	text   slog.Handler
}

// textOut lets one entry at a time be made in buf and written to w behind its priority.
type textOut struct {
	mu  sync.Mutex
	w   io.Writer
	buf bytes.Buffer
}

func newJournalHandler(w io.Writer, level slog.Leveler, send sendFunc) *journalHandler {
	out := &textOut{w: w}
	dropTime := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{} // journald adds the one, the priority says the other
		}
		return a
	}
	text := slog.NewTextHandler(&out.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: dropTime})
	return &journalHandler{level: level, send: send, shared: out, text: text}
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := make(map[string]string, len(h.fields)+r.NumAttrs())
	for k, v := range h.fields {
		fields[k] = v
	}
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.prefix, a)
		return true
	})
	priority := priorityOf(r.Level)
	if h.send(r.Message, priority, fields) == nil {
		return nil
	}
	h.shared.mu.Lock()
	defer h.shared.mu.Unlock()
	h.shared.buf.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	_, err := fmt.Fprintf(h.shared.w, "<%d>%s", priority, h.shared.buf.Bytes())
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = make(map[string]string, len(h.fields)+len(attrs))
	for k, v := range h.fields {
		next.fields[k] = v
	}
	for _, a := range attrs {
		addField(next.fields, h.prefix, a)
	}
	next.text = h.text.WithAttrs(attrs)
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix = h.prefix + name + "_"
	next.text = h.text.WithGroup(name)
	return &next
}

func addField(fields map[string]string, prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() != slog.KindGroup {
		if key := fieldName(prefix + a.Key); key != "" {
			fields[key] = value.String()
		}
		return
	}
	if a.Key != "" {
		prefix += a.Key + "_"
	}
	for _, member := range value.Group() {
		addField(fields, prefix, member)
	}
}

// fieldName makes a journal field of an attribute's key: capitals, digits and underscores,
// beginning with a letter, at most 64 characters. Names that mean something to journald are
// the agent's in front: a field PRIORITY of ours would contradict the entry's own.
func fieldName(key string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
			return c
		}
		return '_'
	}, key)
	name = strings.TrimLeft(name, "_")
	if name == "" {
		return ""
	}
	switch name {
	case "MESSAGE", "MESSAGE_ID", "PRIORITY", "ERRNO", "UNIT", "USER_UNIT":
		name = "NODEAGENT_" + name
	}
	if name[0] <= '9' {
		name = "F_" + name
	}
	return name[:min(len(name), 64)]
}

func priorityOf(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
