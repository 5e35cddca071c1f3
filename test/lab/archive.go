package lab

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"
)

// entry is one file of a layer: the content of the file source, or a link to target.
type entry struct{ path, source, target string }

// layer is a layer's tar on disk.
type layer struct{ file, digest string }

// image is what goes into a docker archive under one reference.
type image struct {
	ref        string
	entrypoint []string
	user       string
	labels     map[string]string // what tells images of equal content apart
	layers     []layer
}

// writeLayer writes a layer with the entries, all owned by root and dated to the epoch, so
// that equal contents make equal digests.
func writeLayer(file string, entries []entry) (layer, error) {
	return newLayer(file, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		made := map[string]bool{".": true}
		for _, e := range entries {
			if err := addDirs(tw, path.Dir(e.path), made); err != nil {
				return err
			}
			if err := addEntry(tw, e); err != nil {
				return err
			}
		}
		return tw.Close()
	})
}

// newLayer writes the file and takes its digest on the way.
func newLayer(file string, write func(io.Writer) error) (layer, error) {
	f, err := os.Create(file)
	if err != nil {
		return layer{}, err
	}
	hash := sha256.New()
	if err := errors.Join(write(io.MultiWriter(f, hash)), f.Close()); err != nil {
		return layer{}, fmt.Errorf("write layer %s: %w", filepath.Base(file), err)
	}
	return layer{file, hex.EncodeToString(hash.Sum(nil))}, nil
}

func addDirs(tw *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := addDirs(tw, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
}

func addEntry(tw *tar.Writer, e entry) error {
	if e.target != "" {
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: e.path, Linkname: e.target, Mode: 0o777, ModTime: time.Unix(0, 0)})
	}
	return addFile(tw, e.path, e.source, 0o755)
}

func addFile(tw *tar.Writer, name, source string, mode int64) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: info.Size(), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// imageConfig is the part of an image's configuration that a runtime reads.
type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		Entrypoint []string `json:",omitempty"`
		User       string   `json:",omitempty"`
		Env        []string
		Labels     map[string]string `json:",omitempty"`
	} `json:"config"`
	Rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []struct{} `json:"history"`
}

type manifestEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// writeArchive writes one docker archive of all the images. A layer that several of them have
// is in it once.
func writeArchive(file string, images []image) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = writeImages(tar.NewWriter(f), images)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write archive %s: %w", filepath.Base(file), err)
	}
	return nil
}

func writeImages(tw *tar.Writer, images []image) error {
	var manifest []manifestEntry
	written := map[string]bool{}
	for _, im := range images {
		var config imageConfig
		config.Architecture, config.OS = "amd64", "linux"
		config.Config.Entrypoint, config.Config.User = im.entrypoint, im.user
		config.Config.Labels = im.labels
		config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		config.Rootfs.Type = "layers"
		config.History = make([]struct{}, len(im.layers))
		var layers []string
		for _, l := range im.layers {
			config.Rootfs.DiffIDs = append(config.Rootfs.DiffIDs, "sha256:"+l.digest)
			layers = append(layers, l.digest+".tar")
			if written[l.digest] {
				continue
			}
			written[l.digest] = true
			if err := addFile(tw, l.digest+".tar", l.file, 0o644); err != nil {
				return err
			}
		}
		content, err := json.Marshal(config)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(content)
		name := hex.EncodeToString(digest[:]) + ".json"
		if err := addBytes(tw, name, content); err != nil {
			return err
		}
		manifest = append(manifest, manifestEntry{name, []string{im.ref}, layers})
	}
	content, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := addBytes(tw, "manifest.json", content); err != nil {
		return err
	}
	return tw.Close()
}

func addBytes(tw *tar.Writer, name string, content []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := tw.Write(content)
	return err
}
