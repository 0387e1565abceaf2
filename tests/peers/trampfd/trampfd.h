/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a program has to know of the trampfd peer. ../src/kernel.rs says the same
 * in Rust.
 *
 *	fd = ioctl(open("/dev/trampfd"), TRAMPFD_CREATE)
 *	pwrite(fd, struct trampfd_reg[], ..., TRAMPFD_REGS)
 *	pwrite(fd, __u64[], ..., TRAMPFD_STACK)
 *	code = mmap(4096, PROT_NONE, fd)		a page fault is the call
 *	code = mmap(4096, PROT_READ, fd)	a system call is the call
 *
 * Errors: EINVAL for what makes no sense (a register twice, a program counter that
 * is no user address, none at all, a mapping of another size or protection), EBUSY
 * for a description that is changed after it was mapped, EOPNOTSUPP for a
 * protection that this kernel does not serve.
 */
#ifndef TRAMPFD_H
#define TRAMPFD_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define TRAMPFD_CREATE		_IO('T', 0xf0)

/* Where the two contexts are written. */
#define TRAMPFD_REGS		0
#define TRAMPFD_STACK		4096

/* The name of a register is its number in an instruction; 4 would be rsp. */
#define TRAMPFD_RSP		4
#define TRAMPFD_RIP		16
#define TRAMPFD_NAMES		17

/* Values that can be pushed. */
#define TRAMPFD_PUSHES		8

/* The system call of the executable form; a number that no call has. */
#define TRAMPFD_NR		400

struct trampfd_reg {
	__u32 name;
	__u32 reserved;		/* 0 */
	__u64 value;
};

#endif
