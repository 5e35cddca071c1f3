package agent

import (
	"slices"
	"strconv"
	"time"
)

// Timeline is the certificates as bars on an axis that runs from a year before now to a year
// after, the first to end first: kubeadm's own last a year, and those of authorities run out of
// the picture.
type Timeline struct {
	Ticks []Tick
	Bars  []Bar
}

// Tick is a mark of the axis: the first day of a quarter.
type Tick struct {
	At    string // in percent of the axis
	Label string // of every other one, where there is room
}

// Bar is a certificate. X and Width are in percent of the axis.
type Bar struct {
	CertificateStatus
	X, Width string
	State    string // as of CertificateStatus.State
	From, To string // dates
	Left     string // how long it is valid yet
}

// leastBar is the width of a bar that is just to be seen, in percent.
const leastBar = 0.6

// Timeline draws the certificates; nil when there are none.
func (v pageView) Timeline() *Timeline {
	if len(v.Certificates) == 0 {
		return nil
	}
	begin, end := v.Now.AddDate(-1, 0, 0), v.Now.AddDate(1, 0, 0)
	// Half of the axis lies on either side of now, whatever leap years do.
	at := func(t time.Time) float64 {
		side := end.Sub(v.Now)
		if t.Before(v.Now) {
			side = v.Now.Sub(begin)
		}
		return min(max(50+50*t.Sub(v.Now).Hours()/side.Hours(), 0), 100)
	}
	var out Timeline
	for t := firstOfQuarter(begin); t.Before(end); t = t.AddDate(0, 3, 0) {
		x, label := at(t), ""
		if month := t.Month(); (month == time.January || month == time.July) && x > 5 && x < 95 { // it has to fit
			label = t.Format("Jan 2006")
		}
		out.Ticks = append(out.Ticks, Tick{percent(x), label})
	}
	byEnd := slices.SortedStableFunc(slices.Values(v.Certificates), func(a, b CertificateStatus) int { return a.NotAfter.Compare(b.NotAfter) })
	for _, c := range byEnd {
		x := at(c.NotBefore)
		left := "expired " + Ago(c.NotAfter, v.Now)
		if c.NotAfter.After(v.Now) {
			left = In(c.NotAfter, v.Now)
		}
		out.Bars = append(out.Bars, Bar{
			CertificateStatus: c, X: percent(min(x, 100-leastBar)), Width: percent(max(at(c.NotAfter)-x, leastBar)), State: c.State(v.Now),
			From: c.NotBefore.UTC().Format(time.DateOnly), To: c.NotAfter.UTC().Format(time.DateOnly), Left: left,
		})
	}
	return &out
}

// firstOfQuarter is the first quarter that begins at t or after it.
func firstOfQuarter(t time.Time) time.Time {
	q := time.Date(t.Year(), (t.Month()-1)/3*3+1, 1, 0, 0, 0, 0, time.UTC)
	if q.Before(t) {
		q = q.AddDate(0, 3, 0)
	}
	return q
}

func percent(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) }
