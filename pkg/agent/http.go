package agent

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

//go:embed page.html
var pageFile embed.FS

// Server is what the agent serves: /metrics, /healthz, /readyz and a page about the node.
type Server struct {
	Registry *prometheus.Registry
	Status   func(context.Context) Status // for the page
	Healthy  func() error                 // nil while no job is past its deadline
	Ready    func() error                 // nil once the bootstrap is complete
	Log      *slog.Logger
}

// shutdownTimeout is how long requests in progress may go on when the agent ends.
const shutdownTimeout = 5 * time.Second

// Handler is the pages.
func (s Server) Handler() (http.Handler, error) {
	page, err := template.New("page.html").Funcs(template.FuncMap{"time": clock, "left": left}).ParseFS(pageFile, "page.html")
	if err != nil {
		return nil, fmt.Errorf("parse page: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{Registry: s.Registry}))
	mux.HandleFunc("GET /healthz", answer(s.Healthy))
	mux.HandleFunc("GET /readyz", answer(s.Ready))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var out bytes.Buffer
		if err := page.Execute(&out, s.Status(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(out.Bytes()) // the reader has gone: nobody is left to tell
	})
	return mux, nil
}

func answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	}
}

// Listen binds the address, so that one that is taken is known before anything else begins.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on metrics.listen: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx is done. webConfigFile, when given, is an exporter-toolkit
// file (TLS, client certificates, basic auth); it is read anew at each request.
func (s Server) Serve(ctx context.Context, l net.Listener, webConfigFile string) error {
	// The server closes l itself, unless it never began: closing twice is no harm.
	defer func() { _ = l.Close() }()
	handler, err := s.Handler()
	if err != nil {
		return err
	}
	if err := CheckWebConfig(webConfigFile); err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	log := discreet{s.Log.Handler()}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log, slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		stopped <- server.Shutdown(limit)
	})
	defer stop()
	err = web.Serve(l, server, &web.FlagConfig{WebConfigFile: &webConfigFile}, slog.New(log))
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return <-stopped
	}
	return fmt.Errorf("serve metrics: %w", err)
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// left is how long it is from now to t, in the largest unit that says enough.
func left(t, now time.Time) string {
	d := t.Sub(now)
	if d <= 0 {
		return "expired"
	}
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
