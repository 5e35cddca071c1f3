package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// Space is what a file system has: where it is (the device's number, by which two directories
// on one of them are told), and bytes.
type Space struct{ Device, Free, Size uint64 }

// room is what will lie below a directory. Least is that without which the node does not come
// up; enough is that with which it lives: etcd at its default quota, a few more images.
type room struct {
	dir, what     string
	least, enough uint64
	// evicts is the share in percent below which kubelet evicts pods or removes images, by
	// its own defaults (evictionHard nodefs.available 10 %, imagefs.available 15 %).
	evicts uint64
}

const mib, gib = 1 << 20, 1 << 30

// rooms are a role's. The images of a control plane are 0.3 GiB packed and three times that
// unpacked; etcd's quota is 2 GiB, beside which it keeps its log; a backup is never larger.
func rooms(role Role) []room {
	images := room{"/var/lib/containerd", "images", gib, 2 * gib, 15}
	kubelet := room{"/var/lib/kubelet", "pods", 256 * mib, gib, 10}
	etcd := room{etcdDataDir, "etcd", 512 * mib, 5 * gib / 2, 0}
	backups := room{"/var/lib/nodeagent", "backups", 128 * mib, 2 * gib, 0}
	switch role {
	case Etcd:
		return []room{etcd, backups}
	case Worker:
		images.least /= 2
		return []room{images, kubelet}
	}
	return []room{images, kubelet, etcd, backups}
}

// packageRooms are for the packages, while there are any to install: 0.5 GiB unpacked.
func (p preflight) packageRooms() ([]room, error) {
	_, err := Program(p.host, "kubeadm")
	switch {
	case !p.installs() || err == nil:
		return nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return []room{
		{"/usr", "packages", 600 * mib, 800 * mib, 0},
		{"/var/cache/apt/archives", "packages as fetched", 200 * mib, 300 * mib, 0},
	}, nil
}

// evictMargin stands in percent above kubelet's thresholds for what is yet to come.
const evictMargin = 3

// disk looks at the file systems that fill up, each once, with all that will lie on it. What
// would have kubelet evict pods as soon as the images are there stops; what is only tight is a
// finding. On a member the data are there already, and only kubelet's thresholds count.
func (p preflight) disk(context.Context) ([]step.Change, error) {
	member, err := p.host.Exists(KubeletConf)
	if err != nil {
		return nil, err
	}
	var order []uint64
	spaces, on := map[uint64]Space{}, map[uint64][]room{}
	packages, err := p.packageRooms()
	if err != nil {
		return nil, err
	}
	for _, r := range append(rooms(p.role), packages...) {
		existing, err := p.existing(r.dir)
		if err != nil {
			return nil, err
		}
		space, err := p.Space(existing)
		if err != nil {
			return nil, fmt.Errorf("read free space of %s: %w", r.dir, err)
		}
		if space.Size == 0 {
			continue
		}
		if member {
			r.least, r.enough = 0, 0
		}
		if !slices.Contains(order, space.Device) {
			order = append(order, space.Device)
		}
		spaces[space.Device], on[space.Device] = space, append(on[space.Device], r)
	}
	var changes []step.Change
	for _, device := range order {
		changes = append(changes, diskChanges(spaces[device], on[device])...)
	}
	return changes, nil
}

// diskChanges judges one file system by all that will lie on it.
func diskChanges(s Space, on []room) []step.Change {
	var least, enough, evicts uint64
	var dirs, needs []string
	for _, r := range on {
		least, enough, evicts = least+r.least, enough+r.enough, max(evicts, r.evicts)
		dirs = append(dirs, r.dir)
		if r.enough > 0 {
			needs = append(needs, fmt.Sprintf("%s %.1f GiB", r.what, float64(r.enough)/gib))
		}
	}
	kept := ""
	if evicts > 0 {
		kept = fmt.Sprintf("%d %% of the file system, below which kubelet evicts pods", evicts)
		least += s.Size / 100 * evicts
		enough += s.Size / 100 * (evicts + evictMargin)
		needs = append(needs, kept)
	}
	have := fmt.Sprintf("%s: %d MiB of %d MiB free", strings.Join(dirs, ", "), s.Free/mib, s.Size/mib)
	const remedy = ": clean up, grow the disk, or mount another one there"
	switch {
	case s.Free < least:
		return []step.Change{stop("DiskSpace", have, strings.Join(nonEmpty(fmt.Sprintf("at least %d MiB free", least/mib), kept), ", with ")+remedy)}
	case s.Free < enough:
		return []step.Change{finding("DiskSpace", have, fmt.Sprintf("%d MiB free (%s)", enough/mib, strings.Join(needs, ", "))+remedy)}
	}
	return nil
}

func nonEmpty(words ...string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// existing is the real path of dir, or of the nearest directory above it that is there.
func (p preflight) existing(dir string) (string, error) {
	for {
		there, err := p.host.Exists(dir)
		if err != nil {
			return "", err
		}
		if there || dir == "/" {
			return p.host.Path(dir)
		}
		dir = filepath.Dir(dir)
	}
}

// spaceOf is what the file system of a real path has for programs that are not root's: etcd
// and kubelet count by that too.
func spaceOf(path string) (Space, error) {
	var statfs unix.Statfs_t
	var stat unix.Stat_t
	if err := errors.Join(unix.Statfs(path, &statfs), unix.Stat(path, &stat)); err != nil {
		return Space{}, err
	}
	block := uint64(statfs.Bsize)
	return Space{Device: stat.Dev, Free: statfs.Bavail * block, Size: statfs.Blocks * block}, nil
}
