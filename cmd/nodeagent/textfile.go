package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// textfileInterval is how often the textfile is looked after: about as often as a scrape is.
const textfileInterval = 15 * time.Second

// keepTextfile writes metrics.textfile until ctx is done. What goes wrong is told when it is
// something else than before; that nothing is written any more is what the file's age tells.
func (s *session) keepTextfile(ctx context.Context) {
	tick := time.NewTicker(textfileInterval)
	defer tick.Stop()
	for told := ""; ; {
		switch now := errorText(s.writeTextfile()); {
		case now != told && now != "":
			s.log.Error("textfile not written", "err", now)
			told = now
		case now != told:
			s.log.Info("textfile is written again", "path", s.metrics.Textfile)
			told = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// writeTextfile writes the metrics as they are, whole or not at all. A file that is already so
// keeps its time. Its directory is node_exporter's, and is not made.
func (s *session) writeTextfile() error {
	path := s.metrics.Textfile
	_, err := s.host.Stat(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("metrics.textfile: %w; make it, or name node_exporter's --collector.textfile.directory", err)
	}
	if err != nil {
		return fmt.Errorf("metrics.textfile: %w", err)
	}
	text, err := s.daemon.metrics.Text()
	if err != nil {
		return err
	}
	return s.host.WriteFile(path, text, 0o644) // node_exporter is not root
}

// leaveTextfile removes the file of the session before, when this one writes another or none: what
// it says would stand there for ever, beside the new one.
func (d *daemon) leaveTextfile(next string) {
	last := d.textfile
	d.textfile = next
	if last == "" || last == next {
		return
	}
	if err := d.host.Remove(last); err != nil {
		d.log.Warn("old textfile not removed", "err", err)
	}
}
