package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// Opcodes of the FUSE protocol (linux/fuse.h, enum fuse_opcode).
const (
	FUSE_LOOKUP            = 1
	FUSE_FORGET            = 2
	FUSE_GETATTR           = 3
	FUSE_SETATTR           = 4
	FUSE_READLINK          = 5
	FUSE_SYMLINK           = 6
	FUSE_MKNOD             = 8
	FUSE_MKDIR             = 9
	FUSE_UNLINK            = 10
	FUSE_RMDIR             = 11
	FUSE_RENAME            = 12
	FUSE_LINK              = 13
	FUSE_OPEN              = 14
	FUSE_READ              = 15
	FUSE_WRITE             = 16
	FUSE_STATFS            = 17
	FUSE_RELEASE           = 18
	FUSE_FSYNC             = 20
	FUSE_SETXATTR          = 21
	FUSE_GETXATTR          = 22
	FUSE_LISTXATTR         = 23
	FUSE_REMOVEXATTR       = 24
	FUSE_FLUSH             = 25
	FUSE_INIT              = 26
	FUSE_OPENDIR           = 27
	FUSE_READDIR           = 28
	FUSE_RELEASEDIR        = 29
	FUSE_FSYNCDIR          = 30
	FUSE_CREATE            = 35
	FUSE_INTERRUPT         = 36
	FUSE_DESTROY           = 38
	FUSE_IOCTL             = 39
	FUSE_NOTIFY_REPLY      = 41
	FUSE_BATCH_FORGET      = 42
	FUSE_FALLOCATE         = 43
	FUSE_READDIRPLUS       = 44
	FUSE_RENAME2           = 45
	FUSE_LSEEK             = 46
	FUSE_COPY_FILE_RANGE   = 47
	FUSE_SYNCFS            = 50
	FUSE_TMPFILE           = 51
	opcodes                = 52
	fuseKernelVersion      = 7  // FUSE_KERNEL_VERSION
	minMinor               = 12 // what go-fuse takes
	fuseSetxattrExt        = 1 << 29
	sizeofInHeader         = 40 // struct fuse_in_header
	sizeofOutHeader        = 16 // struct fuse_out_header
	offsetofInitMajor      = sizeofInHeader
	offsetofInitMinor      = sizeofInHeader + 4
	offsetofForgetNlookup  = sizeofInHeader
	offsetofSize           = sizeofInHeader + 16 // of fuse_read_in and fuse_write_in
	offsetofXattrSize      = sizeofInHeader      // of fuse_getxattr_in
	offsetofInitOutFlags   = sizeofOutHeader + 12
	sizeofWriteIn          = sizeofInHeader + 40
	sizeofSetxattrIn       = sizeofInHeader + 16
	sizeofSetxattrInCompat = sizeofInHeader + 8
	maxOutArgs             = 288 // largest fixed part of a reply (struct fuse_statx_out)
)

// inSize is how many bytes a request of each opcode has at least, with its
// header: what is shorter does not reach go-fuse. 0 is an opcode that is not
// served (ENOSYS).
func inSize(opcode uint32) int {
	if opcode >= opcodes || inSizes[opcode] == 0 {
		return 0
	}
	return sizeofInHeader + int(inSizes[opcode]) - 1
}

// inSizes is the size of each opcode's fixed arguments (fuse_*_in), plus one.
var inSizes = [opcodes]uint8{
	FUSE_LOOKUP:          1 + 0,
	FUSE_FORGET:          1 + 8,
	FUSE_GETATTR:         1 + 16,
	FUSE_SETATTR:         1 + 88,
	FUSE_READLINK:        1 + 0,
	FUSE_SYMLINK:         1 + 0,
	FUSE_MKNOD:           1 + 16,
	FUSE_MKDIR:           1 + 8,
	FUSE_UNLINK:          1 + 0,
	FUSE_RMDIR:           1 + 0,
	FUSE_RENAME:          1 + 8,
	FUSE_LINK:            1 + 8,
	FUSE_OPEN:            1 + 8,
	FUSE_READ:            1 + 40,
	FUSE_WRITE:           1 + 40,
	FUSE_STATFS:          1 + 0,
	FUSE_RELEASE:         1 + 24,
	FUSE_FSYNC:           1 + 16,
	FUSE_SETXATTR:        1 + 8,
	FUSE_GETXATTR:        1 + 8,
	FUSE_LISTXATTR:       1 + 8,
	FUSE_REMOVEXATTR:     1 + 0,
	FUSE_FLUSH:           1 + 24,
	FUSE_INIT:            1 + 16,
	FUSE_OPENDIR:         1 + 8,
	FUSE_READDIR:         1 + 40,
	FUSE_RELEASEDIR:      1 + 24,
	FUSE_FSYNCDIR:        1 + 16,
	FUSE_CREATE:          1 + 16,
	FUSE_INTERRUPT:       1 + 8,
	FUSE_DESTROY:         1 + 0,
	FUSE_IOCTL:           1 + 32,
	FUSE_NOTIFY_REPLY:    1 + 0,
	FUSE_BATCH_FORGET:    1 + 8,
	FUSE_FALLOCATE:       1 + 32,
	FUSE_READDIRPLUS:     1 + 40,
	FUSE_RENAME2:         1 + 16,
	FUSE_LSEEK:           1 + 24,
	FUSE_COPY_FILE_RANGE: 1 + 56,
	FUSE_SYNCFS:          1 + 8,
	FUSE_TMPFILE:         1 + 16,
}

// header is what is read of struct fuse_in_header.
type header struct {
	opcode uint32
	unique uint64
	nodeid uint64
}

// pollHackNode and pollHackName are what go-fuse answers by itself, for a
// problem of its own with /dev/fuse: not served here.
const (
	pollHackNode = ^uint64(0)
	pollHackName = ".go-fuse-epoll-hack"
	rootNode     = fuse.FUSE_ROOT_ID
)
