package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runv/libvm/vhostuser"
	"runv/libvm/virtio/fs"
	"runv/libvm/virtio/fs/passthrough"
)

// virtiofsd is where Debian's qemu-system-common has it.
const virtiofsd = "/usr/lib/qemu/virtiofsd"

// workOver boots the machine with the program that works as its init, over the
// file server that listens on socket.
func workOver(ctx context.Context, m machine, initrd, socket string) ([]reading, error) {
	device := regexp.MustCompile(`chardev=[^,]*`).ReplaceAllString(m.fs, "chardev=fs")
	device = regexp.MustCompile(`tag=[^,]*`).ReplaceAllString(device, "tag=bench")
	out, err := m.boot(ctx, initrd, "-chardev", "socket,id=fs,path="+socket, "-device", device)
	if err != nil {
		return nil, err
	}
	return steps(strings.ReplaceAll(out, "\r", ""))
}

// overVirtiofsd has the share served by virtiofsd, which ends with the machine.
// Attributes are valid as long as runv says.
func (b *bench) overVirtiofsd(ctx context.Context, m machine, initrd, share string) (_ []reading, err error) {
	socket := filepath.Join(b.dir, "virtiofsd.sock")
	defer os.Remove(socket) //nolint:errcheck // it removes it itself, as a rule
	daemon := exec.CommandContext(ctx, virtiofsd, "--socket-path="+socket,
		"-o", "source="+share+",sandbox=chroot,xattr,cache=auto,timeout=0.5")
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	defer func() {
		if err != nil {
			daemon.Process.Kill() //nolint:errcheck // it may have ended
		}
		if werr := <-ended; err == nil && werr != nil {
			err = fmt.Errorf("virtiofsd: %w: %s", werr, &log)
		}
	}()
	if err := await(ctx, socket, ended); err != nil {
		return nil, fmt.Errorf("virtiofsd: %w: %s", err, &log)
	}
	return workOver(ctx, m, initrd, socket)
}

// serveFiles is this program as the process of our file server, as virtiofsd is:
// it serves the tree share to the QEMU that connects to socket, until that ends.
func serveFiles(ctx context.Context, socket, share string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // it was used
	root, err := os.Open(share)
	if err != nil {
		return err
	}
	files, err := passthrough.NewServer(passthrough.Options{AllowDevices: true})
	if err != nil {
		return err
	}
	if err := files.AddTree("bench", "root", root, passthrough.TreeOptions{}); err != nil {
		return err
	}
	tree, err := fs.New("bench", 1, files)
	if err != nil {
		return err
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	return errors.Join(vhostuser.Serve(ctx, conn, tree), files.Close())
}

// overOurs has the share served by our file server, in a process of its own.
func (b *bench) overOurs(ctx context.Context, m machine, initrd, share string) (_ []reading, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(b.dir, "files.sock")
	defer os.Remove(socket) //nolint:errcheck // closing the listener removes it
	server := exec.CommandContext(ctx, self, "-serve", share, socket)
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var log bytes.Buffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	defer func() {
		if err != nil {
			server.Process.Kill() //nolint:errcheck // it may have ended
		}
		<-ended //nolint:errcheck // with the end of the connection, as an error or not
	}()
	if err := await(ctx, socket, ended); err != nil {
		return nil, fmt.Errorf("our file server: %w: %s", err, &log)
	}
	return workOver(ctx, m, initrd, socket)
}

// await waits until a socket is there, or the daemon has ended.
func await(ctx context.Context, path string, ended chan error) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			ended <- err
			return errors.Join(errors.New("it ended"), err)
		case <-limit:
			return errors.New("it does not listen")
		case <-tick.C:
		}
	}
}
