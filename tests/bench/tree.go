package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// The source tree: as many files as a project of middling size, in its shape.
const (
	treeDirs  = 300
	treeFiles = 3000
	maxSource = 16 << 10 // bytes of a file; their mean is about a third
)

// writeSourceTree writes a part of the tree (1: all, 2: half of it …) as a tar
// file. It is the same each time.
func writeSourceTree(path string, part int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	return errors.Join(fillTree(w, treeDirs/part), w.Close(), f.Close())
}

func fillTree(w *tar.Writer, dirs int) error {
	when := time.Unix(1_700_000_000, 0)
	r := rand.New(rand.NewPCG(1, 2))
	text := bytes.Repeat([]byte("a line of a program, about as long as one is\n"), maxSource/40)
	for d := range dirs {
		// Two levels: s0, s0/d1 … s0/d9, s10, …
		dir := fmt.Sprintf("s%d", d/10*10)
		if d%10 > 0 {
			dir += fmt.Sprintf("/d%d", d)
		}
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: when})
		if err != nil {
			return err
		}
		for i := range treeFiles / treeDirs {
			// Most files are small.
			size := 1 + int(float64(maxSource)*r.Float64()*r.Float64()*r.Float64()*2)%maxSource
			name := fmt.Sprintf("%s/file%d.c", dir, i)
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(size), Mode: 0o644, ModTime: when}); err != nil {
				return err
			}
			if _, err := w.Write(text[:size]); err != nil {
				return err
			}
		}
	}
	return nil
}
