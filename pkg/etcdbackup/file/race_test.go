package file_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/etcdbackup/file"
	"github.com/nodeagent/nodeagent/pkg/host"
)

// Hosts that share a directory may publish the same name at the same moment: one of them does, and the
// other is told, by whatever way the filesystem knows.
func TestTwoProcessesCommitOneName(t *testing.T) {
	if root := os.Getenv("RACE_ROOT"); root != "" {
		racer(t, root)
		return
	}
	for name, refused := range map[string]string{
		"rename": "", "link, as on NFS": strconv.Itoa(unix.SYS_RENAMEAT2),
	} {
		t.Run(name, func(t *testing.T) { race(t, refused) })
	}
}

// Where there is neither, what is there stays.
func TestCommitWithoutLinks(t *testing.T) {
	if os.Getenv("NO_LINKS") == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		out, err := host.Exec(t.Context(), host.Command{Path: self, Args: []string{"-test.run=^TestCommitWithoutLinks$"}, Env: []string{"NO_LINKS=1"}})
		if err != nil || !strings.Contains(string(out), "neither") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, call := range []uint32{unix.SYS_RENAMEAT2, unix.SYS_LINKAT} {
		refuse(t, call)
	}
	_, s := newStore(t, "cp1")
	put(t, s, "a")
	d, err := s.Create(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	fmt.Println("neither")
}

const rounds = 50

func race(t *testing.T, refused string) {
	h := host.New(t.TempDir())
	racers := []*child{start(t, h.Root, "one", refused), start(t, h.Root, "two", refused)}
	for round := range rounds {
		for _, c := range racers {
			c.hears(t, "ready")
		}
		for _, c := range racers {
			if _, err := io.WriteString(c.in, "go\n"); err != nil {
				t.Fatal(err)
			}
		}
		var winner string
		for _, c := range racers {
			switch said := c.says(t); said {
			case "won":
				winner += c.id
			case "lost":
			default:
				t.Fatalf("%s: %s", c.id, said)
			}
		}
		data, err := h.ReadFile(fmt.Sprintf("%s/name-%d", dir, round))
		if err != nil || string(data) != winner {
			t.Fatalf("round %d was won by %q, and there lies %q, %v", round, winner, data, err)
		}
	}
	if got := names(t, h); len(got) != rounds {
		t.Errorf("left %q", got)
	}
}

// child is a process that saves to a store.
type child struct {
	id  string
	in  io.Writer
	out *bufio.Scanner
}

func start(t *testing.T, root, id, refused string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestTwoProcessesCommitOneName$")
	cmd.Env = []string{"RACE_ROOT=" + root, "RACE_ID=" + id, "RACE_REFUSED=" + refused}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // what it had to say it has said
	})
	return &child{id, in, bufio.NewScanner(out)}
}

func (c *child) says(t *testing.T) string {
	t.Helper()
	if !c.out.Scan() {
		t.Fatalf("%s ended: %v", c.id, c.out.Err())
	}
	return c.out.Text()
}

func (c *child) hears(t *testing.T, want string) {
	t.Helper()
	if got := c.says(t); got != want {
		t.Fatalf("%s says %q, want %q", c.id, got, want)
	}
}

// racer is the child.
func racer(t *testing.T, root string) {
	if call, err := strconv.ParseUint(os.Getenv("RACE_REFUSED"), 10, 32); err == nil {
		refuse(t, uint32(call))
	}
	id := os.Getenv("RACE_ID")
	s := file.New(host.New(root), dir, id)
	in := bufio.NewScanner(os.Stdin)
	for round := range rounds {
		d, err := s.Create(t.Context(), 1)
		if err == nil {
			_, err = io.WriteString(d, id)
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("ready")
		if !in.Scan() {
			t.Fatal("the parent is gone")
		}
		switch err := d.Commit(t.Context(), fmt.Sprint("name-", round)); {
		case err == nil:
			fmt.Println("won")
		case errors.Is(err, fs.ErrExist):
			fmt.Println("lost")
		default:
			fmt.Println(err)
		}
	}
}

// refuse has the kernel answer a system call of this process with EINVAL from now on, as a filesystem does
// that does not know it.
func refuse(t *testing.T, call uint32) {
	t.Helper()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		t.Fatal(errno)
	}
}
