package lab

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const release = "bookworm"

// image holds what is put over Debian's own files, and the script that puts it there.
//
//go:embed image
var imageFiles embed.FS

// proxyBase is the root file system under kube-proxy, which calls iptables or nft.
func proxyBase() artefact {
	args := []string{
		"--variant=extract", "--include=iptables,nftables,conntrack,kmod,ipset,busybox",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		// The packages' scripts, which do not run here, make these links.
		// Customize hooks do not run in this variant either.
		`--extract-hook=for t in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
			ln -sf "$(echo $t | sed s/tables/tables-nft/)" "$1/usr/sbin/$t"; done; ln -sf busybox "$1/bin/sh"`,
	}
	return artefact{
		name:   "proxybase",
		inputs: func(_ *lab, w io.Writer) error { _, err := fmt.Fprintln(w, release, args); return err },
		make: func(ctx context.Context, l *lab, dir string, _ map[string]string) error {
			return l.debian(ctx, filepath.Join(dir, "rootfs.tar"), args)
		},
	}
}

// rootfs is a Debian system as a cloud's image has it: what the community's packages depend on
// is there, and they themselves are not, nor is a container runtime (Repository has them). With
// cloud-init, which stays off unless it is given data, and with the tools that the tests look
// at the result with.
func rootfs() artefact {
	packages := strings.Join([]string{
		"systemd,systemd-sysv,systemd-resolved,systemd-timesyncd,dbus,udev,kmod,procps,iproute2,iputils-ping,ca-certificates",
		"util-linux,mount,fdisk,e2fsprogs,less,apparmor,zstd,xz-utils",
		"linux-image-cloud-amd64,initramfs-tools",
		"iptables,nftables,conntrack,ethtool,socat,cloud-init,cloud-guest-utils",
		"openssl,jq,curl,qemu-guest-agent",
	}, ",")
	args := []string{
		"--mode=root", "--variant=minbase", "--skip=check/empty", "--include=" + packages,
		"--aptopt=APT::Install-Recommends false", "--aptopt=Acquire::Languages none",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
	}
	return artefact{
		name:  "rootfs",
		needs: []string{"etcd"},
		inputs: func(_ *lab, w io.Writer) error {
			fmt.Fprintln(w, release, args)
			return hashFS(w, imageFiles)
		},
		make: func(ctx context.Context, l *lab, dir string, needs map[string]string) error {
			files := filepath.Join(dir, "files")
			if err := os.CopyFS(files, imageFiles); err != nil {
				return err
			}
			script := filepath.Join(files, "image", "customise.sh")
			hooks := []string{
				fmt.Sprintf("--extract-hook=sh '%s' extract \"$1\"", script),
				fmt.Sprintf("--customize-hook=sh '%s' customise \"$1\" '%s'", script, needs["etcd"]),
			}
			if err := l.debian(ctx, filepath.Join(dir, "rootfs"), append(hooks, args...)); err != nil {
				return err
			}
			return os.RemoveAll(files)
		},
	}
}

// debian runs mmdebstrap with the machine's own package sources, if it has such for the
// release: they may be a mirror, and the only one it can reach.
func (l *lab) debian(ctx context.Context, target string, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("make a Debian system: only root can")
	}
	args = append([]string{"--quiet"}, append(args, release, target)...)
	sources, err := aptSources()
	if err != nil {
		return err
	}
	if sources != "" {
		args = append(args, sources)
	}
	return l.run(ctx, "", nil, nil, "mmdebstrap", args...)
}

// aptSources is the file in which this machine names a mirror of the release, or "".
func aptSources() (string, error) {
	for _, file := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		found, lines := false, bufio.NewScanner(f)
		for lines.Scan() {
			line := strings.TrimSpace(lines.Text())
			found = found || !strings.HasPrefix(line, "#") && strings.Contains(line, release)
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return "", err
		}
		if found {
			return file, nil
		}
	}
	return "", nil
}
