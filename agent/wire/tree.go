package wire

import "strconv"

// Names in the root of the shared trees, by which the agent shows the file server
// what it means. Behind a prefix is a node in hexadecimal digits.
const (
	ListenPrefix  = ".runv-listen-"  // a socket that is bound there is a node's, which is one of the host
	ConnectPrefix = ".runv-connect-" // is the node of a socket that a process has bound
	GhostName     = ".runv-ghost"    // is moved from where nobody watches
)

// ListenName is the name in the root that the agent binds a socket to, so that it is
// found at a node.
func ListenName(node uint64) string { return ListenPrefix + strconv.FormatUint(node, 16) }

// ConnectName is the name in the root at which the agent finds a node.
func ConnectName(node uint64) string { return ConnectPrefix + strconv.FormatUint(node, 16) }

// Kinds of changes that were made on the host and are made once more in the guest.
const (
	Modified   = iota + 1 // content
	Attributes            // mode, owner, times, links
	CloseWrite            // a file was closed that was open for writing
	Created               // a name, of any type
	Deleted               // a name
	Moved                 // a name to another one
	MovedHere             // a name, from where nobody watches
)
