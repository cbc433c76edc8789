// mmap writes a file through a shared mapping, and exits without another word.
package main

import (
	"log"
	"os"
	"syscall"
)

func main() {
	f, err := os.OpenFile(os.Args[1], os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	text := []byte("by mmap\n")
	if err := f.Truncate(int64(len(text))); err != nil {
		log.Fatal(err)
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, len(text), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		log.Fatal(err)
	}
	copy(m, text)
}
