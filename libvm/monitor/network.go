package monitor

import (
	"fmt"
	"net"
	"strings"
)

// checkNetwork refuses a network namespace in which an interface other than the
// loopback is up: the guest would not have it, and a workload that was promised
// a network must not find out by itself. Interfaces that are down are those that
// a kernel makes in every namespace (tunl0, sit0 and their like).
func checkNetwork() error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the network namespace: %w", err)
	}
	var up []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			up = append(up, i.Name)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return fmt.Errorf("the network namespace has interfaces (%s), and runv cannot give them to the guest yet: use a namespace without, as --network none of the engines", strings.Join(up, ", "))
}
