package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// iperf3 is where the program is, in every root file system that has it.
const iperf3 = "/usr/bin/iperf3"

// iperfTime is how long iperf3 sends, in s; awaitServer how long its server may take
// to be there.
const (
	iperfTime   = "2"
	awaitServer = 2 * time.Minute
)

// iperfUnit is the amount of which the steps tell how long it takes to arrive, in bytes.
const iperfUnit = 100e6

// iperf runs iperf3 as a server until it is ended, or each test with the one at host.
// For each test it says "begin NAME", then "moved NAME BYTES", and the step.
func iperf(role, host string, inVM bool) error {
	if inVM {
		if err := makeRunnable(); err != nil {
			return err
		}
	}
	if role == "server" {
		return os.NewSyscallError("execve", unix.Exec(iperf3, []string{iperf3, "-s"}, []string{}))
	}
	for _, t := range []struct {
		name string
		args []string
	}{
		{"tcp-send", nil},
		{"tcp-receive", []string{"-R"}},
		{"udp-send", []string{"-u", "-b", "0", "-l", "1472"}},
		{"udp-receive", []string{"-u", "-b", "0", "-l", "1472", "-R"}},
		// At a rate that all can do it is the CPU time that tells.
		{"udp-send-50M", []string{"-u", "-b", "50M", "-l", "1472"}},
		{"udp-receive-50M", []string{"-u", "-b", "50M", "-l", "1472", "-R"}},
	} {
		args := append([]string{"-J", "-i", "0", "-t", iperfTime, "-c", host}, t.args...)
		for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			fmt.Println("begin", t.name)
			moved, seconds, err := runIperf(args)
			if err == nil {
				fmt.Println("moved", t.name, int64(moved))
				fmt.Println("step", t.name, int64(seconds*1e9*iperfUnit/moved))
				break
			}
			if time.Since(begin) > awaitServer {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	time.Sleep(time.Second) // what the last one used is read while it is there
	return nil
}

// runIperf runs a client and returns how many bytes have arrived, in how many seconds.
func runIperf(args []string) (moved, seconds float64, err error) {
	out, err := exec.Command(iperf3, args...).Output()
	var result struct {
		Error string
		End   struct {
			Received struct{ Bytes, Seconds float64 } `json:"sum_received"`
		}
	}
	if jerr := json.Unmarshal(out, &result); jerr == nil && result.Error != "" {
		err = errors.New(result.Error)
	} else {
		err = errors.Join(err, jerr)
	}
	r := result.End.Received
	if err == nil && (r.Bytes == 0 || r.Seconds == 0) {
		err = fmt.Errorf("nothing arrived: %s", out)
	}
	return r.Bytes, r.Seconds, err
}

// cargo is where an initramfs has files that are none of the kernel's modules.
const cargo = "/lib/modules/bench"

// makeRunnable brings the program, and what it is linked with, to their places, and
// gives it one for its own files, and devices.
func makeRunnable() error {
	if err := errors.Join(os.MkdirAll("/tmp", 0o777), os.MkdirAll("/dev", 0o755), unix.Mount("dev", "/dev", "devtmpfs", 0, "")); err != nil {
		return err
	}
	return filepath.WalkDir(cargo, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		to := strings.TrimPrefix(path, cargo)
		return errors.Join(os.Chmod(path, 0o755), os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(path, to))
	})
}
