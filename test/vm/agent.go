package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// callDeadline is for one answer of the guest agent. It answers at once unless the guest is
// short of CPU, which under emulation it may be for seconds.
const callDeadline = 30 * time.Second

// agent speaks to the guest agent through QEMU's socket. A connection on which anything went
// wrong is dropped, and the next call begins with a new one and a handshake, because answers
// carry no mark of what they answer.
type agent struct {
	socket string
	gone   <-chan struct{} // closed when QEMU has ended
	conn   net.Conn
	reader *bufio.Reader
	syncs  int64
}

var errGone = errors.New("qemu has ended")

// guestError is an answer that refuses the command: the connection is fine.
type guestError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *guestError) Error() string { return e.Desc }

// ready waits until the agent answers.
func (a *agent) ready(ctx context.Context) error {
	for {
		err := a.connect(ctx, 2*time.Second)
		if err == nil {
			return nil
		}
		select {
		case <-a.gone:
			return errors.Join(errGone, err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// connect dials and agrees with the agent on where in the stream they are: a byte that is
// no JSON makes it drop half a command, and a number is sent back.
func (a *agent) connect(ctx context.Context, limit time.Duration) (err error) {
	a.close()
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
	if err != nil {
		return err
	}
	a.conn, a.reader = conn, bufio.NewReader(conn)
	a.syncs++
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if err := a.send("guest-sync-delimited", map[string]any{"id": a.syncs}, "\xff"); err != nil {
		return err
	}
	for {
		line, err := a.reader.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("wait for guest-sync: %w", err)
		}
		var answer struct {
			Return int64 `json:"return"`
		}
		// What is left of earlier answers is skipped: not JSON, or another number.
		if json.Unmarshal(bytes.TrimLeft(line, "\xff"), &answer) == nil && answer.Return == a.syncs {
			return nil
		}
	}
}

func (a *agent) close() {
	if a.conn != nil {
		_ = a.conn.Close()
	}
	a.conn = nil
}

func (a *agent) send(command string, arguments any, prefix string) error {
	content, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return err
	}
	_, err = a.conn.Write(append([]byte(prefix), append(content, '\n')...))
	return err
}

// call sends one command and decodes its answer into result, if that is not nil.
func (a *agent) call(ctx context.Context, command string, arguments, result any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := a.try(ctx, command, arguments, result)
	var refused *guestError
	if err == nil || errors.As(err, &refused) {
		return err
	}
	a.close()
	select {
	case <-a.gone:
		return errors.Join(errGone, err)
	default:
		return fmt.Errorf("call %s: %w", command, err)
	}
}

func (a *agent) try(ctx context.Context, command string, arguments, result any) error {
	if a.conn == nil {
		if err := a.connect(ctx, callDeadline); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(callDeadline)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := a.conn.SetDeadline(deadline); err != nil {
		return err
	}
	if err := a.send(command, arguments, ""); err != nil {
		return err
	}
	line, err := a.reader.ReadBytes('\n')
	if err != nil {
		return err
	}
	var answer struct {
		Return json.RawMessage `json:"return"`
		Error  *guestError     `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("decode answer %q: %w", line, err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Return, result)
}

// shutdown asks the guest to reboot, which ends QEMU. There is no answer to wait for.
func (a *agent) shutdown(ctx context.Context) error {
	if a.conn == nil {
		if err := a.connect(ctx, callDeadline); err != nil {
			return err
		}
	}
	if err := a.conn.SetDeadline(time.Now().Add(callDeadline)); err != nil {
		return err
	}
	return a.send("guest-shutdown", map[string]any{"mode": "reboot"}, "")
}
