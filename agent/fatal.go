package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// prefix starts each line on the console that is the agent's own; the host looks
// for it to tell why a guest ended.
const prefix = "runv-agent: "

// fatal prints why the guest cannot go on, where the host sees it, and ends the
// guest.
func fatal(err error) {
	say("fatal: " + err.Error())
	powerOff()
}

// say prints a line on the console.
func say(text string) {
	line := []byte(prefix + text + "\n")
	f, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		_, _ = unix.Write(2, line)
		return
	}
	_, _ = f.Write(line)
	_ = f.Close()
}

// powerOff ends the guest at once. It restarts, since the machines that runv
// makes leave when they are reset, and not all have a power button.
func powerOff() {
	for {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}
