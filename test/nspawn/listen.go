package nspawn

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Listen listens in the container's network, as in "127.0.0.1:8443", for a server that runs in
// this process: the test can look at what is asked for, and answer as it likes. The listener is
// closed with the test.
func (m *Machine) Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	listener, err := m.listen(address)
	if err != nil {
		t.Fatalf("listen at %s in %s: %v", address, m.name, err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // a server may have closed it before
	return listener
}

func (m *Machine) listen(address string) (net.Listener, error) {
	// The thread comes back: ended, it would take with it the machines that were started
	// from it, by their Pdeathsig. The socket stays where it was made.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, err
	}
	defer home.Close()
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.leader))
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("this thread cannot leave the network of %s: %v", m.name, back))
	}
	return listener, err
}
