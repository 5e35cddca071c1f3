package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nodeagent/nodeagent/pkg/host"
)

// maxSize is more than any file of certificates has; what is larger is something else.
const maxSize = 1 << 20

// scan is an inventory in the making.
type scan struct {
	host     *host.Host
	list     []Certificate
	problems []Problem
	seen     map[string]bool // files read, by path
}

func (s *scan) problem(path string, err error) {
	s.problems = append(s.problems, Problem{Path: path, Err: withoutPath(err)})
}

func (s *scan) add(path, user string, kind Kind, certificates []Certificate) {
	for _, c := range certificates {
		c.Path, c.User, c.Kind = path, user, kind
		s.list = append(s.list, c)
	}
}

// tree reads the certificate files below a directory. Real directories come before linked
// ones, and each is read once: links may form a circle, and a file is best named by the path
// that is no link's.
func (s *scan) tree(root string) {
	var read []fs.FileInfo
	dirs, linked := []string{root}, []string(nil)
	for len(dirs)+len(linked) > 0 {
		if len(dirs) == 0 {
			dirs, linked = linked[:1:1], linked[1:]
		}
		dir := dirs[0]
		dirs = dirs[1:]
		info, entries, err := s.readDir(dir)
		if errors.Is(err, fs.ErrNotExist) && dir == root {
			return
		}
		if err != nil {
			s.problem(dir, err)
			continue
		}
		if among(read, info) {
			continue
		}
		read = append(read, info)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch {
			case isCertificateName(path):
				s.pkiFile(path)
			case e.IsDir():
				dirs = append(dirs, path)
			case e.Type()&fs.ModeSymlink != 0 && s.isDir(path):
				linked = append(linked, path)
			}
		}
	}
}

func (s *scan) readDir(dir string) (fs.FileInfo, []fs.DirEntry, error) {
	info, err := s.host.Stat(dir)
	if err != nil {
		return nil, nil, err
	}
	entries, err := s.host.ReadDir(dir)
	return info, entries, err
}

func (s *scan) isDir(path string) bool {
	info, err := s.host.Stat(path)
	return err == nil && info.IsDir()
}

func among(infos []fs.FileInfo, info fs.FileInfo) bool {
	for _, i := range infos {
		if os.SameFile(i, info) {
			return true
		}
	}
	return false
}

func isCertificateName(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".crt" || ext == ".pem"
}

// pkiFile reads one file of the PKI.
func (s *scan) pkiFile(path string) {
	data, err := s.read(path)
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		s.problem(path, err)
		return
	}
	got, err := readPEM(data)
	if errors.Is(err, errNoCertificate) && got.others > 0 && filepath.Ext(path) == ".pem" {
		return // cfssl and others name their key files so
	}
	if err != nil {
		s.problem(path, err)
	}
	s.add(path, "", kindOf(got, PKI), got.certificates)
}

// kindOf is CA for a file that begins with a CA's certificate, else kind.
func kindOf(got found, kind Kind) Kind {
	if len(got.certificates) > 0 && got.certificates[0].IsCA {
		return CA
	}
	return kind
}

// file reads a file at a known place, which need not exist.
func (s *scan) file(path string, kind Kind) {
	data, err := s.read(path)
	if errors.Is(err, errGone) {
		return
	}
	s.contents(path, "", kind, data, err)
}

// contents lists what was read of a file that is to hold certificates.
func (s *scan) contents(path, user string, kind Kind, data []byte, err error) {
	if err == nil {
		var got found
		got, err = readPEM(data)
		s.add(path, user, kind, got.certificates)
	}
	if err != nil {
		s.problem(path, err)
	}
}

// errGone is nothing at all at a path. A link that points at nothing is another error.
var errGone = errors.New("is not there")

// read reads a regular file, links followed. Anything else by that name is an error before it
// is opened: a named pipe would never end.
func (s *scan) read(path string) ([]byte, error) {
	s.seen[path] = true
	info, err := s.host.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		there, err := s.host.Exists(path)
		if err == nil && there {
			err = errors.New("is a link that points at nothing")
		} else if err == nil {
			err = errGone
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := s.host.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("is larger than %d bytes", maxSize)
	}
	return data, err
}
