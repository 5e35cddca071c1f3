#!/bin/sh
# Hooks of mmdebstrap: `extract ROOT` before the packages are set up, `customise ROOT ETCD`
# after it.
set -eu
here=$(dirname "$0")
hook=$1 root=$2

if [ "$hook" = extract ]; then
	# A small initrd: the VM's devices are known.
	mkdir -p "$root/etc/initramfs-tools/conf.d"
	printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\nRESUME=none\n' >"$root/etc/initramfs-tools/conf.d/lab"
	printf 'virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n' >"$root/etc/initramfs-tools/modules"
	# No service starts while the image is made.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	exit 0
fi

etcd=$3
cp -R "$here/files/." "$root/"

# Where nobody looks but the tests: a fresh machine has no such programs.
mkdir -p "$root/usr/lib/nodeagent-test"
install -m 755 "$etcd/etcd" "$etcd/etcdctl" "$etcd/etcdutl" "$root/usr/lib/nodeagent-test/"

# Of Prometheus only promtool. The machine's own apt fetches it: the new system has no
# resolver yet.
(
	cd "$root/tmp"
	APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q -o APT::Sandbox::User=root download prometheus
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -C "$root/usr/lib/nodeagent-test" --strip-components=3 ./usr/bin/promtool
	rm prometheus_*.deb
)

echo node1 >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\tnode1\n\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
: >"$root/etc/machine-id" # every VM makes its own
ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chroot "$root" passwd -q -d root
chroot "$root" systemctl -q enable systemd-networkd systemd-resolved qemu-guest-agent

# From here on the system is a user's: services start when they are installed, and packages
# unpack their documentation.
rm "$root/usr/sbin/policy-rc.d"
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap"
