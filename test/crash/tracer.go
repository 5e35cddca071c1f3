package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracer follows one program. All its methods run on the thread that started the program.
type tracer struct {
	main    int
	killAt  int
	threads map[int]*thread // of the program and its children, by id

	calls  int
	log    []Call
	killed bool // its last call has come up
	ending bool // whatever shows up is killed
	code   int
}

// thread is one thread that is followed.
type thread struct {
	begun bool // a call that counts, which has not ended
	held  bool // stopped for good
	call  int  // 1 and the place in the log of the call that it is in, if it is logged
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACECLONE |
	unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_EXITKILL

const syscallStop = unix.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD

// trace follows the program from its first stop until nothing of it is left.
func (t *tracer) trace() error {
	_, status, err := wait(t.main)
	if err != nil {
		return err
	}
	if !status.Stopped() {
		return errors.New("the program ended before it began")
	}
	t.threads[t.main] = &thread{}
	failed := unix.PtraceSetOptions(t.main, options)
	if failed == nil {
		failed = t.resume(t.main, 0)
	}
	if failed != nil {
		failed = fmt.Errorf("follow the program: %w", failed)
		t.end()
	}
	for {
		tid, status, err := wait(-1)
		if errors.Is(err, unix.ECHILD) {
			return failed // all gone
		}
		if err != nil {
			return errors.Join(failed, err)
		}
		if err := t.handle(tid, status); err != nil {
			failed = errors.Join(failed, err)
			t.end() // and go on until all are gone
		}
	}
}

// wait waits for a thread, or for any when tid is -1. The children of this process's other
// threads, which are none of ours, are left to whom they belong.
func wait(tid int) (int, unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(tid, &status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, status, err
		}
	}
}

func (t *tracer) handle(tid int, status unix.WaitStatus) error {
	if status.Exited() || status.Signaled() {
		delete(t.threads, tid)
		if tid == t.main {
			t.code = status.ExitStatus()
			if status.Signaled() {
				t.code = 128 + int(status.Signal())
			}
			t.end() // what it leaves behind
		}
		return t.killIfDue()
	}
	known := t.threads[tid] != nil
	if !known {
		t.threads[tid] = &thread{}
	}
	switch signal := status.StopSignal(); {
	case t.ending:
		t.end()
		return nil
	case signal == syscallStop:
		return t.syscall(tid)
	case signal == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_EXEC:
		return errors.Join(t.forgetCaller(tid), t.resume(tid, 0))
	case signal == unix.SIGTRAP && status.TrapCause() > 0: // a clone, a fork
		return t.resume(tid, 0)
	case signal == unix.SIGSTOP && !known: // how a new thread begins
		return t.resume(tid, 0)
	default:
		return t.resume(tid, int(signal))
	}
}

// forgetCaller forgets the thread that called exec: it goes on under its process's id.
func (t *tracer) forgetCaller(tid int) error {
	caller, err := unix.PtraceGetEventMsg(tid)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask who called exec: %w", err)
	}
	if int(caller) != tid {
		delete(t.threads, int(caller))
	}
	return nil
}

// syscall handles the begin and the end of a call.
func (t *tracer) syscall(tid int) error {
	info, err := callInfo(tid)
	if errors.Is(err, unix.ESRCH) {
		return nil // killed meanwhile
	}
	if err != nil {
		return err
	}
	thread := t.threads[tid]
	if info.Op == unix.PTRACE_SYSCALL_INFO_EXIT {
		thread.begun = false
		if thread.call > 0 && info.failed() {
			t.log[thread.call-1].Failed = true
		}
		thread.call = 0
	}
	if info.Op == unix.PTRACE_SYSCALL_INFO_ENTRY {
		c, counts := describe(tid, info)
		thread.held = counts && t.killed
		if c.Name != "" && !t.killed {
			t.log = append(t.log, c)
			thread.call = len(t.log)
		}
		if counts && !t.killed {
			t.calls++
			t.killed = t.calls == t.killAt
			thread.held, thread.begun = t.killed, !t.killed
		}
	}
	if err := t.killIfDue(); err != nil || thread.held {
		return err
	}
	return t.resume(tid, 0)
}

// killIfDue ends the program once its last call has come up and those that other threads had
// begun before it have ended: so exactly the calls before the last have been carried out.
func (t *tracer) killIfDue() error {
	if !t.killed {
		return nil
	}
	for _, thread := range t.threads {
		if thread.begun {
			return nil
		}
	}
	t.end()
	return nil
}

// end kills everything. A thread that is gone already is not waited for yet, so that its id is
// nobody else's.
func (t *tracer) end() {
	t.ending = true
	for tid := range t.threads {
		_ = unix.Kill(tid, unix.SIGKILL)
	}
}

// resume lets a thread go on until its next call, and gives it a signal that was for it.
func (t *tracer) resume(tid, signal int) error {
	if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("let the program go on: %w", err)
	}
	return nil
}

// call is struct ptrace_syscall_info of ptrace(2), as it is at the begin of a call. At its end
// there is the result in place of the number, and after it a byte that says if it is an error.
type call struct {
	Op                 uint8
	_                  [3]uint8
	Arch               uint32
	InstructionPointer uint64
	StackPointer       uint64
	Number             uint64
	Args               [6]uint64
	_                  [8]uint8
}

func (c call) failed() bool { return binary.NativeEndian.AppendUint64(nil, c.Args[0])[0] != 0 }

func callInfo(tid int) (call, error) {
	var info call
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return call{}, fmt.Errorf("ask for the call: %w", errno)
	}
	return info, nil
}
