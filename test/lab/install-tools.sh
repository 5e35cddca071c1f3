#!/bin/sh
# Installs what the lab needs on a Debian or Ubuntu machine, Go aside. Quick when all is there.
set -eu
packages="
	mmdebstrap debian-archive-keyring apt dpkg gnupg
	qemu-system-x86 qemu-user qemu-utils genisoimage e2fsprogs fdisk util-linux
	systemd-container dbus
	zstd age
	iproute2 iptables nftables socat procps openssl
	ca-certificates git make strace lintian ansible-core
"
# The landing page is looked at in a browser. Ubuntu has Chromium as a snap, which apt cannot bring.
# shellcheck source=/dev/null
[ "$(. /etc/os-release && echo "$ID")" != debian ] || packages="$packages chromium chromium-driver"
missing=""
for package in $packages; do
	case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
	*"ok installed") ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get -q update
# shellcheck disable=SC2086 # one word a package
$sudo apt-get -q install -y --no-install-recommends $missing
