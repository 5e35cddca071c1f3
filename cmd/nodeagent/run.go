package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/pkg/agent"
	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/host"
	"github.com/nodeagent/nodeagent/pkg/metrics"
	"github.com/nodeagent/nodeagent/pkg/systemd"
)

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: bootstrap this host once, then snapshots, certificates, drift, metrics",
		Long: `Run is what nodeagent.service starts. On a host where nothing of a cluster is, it
makes the host as its configuration says; on any host it then takes snapshots,
watches certificates, looks for drift and serves metrics. Without a configuration
it idles. SIGHUP (systemctl reload nodeagent) reads the configuration again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			notify, err := systemd.NewNotifier()
			if err != nil {
				return err
			}
			b := thisBuild()
			d := &daemon{app: a, host: a.host(), notify: notify, metrics: metrics.New(b.Version, b.Revision)}
			return d.run(cmd.Context())
		},
	}
}

// daemon is the agent between two reloads and across them.
type daemon struct {
	app     *app
	host    *host.Host
	notify  *systemd.Notifier
	metrics *metrics.Metrics
	log     *slog.Logger
	level   slog.LevelVar
	// flapping outlives a reload: what keeps coming back does not stop for one.
	flapping agent.Flapping
	textfile string // that the session before this one wrote
}

// run loads the configuration and runs with it, until ctx is done; each SIGHUP loads it anew,
// and one that is wrong leaves the agent running with the one it has.
func (d *daemon) run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	cfg, err := d.load()
	if err != nil {
		return err
	}
	if err := d.openLog(cfg); err != nil {
		return err
	}
	d.log.Info("starting", "version", thisBuild().Version, "configured", cfg != nil)
	for {
		s, err := d.newSession(ctx, cfg)
		if err != nil {
			return err
		}
		next, err := d.serve(ctx, s, hup)
		if err != nil || ctx.Err() != nil {
			d.tell(d.notify.Stopping())
			d.log.Info("stopped")
			return err
		}
		cfg = next
	}
}

// serve runs a session until ctx is done or a reload brings another configuration.
func (d *daemon) serve(ctx context.Context, s *session, hup <-chan os.Signal) (next *config.Config, err error) {
	sessionCtx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	wg.Go(func() {
		if err := s.run(sessionCtx); err != nil {
			failed <- err
		}
	})
	d.tell(d.notify.Ready())
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			return nil, nil
		case err := <-failed:
			stop()
			wg.Wait()
			return nil, err
		case <-hup:
			d.tell(d.notify.Reloading())
			next, err := d.load()
			if err != nil {
				d.log.Error("configuration not reloaded; going on with the one before", "err", err)
				d.tell(d.notify.Ready())
				continue
			}
			d.log.Info("configuration reloaded", "configured", next != nil)
			stop()
			wg.Wait()
			return next, d.openLog(next)
		}
	}
}

// load reads the configuration; nil is a host without one.
func (d *daemon) load() (*config.Config, error) {
	cfg, err := d.app.loadConfig(d.host)
	if err == nil {
		cfg.Metrics.WebConfigFile, err = webConfigFile(d.host, cfg)
	}
	idle := errors.Is(err, errNoConfig)
	d.metrics.ConfigLoaded(err == nil || idle, idle, time.Now())
	if idle {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &cfg, nil
}

func (d *daemon) openLog(cfg *config.Config) error {
	settings := config.Default().Log
	if cfg != nil {
		settings = cfg.Log
	}
	if err := d.level.UnmarshalText([]byte(settings.Level)); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	handler, err := systemd.LogHandler(d.app.stderr, settings.Format, &d.level)
	if err != nil {
		return err
	}
	d.log = slog.New(handler)
	return nil
}

// tell logs that systemd could not be told something. The agent's work does not depend on it.
func (d *daemon) tell(err error) {
	if err != nil {
		d.log.Warn("systemd not notified", "err", err)
	}
}
