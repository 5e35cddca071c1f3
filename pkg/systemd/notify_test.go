package systemd

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))

	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if _, there := os.LookupEnv(name); there {
			t.Errorf("%s is left for children", name)
		}
	}
	if got := n.WatchdogInterval(); got != 30*time.Second {
		t.Errorf("watchdog every %v", got)
	}
	for _, tt := range []struct {
		tell func() error
		want string
	}{
		{n.Ready, `^READY=1$`},
		{n.Reloading, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+$`},
		{n.Stopping, `^STOPPING=1$`},
		{n.Watchdog, `^WATCHDOG=1$`},
		{func() error { return n.Status("two\nlines\nREADY=1") }, `^STATUS=two lines READY=1$`},
		{func() error { return n.ExtendStart(time.Minute) }, `^EXTEND_TIMEOUT_USEC=60000000$`},
	} {
		if err := tt.tell(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		size, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(tt.want).Match(buf[:size]) {
			t.Errorf("sent %q, want %s", buf[:size], tt.want)
		}
	}
}

func TestNotifierOutsideSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); err != nil || n.WatchdogInterval() != 0 {
		t.Errorf("%v, every %v", err, n.WatchdogInterval())
	}
}

func TestNotifierBadWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := NewNotifier(); err == nil {
		t.Error("accepted")
	}
}
