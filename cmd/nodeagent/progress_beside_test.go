package main

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// What goes on beside a step is said of it, on the terminal and to systemd.
func TestProgressBeside(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out)
	p.observe(step.Event{Step: "packages", Index: 1, Total: 2, Stage: step.Applying, Beside: []string{"images/begin"}})
	p.observe(step.Event{Step: "images", Index: 2, Total: 2, Stage: step.Applying})
	p.end()
	if got, want := out.String(), "[1/2] packages: applying; beside it: images/begin\n[2/2] images: applying\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
