package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
)

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
	page, err := newPage()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{Registry: s.Registry}))
	mux.HandleFunc("GET /healthz", answer(s.Healthy))
	mux.HandleFunc("GET /readyz", answer(s.Ready))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		page.write(w, s.Status(r.Context()))
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
