package bootstrap

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of an archive that is read: far above any real one's.
const (
	maxArchiveMembers = 100_000
	maxArchiveIndex   = 4 << 20 // bytes of manifest.json or index.json
	// tarBlock is what a tar file is made of; one of zeros, at least, is behind the last member.
	tarBlock = 512
)

// archiveImages are the names that containerd gives the images of an archive when it imports
// it. The reader is sought over the layers, if it can be.
func archiveImages(r io.ReadSeeker) ([]string, error) {
	magic := make([]byte, 4)
	if _, err := io.ReadFull(r, magic); err == nil &&
		(bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) || bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd})) {
		return nil, errors.New("is compressed: unpack it to a plain tar file")
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	index, manifest, err := archiveIndexes(r)
	if err != nil {
		return nil, err
	}
	var names []string
	switch {
	case index != nil: // with an OCI index, containerd does not look at manifest.json
		names, err = ociNames(index)
	case manifest != nil:
		names, err = dockerNames(manifest)
	default:
		err = errors.New("has neither index.json nor manifest.json: not an archive of images")
	}
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("names no image: save it by name and tag, as in docker save NAME:TAG")
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func archiveIndexes(r io.ReadSeeker) (index, manifest []byte, err error) {
	members := tar.NewReader(r)
	end := int64(0) // of the last member
	for n := 0; ; n++ {
		header, err := members.Next()
		at, seekErr := r.Seek(0, io.SeekCurrent)
		if seekErr != nil {
			return nil, nil, seekErr
		}
		if errors.Is(err, io.EOF) && n > 0 && at < end+tarBlock {
			return nil, nil, errors.New("is cut off: it ends between two members; copy it again")
		}
		if errors.Is(err, io.EOF) && n > 0 {
			return index, manifest, nil
		}
		if errors.Is(err, io.EOF) {
			return nil, nil, errors.New("is empty")
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, nil, fmt.Errorf("read tar: is cut off: %w; copy it again", err)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read tar: %w", err)
		}
		end = at + (header.Size+tarBlock-1)/tarBlock*tarBlock
		if n == maxArchiveMembers {
			return nil, nil, fmt.Errorf("has more than %d members", maxArchiveMembers)
		}
		into := &index
		switch strings.TrimPrefix(header.Name, "./") {
		case "index.json":
		case "manifest.json":
			into = &manifest
		default:
			continue
		}
		if *into, err = io.ReadAll(io.LimitReader(members, maxArchiveIndex+1)); err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", header.Name, err)
		}
		if len(*into) > maxArchiveIndex {
			return nil, nil, fmt.Errorf("read %s: larger than %d bytes", header.Name, maxArchiveIndex)
		}
	}
}

func dockerNames(manifest []byte) ([]string, error) {
	var list []struct{ RepoTags []string }
	if err := json.Unmarshal(manifest, &list); err != nil {
		return nil, fmt.Errorf("read manifest.json: %w", err)
	}
	var names []string
	for _, image := range list {
		for _, tag := range image.RepoTags {
			names = append(names, fullName(tag))
		}
	}
	return names, nil
}

// ociNames are those in containerd's annotation. The standard one is often a bare tag, which
// containerd imports under a name with the date in it: such an archive is refused.
func ociNames(index []byte) ([]string, error) {
	var list struct {
		Manifests []struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(index, &list); err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	var names []string
	for _, m := range list.Manifests {
		if name := m.Annotations["io.containerd.image.name"]; name != "" {
			names = append(names, fullName(name))
		}
	}
	return names, nil
}

// fullName is the name that a short one stands for: busybox is docker.io/library/busybox:latest.
func fullName(name string) string {
	first, rest, slash := strings.Cut(name, "/")
	switch {
	case !slash:
		name = "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		name = "docker.io/" + name
	case first == "docker.io" && !strings.Contains(rest, "/"):
		name = "docker.io/library/" + rest
	}
	if last := name[strings.LastIndexByte(name, '/')+1:]; !strings.ContainsAny(last, ":@") {
		name += ":latest"
	}
	return name
}
