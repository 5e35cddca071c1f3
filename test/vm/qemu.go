package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// args is QEMU's command line.
//
// Emulation also where /dev/kvm exists: nested virtualization that starts and then never runs
// the guest is common, and two kinds of machine would be two kinds of failure. Without AVX the
// guest's programs take the SSE paths of their cryptography, several times faster under
// emulation. cache=unsafe: nobody needs these disks after a crash of the host.
func (v *VM) args() []string {
	args := []string{
		"-name", filepath.Base(v.dir), "-M", "q35",
		"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off,avx=off,avx2=off",
		"-smp", "2", "-m", v.memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(v.image, "vmlinuz"), "-initrd", filepath.Join(v.image, "initrd.img"),
		"-append", "root=" + v.root + " rw console=ttyS0 mitigations=off systemd.show_status=0 loglevel=4",
		"-chardev", "file,id=console,path=" + v.path("console.log") + ",append=on", "-serial", "chardev:console",
		"-netdev", "user,id=lan,restrict=on,ipv6=off", "-device", "virtio-net-pci,netdev=lan,romfile=,mac=52:54:00:12:34:56",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path=" + v.path("qga.sock") + ",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
		"-chardev", "socket,id=monitor,path=" + v.path("qmp.sock") + ",server=on,wait=off", "-mon", "chardev=monitor,mode=control",
	}
	for i, name := range []string{"root.qcow2", "swap.qcow2"} {
		id := "disk" + strconv.Itoa(i)
		args = append(args, "-drive", "file="+v.path(name)+",if=none,format=qcow2,cache=unsafe,discard=unmap,id="+id, "-device", "virtio-blk-pci,drive="+id)
	}
	for i, file := range v.disks {
		id := "files" + strconv.Itoa(i)
		args = append(args, "-drive", "file="+file+",if=none,format=raw,readonly=on,id="+id, "-device", "virtio-blk-pci,drive="+id)
	}
	return args
}

// process is a child that this test waits for.
type process struct {
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{} // closed when the child is gone; log is safe to read then
}

// startProcess starts a child that the kernel kills when the test's process ends, also when
// go test kills that for its timeout. The parent, to the kernel, is a thread: so one thread
// starts the child and stays until it is gone.
func startProcess(name string, args []string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the exit code of a killed QEMU says nothing
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait waits until the child has ended by itself.
func (p *process) wait(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("still running: %w", ctx.Err())
	}
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill qemu: %w", err)
	}
	return p.wait(context.Background(), 30*time.Second)
}

// output is what a child that has ended said, as an error, or nil.
func (p *process) output() error {
	if p.running() {
		return nil
	}
	return fmt.Errorf("qemu ended: %s", strings.TrimSpace(p.log.String()))
}

// overlay makes a disk that reads from base and keeps its own writes.
func overlay(ctx context.Context, base, file string) error {
	return command(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, file)
}

// makeDisk makes an ext4 image of the disk's files.
func makeDisk(ctx context.Context, dir string, disk Disk) (string, error) {
	tree := filepath.Join(dir, disk.Label)
	for name, source := range disk.Files {
		if err := copyIn(source, filepath.Join(tree, name)); err != nil {
			return "", fmt.Errorf("make disk %s: %w", disk.Label, err)
		}
	}
	file := tree + ".ext4"
	if err := MakeExt4(ctx, file, disk.Label, tree, 0); err != nil {
		return "", fmt.Errorf("make disk %s: %w", disk.Label, err)
	}
	return file, os.RemoveAll(tree)
}

// MakeExt4 makes a disk image with one file system and no partitions, of the tree with its
// owners and modes, and as large as the tree needs and so many free bytes more.
func MakeExt4(ctx context.Context, file, label, tree string, free int64) error {
	size := 16<<20 + free
	err := filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size += info.Size() + info.Size()/16 + 8<<10 // its last block, its inode, its name
		return nil
	})
	if err != nil {
		return fmt.Errorf("make file system %s: %w", label, err)
	}
	// An inode for each 8 KiB: a tree of small files has one for each of them.
	return command(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-m", "0", "-i", "8192",
		"-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", tree, file, strconv.FormatInt(size>>10, 10)+"k")
}

// makeSeed makes the disk that cloud-init knows for its data by the label.
func makeSeed(ctx context.Context, dir string, userData []byte) (string, error) {
	tree := filepath.Join(dir, "cidata")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", fmt.Errorf("make seed: %w", err)
	}
	// The host's name is left to the image.
	files := map[string][]byte{"user-data": userData, "meta-data": []byte("instance-id: " + filepath.Base(dir) + "\n")}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(tree, name), content, 0o600); err != nil {
			return "", fmt.Errorf("make seed: %w", err)
		}
	}
	file := tree + ".iso"
	if err := command(ctx, "genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", file, tree); err != nil {
		return "", fmt.Errorf("make seed: %w", err)
	}
	return file, os.RemoveAll(tree)
}

// copyIn copies a file, or what is in a directory, to target.
func copyIn(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return copyFile(source, target, info.Mode().Perm())
	}
	return os.CopyFS(target, os.DirFS(source))
}

func copyFile(source, target string, mode fs.FileMode) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
