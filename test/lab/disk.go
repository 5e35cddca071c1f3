package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The layout of the VM's two disks. The identifiers are those of image/files/etc/fstab.
const (
	rootUUID = "6e6f6465-6167-656e-7400-726f6f740001"
	swapUUID = "6e6f6465-6167-656e-7400-737761700002"
	rootSize = "12G"
	swapMiB  = 1024
)

// vmImage is the root file system as a disk, a second disk with a swap partition that fstab
// names, and the kernel and initrd to boot it with.
func vmImage() artefact {
	return artefact{
		name:  "vm",
		needs: []string{"rootfs"},
		inputs: func(_ *lab, w io.Writer) error {
			_, err := fmt.Fprintln(w, "vm 1", rootUUID, swapUUID, rootSize, swapMiB)
			return err
		},
		make: func(ctx context.Context, l *lab, dir string, needs map[string]string) error {
			root := filepath.Join(needs["rootfs"], "rootfs")
			for name, pattern := range map[string]string{"vmlinuz": "boot/vmlinuz-*", "initrd.img": "boot/initrd.img-*"} {
				found, err := filepath.Glob(filepath.Join(root, pattern))
				if err != nil || len(found) != 1 {
					return fmt.Errorf("find the kernel: %d files match %s: %w", len(found), pattern, err)
				}
				if err := l.run(ctx, "", nil, nil, "cp", found[0], filepath.Join(dir, name)); err != nil {
					return err
				}
			}
			err := l.run(ctx, "", nil, nil, "mke2fs", "-q", "-t", "ext4", "-L", "root", "-U", rootUUID,
				"-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", root, filepath.Join(dir, "root.ext4"), rootSize)
			if err != nil {
				return err
			}
			return l.swapDisk(ctx, filepath.Join(dir, "swap.img"))
		},
	}
}

// swapDisk makes a disk with one partition, of type swap. The partition is formatted as a
// file of its own and its header copied in: that needs no loop device.
func (l *lab) swapDisk(ctx context.Context, disk string) error {
	if err := truncate(disk, swapMiB+2); err != nil {
		return err
	}
	part := disk + ".part"
	if err := truncate(part, swapMiB); err != nil {
		return err
	}
	for _, script := range []string{
		fmt.Sprintf("printf 'label: gpt\\nstart=1MiB, size=%dMiB, type=swap\\n' | sfdisk -q '%s'", swapMiB, disk),
		fmt.Sprintf("mkswap -U %s '%s'", swapUUID, part),
		fmt.Sprintf("dd if='%s' of='%s' bs=4096 count=1 seek=256 conv=notrunc", part, disk),
	} {
		if err := l.run(ctx, "", nil, nil, "sh", "-c", script); err != nil {
			return err
		}
	}
	return os.Remove(part)
}

func truncate(file string, mib int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(mib << 20); err != nil {
		return err
	}
	return f.Close()
}
