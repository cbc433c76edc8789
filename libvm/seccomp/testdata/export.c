/* Compiles profiles with libseccomp, as runc calls it. Each line of stdin is
 *
 *   D ACTION                         a new profile with this default action
 *   A ARCH                           an architecture, SCMP_ARCH_*
 *   R ACTION NAME N [INDEX OP A B]*N a rule; OP is enum scmp_compare
 *   E                                the end: write the length, then the program
 *
 * in decimal numbers. A name that libseccomp does not have is left out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

static int export(scmp_filter_ctx ctx)
{
	static char buf[1 << 16];
	uint32_t n;
	int fd = memfd_create("bpf", 0);

	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0)
		return -1;
	n = lseek(fd, 0, SEEK_END);
	if (n > sizeof(buf) || pread(fd, buf, n, 0) != (ssize_t)n)
		return -1;
	close(fd);
	fwrite(&n, sizeof(n), 1, stdout);
	fwrite(buf, 1, n, stdout);
	return fflush(stdout);
}

int main(void)
{
	scmp_filter_ctx ctx = NULL;
	char kind, name[64];
	uint32_t v;

	while (scanf(" %c", &kind) == 1) {
		switch (kind) {
		case 'D':
			if (scanf("%" SCNu32, &v) != 1 || !(ctx = seccomp_init(v)))
				return 1;
			break;
		case 'A':
			if (scanf("%" SCNu32, &v) != 1)
				return 1;
			v = seccomp_arch_add(ctx, v);
			if ((int)v < 0 && (int)v != -EEXIST)
				return 2;
			break;
		case 'R': {
			struct scmp_arg_cmp args[6];
			unsigned n, i;
			int nr, rc;

			memset(args, 0, sizeof(args));
			if (scanf("%" SCNu32 " %63s %u", &v, name, &n) != 3 || n > 6)
				return 1;
			for (i = 0; i < n; i++) {
				unsigned index, op;

				if (scanf("%u %u %" SCNu64 " %" SCNu64, &index, &op, &args[i].datum_a, &args[i].datum_b) != 4)
					return 1;
				args[i].arg = index;
				args[i].op = op;
			}
			nr = seccomp_syscall_resolve_name(name);
			if (nr == __NR_SCMP_ERROR)
				break;
			rc = seccomp_rule_add_array(ctx, v, nr, n, args);
			if (rc < 0 && rc != -EEXIST) {
				fprintf(stderr, "%s: %d\n", name, rc);
				return 3;
			}
			break;
		}
		case 'E':
			if (export(ctx) < 0)
				return 4;
			seccomp_release(ctx);
			break;
		default:
			return 1;
		}
	}
	return 0;
}
