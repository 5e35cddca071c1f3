#!/bin/sh
# What a careful shell script looks at on the image in test/crash/testdata/own-files.txtar: the
# same files for the same things as the agent's steps, in the usual way. It changes nothing, and
# exits 1 where something is to be done.
root=$1
todo=0
want() { todo=1; echo "$*"; }

awk '$1 !~ /^#/ && $3 == "swap" { found = 1; print "fstab: " $0 } END { exit found }' "$root/etc/fstab" || todo=1
for unit in swap.target zramswap.service; do
  [ "$(readlink "$root/etc/systemd/system/$unit")" = /dev/null ] || want "$unit is not masked"
done
for area in 6f7a-8b9c old-swap vdb1 vg-swap; do
  found=$(find "$root/etc/systemd/system" -maxdepth 1 -name "*$(echo "$area" | sed 's/-/?x2d/g')*.swap" -type l)
  [ -n "$found" ] || want "no mask for $area"
done
for unit in $(find "$root/etc/systemd/system" "$root/usr/lib/systemd/system" -name '*.swap' -type f); do
  [ -d "$root/etc/systemd/system/$(basename "$unit").d" ] || want "$unit may start"
done
for link in $(find "$root/etc/systemd/system" -path '*.wants/*' -type l -name '*swap*'); do
  want "$link starts swap"
done
for module in overlay br_netfilter nf_conntrack; do
  grep -qrsx "$module" "$root/etc/modules-load.d" || want "module $module is not loaded at boot"
done
for setting in net.bridge.bridge-nf-call-iptables=1 net.ipv4.ip_forward=1 vm.overcommit_memory=1 \
  kernel.panic=10 fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=524288; do
  sed 's/[ -]*\(.*[^ ]\) *= */\1=/' "$root"/etc/sysctl.d/*.conf 2>/dev/null | grep -qx -- "$setting" || want "$setting is not set at boot"
done
for plugin in bridge host-local loopback portmap; do
  [ -x "$root/opt/cni/bin/$plugin" ] || want "no plugin $plugin"
done
grep -q 'SystemdCgroup *= *true' "$root/etc/containerd/config.toml" || want "containerd: SystemdCgroup"
grep -q 'sandbox_image *= *"registry.k8s.io/pause:' "$root/etc/containerd/config.toml" || want "containerd: sandbox image"
grep -q '"subnet": *"10.244.0.0/16"' "$root"/etc/cni/net.d/*nodeagent* 2>/dev/null || want "no bridge"
exit $todo
