package agent

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59900 * time.Millisecond: "59s", time.Minute: "1m", 61 * time.Minute: "1h 1m",
		48*time.Hour - time.Second: "47h 59m", 48 * time.Hour: "2 days", 9*24*time.Hour + 23*time.Hour: "9 days", 729 * 24 * time.Hour: "729 days", 3449 * 24 * time.Hour: "9 years",
	} {
		if got := Span(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	for got, want := range map[string]string{
		Ago(time.Time{}, now): "never", Ago(now.Add(-time.Minute), now): "1m ago",
		In(time.Time{}, now): "not planned", In(now, now): "now", In(now.Add(time.Hour), now): "in 1h 0m",
		Bytes(0): "0 B", Bytes(1023): "1023 B", Bytes(28704): "28.0 KiB", Bytes(1 << 20): "1.0 MiB", Bytes(3 << 40): "3.0 TiB", Bytes(5 << 50): "5120.0 TiB",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
