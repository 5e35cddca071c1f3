package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// monitorDeadline is for saving a state of a few gigabytes.
const monitorDeadline = 2 * time.Minute

// Save keeps the machine's whole state, memory included, under the name. It goes on running.
func (v *VM) Save(ctx context.Context, name string) error {
	if err := v.monitor(ctx, "savevm "+name); err != nil {
		return fmt.Errorf("save vm: %w", err)
	}
	return nil
}

// Load puts the machine back to what it was when Save was called, and its clock to now.
func (v *VM) Load(ctx context.Context, name string) error {
	if err := v.stop(); err != nil {
		return fmt.Errorf("load vm: %w", err)
	}
	if err := v.start(ctx, "-loadvm", name); err != nil {
		return fmt.Errorf("load vm: %w", err)
	}
	r, err := v.Run(ctx, fmt.Sprintf("date -s @%d", time.Now().Unix()))
	if err != nil || r.Code != 0 {
		return errors.Join(fmt.Errorf("load vm: set clock: %v", r), err)
	}
	return nil
}

// Clone starts another machine from a state of this one, which goes on unharmed. The clone
// ends with t. Its disks are those of this machine, which must not end before it.
func (v *VM) Clone(ctx context.Context, t testing.TB, name string) *VM {
	t.Helper()
	clone := newVM(t, v.image, Options{Memory: v.memory, RootDevice: v.root})
	clone.disks = v.disks
	// A stopped machine has written back what QEMU held of its disks.
	if err := v.monitor(ctx, "stop"); err != nil {
		t.Fatalf("clone vm: %v", err)
	}
	var copyErr error
	for _, disk := range []string{"root.qcow2", "swap.qcow2"} {
		copyErr = errors.Join(copyErr, command(ctx, "cp", "--sparse=always", "--reflink=auto", v.path(disk), clone.path(disk)))
	}
	if err := errors.Join(copyErr, v.monitor(ctx, "cont")); err != nil {
		t.Fatalf("clone vm: %v", err)
	}
	if err := clone.Load(ctx, name); err != nil {
		t.Fatalf("clone vm: %v", err)
	}
	return clone
}

// monitor runs one of the commands of QEMU's monitor. Those that save and load answer with
// nothing, or with what went wrong.
func (v *VM) monitor(ctx context.Context, line string) error {
	ctx, cancel := context.WithTimeout(ctx, monitorDeadline)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", v.path("qmp.sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	encoder, answers := json.NewEncoder(conn), bufio.NewReader(conn)
	if _, err := answers.ReadBytes('\n'); err != nil { // the greeting
		return err
	}
	var said string
	for _, command := range []map[string]any{
		{"execute": "qmp_capabilities"},
		{"execute": "human-monitor-command", "arguments": map[string]string{"command-line": line}},
	} {
		if err := encoder.Encode(command); err != nil {
			return err
		}
		if said, err = monitorAnswer(answers); err != nil {
			return fmt.Errorf("monitor command %q: %w", line, err)
		}
	}
	if said != "" {
		return fmt.Errorf("monitor command %q: %s", line, said)
	}
	return nil
}

// monitorAnswer reads up to the answer, past events.
func monitorAnswer(r *bufio.Reader) (string, error) {
	for {
		content, err := r.ReadBytes('\n')
		if err != nil {
			return "", err
		}
		var message struct {
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *guestError     `json:"error"`
		}
		if err := json.Unmarshal(content, &message); err != nil {
			return "", err
		}
		switch {
		case message.Event != "":
		case message.Error != nil:
			return "", message.Error
		default:
			var said string
			// qmp_capabilities answers with an object: nothing said.
			if json.Unmarshal(message.Return, &said) != nil {
				return "", nil
			}
			return strings.TrimSpace(said), nil
		}
	}
}
