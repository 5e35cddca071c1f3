package main

import (
	"bytes"
	"testing"
	"time"
)

func TestTransferLine(t *testing.T) {
	for _, tt := range []struct {
		done, total int64
		took        time.Duration
		want        string
	}{
		{1 << 29, 3 << 29, 2 * time.Second, "x: 33 % of 1.5 GiB, 256 MiB/s, 4s left"},
		{1 << 20, 600 << 20, 100 * time.Second, "x: 0 % of 600 MiB, 11 KiB/s, 16h38m20s left"},
		{5 << 20, 5 << 20, time.Second, "x: 5 MiB read, looking through it"},
		{0, 0, 0, "x: 0 KiB read, looking through it"},
	} {
		if got := transferLine("x", tt.done, tt.total, tt.took); got != tt.want {
			t.Errorf("%d of %d: %q, want %q", tt.done, tt.total, got, tt.want)
		}
	}
	var w bytes.Buffer
	p := newTransfer(&w, "x") // no terminal
	p.observe(1, 2)
	p.end()
	if w.Len() != 0 {
		t.Errorf("a file gets %q", w.String())
	}
}
