package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// LogHandler is the slog handler for a format: "text" or "json" on w, "journal" for journald's
// own protocol, and "auto": the journal when standard error leads there, text otherwise. A
// journal entry has each attribute twice: in its message, since that is all that journalctl
// shows, and as a field, to select by. An entry that journald does not take goes to w behind
// its priority, "<4>…", which journald understands on a service's standard error.
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
// groups and renders them for the message.
type journalHandler struct {
	level  slog.Leveler
	send   sendFunc
	prefix string            // of the groups that are open: "ETCD_"
	fields map[string]string // of WithAttrs; never modified once it is shared
	out    *textOut
	text   slog.Handler // writes to out.buf
}

// textOut is shared by all handlers made from one: one entry at a time is rendered in buf.
type textOut struct {
	mu  sync.Mutex
	w   io.Writer
	buf bytes.Buffer
}

func newJournalHandler(w io.Writer, level slog.Leveler, send sendFunc) *journalHandler {
	out := &textOut{w: w}
	onlyAttrs := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{} // the entry itself says these
		}
		return a
	}
	text := slog.NewTextHandler(&out.buf, &slog.HandlerOptions{Level: level, ReplaceAttr: onlyAttrs})
	return &journalHandler{level: level, send: send, out: out, text: text}
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	fields := make(map[string]string, len(h.fields)+r.NumAttrs())
	maps.Copy(fields, h.fields)
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.prefix, a)
		return true
	})
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.buf.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	message := strings.TrimSpace(r.Message + " " + h.out.buf.String())
	priority := priorityOf(r.Level)
	if h.send(message, priority, fields) == nil {
		return nil
	}
	_, err := fmt.Fprintf(h.out.w, "<%d>%s\n", priority, message)
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = make(map[string]string, len(h.fields)+len(attrs))
	maps.Copy(next.fields, h.fields)
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
