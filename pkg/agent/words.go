package agent

import (
	"fmt"
	"time"
)

// Span is a duration as people say it, in the units that matter: "42s", "12m", "5h 12m", "9 days", "9 years".
// What is negative is "0s".
func Span(d time.Duration) string {
	minutes := int(d.Minutes())
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm", minutes)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %dm", minutes/60, minutes%60)
	case d < 2*365*24*time.Hour:
		return fmt.Sprintf("%d days", minutes/60/24)
	}
	return fmt.Sprintf("%d years", minutes/60/24/365)
}

// Ago is how long before now t was, or "never" for the zero time.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return Span(now.Sub(t)) + " ago"
}

// In is how long after now t is: "now" when that has passed, "not planned" for the zero time.
func In(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "not planned"
	case !t.After(now):
		return "now"
	}
	return "in " + Span(t.Sub(now))
}

// Bytes is a size in binary units: "512 B", "27.4 KiB", "1.2 GiB".
func Bytes(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1<<10 && unit < len("MGT") {
		value /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit])
}
