/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT OR Apache-2.0 */
/*
 * The interface between userspace and /dev/jit: ioctl numbers, argument structs
 * and flags. jit(4) says what the calls do. Programs that use libjitfd need
 * jitfd.h instead.
 *
 * Generated from abi.rs; tests/host/tests/header.rs says how.
 */
#ifndef _UAPI_LINUX_JIT_H
#define _UAPI_LINUX_JIT_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The page size, in bytes. */
#define JIT_PAGE_SIZE 4096

/*
 * The largest capacity of a region, in bytes: every byte of it can be reached
 * from every other by a 32-bit displacement.
 */
#define JIT_MAX_REGION ((__u64)1 << 30)

/* The largest code that one JIT_CREATE_CODE takes, in bytes. */
#define JIT_MAX_CODE ((__u64)1 << 30)

/* The largest number of segments in one publication. */
#define JIT_MAX_SEGMENTS 1024

/* The largest alignment of a segment, as a power of two (a page). */
#define JIT_MAX_ALIGN_LOG2 12

/* The byte that fills whatever has not been published: int3. */
#define JIT_FILL_BYTE 0xcc

/* The ioctl type of all calls. */
#define JIT_IOCTL_TYPE 'J'

/*
 * On a /dev/jit handle that is no region: a new mapping that holds exactly
 * the given code.
 * Argument: struct jit_create_code. Returns 0.
 */
#define JIT_CREATE_CODE _IOWR(JIT_IOCTL_TYPE, 0x20, struct jit_create_code)

/*
 * On a /dev/jit handle: makes the open file a region. Argument: struct jit_create.
 * Returns the append handle, a new descriptor (close-on-exec).
 */
#define JIT_CREATE _IOW(JIT_IOCTL_TYPE, 0x21, struct jit_create)

/*
 * On an append handle: publishes segments at the cursor, in order.
 * Argument: struct jit_publish. Returns the offset of the first segment.
 */
#define JIT_APPEND _IOW(JIT_IOCTL_TYPE, 0x22, struct jit_publish)

/*
 * On an append handle: sets a range at the cursor aside, to be filled later.
 * Argument: struct jit_reserve. Returns its offset.
 */
#define JIT_RESERVE _IOW(JIT_IOCTL_TYPE, 0x23, struct jit_reserve)

/*
 * On an append handle: publishes segments inside reserved ranges, each byte
 * once. The segments are in ascending order of their offsets and do not
 * overlap. Argument: struct jit_publish. Returns 0.
 */
#define JIT_FILL _IOW(JIT_IOCTL_TYPE, 0x24, struct jit_publish)

/* On an append handle: no publication, ever again. No argument. Returns 0. */
#define JIT_SEAL _IO(JIT_IOCTL_TYPE, 0x25)

/* On either handle: the region's counters. Argument: struct jit_stats. Returns 0. */
#define JIT_STATS _IOR(JIT_IOCTL_TYPE, 0x26, struct jit_stats)

/*
 * On a fresh /dev/jit handle: makes it a region that starts as a copy of
 * another, sharing its pages until either publishes. Argument: struct jit_clone_from.
 * Returns the append handle.
 */
#define JIT_CLONE _IOW(JIT_IOCTL_TYPE, 0x27, struct jit_clone_from)

/* Argument of JIT_CREATE_CODE. */
struct jit_create_code {
	/* Address of the code in the caller's memory. */
	__u64 source;
	/* Bytes of code, 1 to JIT_MAX_CODE. */
	__u64 len;
	/*
	 * In: 0 to let the kernel choose, or with JIT_CREATE_CODE_FIXED the page
	 * aligned address of a range of the caller's own private anonymous pages
	 * to replace. Out: the address of the code.
	 */
	__u64 addr;
	/* JIT_CREATE_CODE_FIXED or 0. */
	__u32 flags;
	/* Zero. */
	__u32 reserved[5];
};

/*
 * addr of struct jit_create_code is given, and what is mapped there is replaced in one
 * step. source may lie inside the range it replaces.
 */
#define JIT_CREATE_CODE_FIXED (1 << 0)

/* Argument of JIT_CREATE. */
struct jit_create {
	/* Capacity in bytes: a multiple of the page size, up to JIT_MAX_REGION. */
	__u64 size;
	/* JIT_CREATE_ANY_MM or 0. */
	__u32 flags;
	/* Zero. */
	__u32 reserved[5];
};

/*
 * Whoever holds the append handle may publish. Without it only the address
 * space that created the region may.
 */
#define JIT_CREATE_ANY_MM (1 << 0)

/* Argument of JIT_CLONE. */
struct jit_clone_from {
	/* A /dev/jit descriptor whose region is copied. */
	__s32 source_fd;
	/* JIT_CREATE_ANY_MM or 0. */
	__u32 flags;
	/* Zero. */
	__u32 reserved[6];
};

/* Argument of JIT_APPEND and JIT_FILL. */
struct jit_publish {
	/* Address of an array of struct jit_segment in the caller's memory. */
	__u64 segments;
	/* Its length, 1 to JIT_MAX_SEGMENTS. */
	__u32 count;
	/* JIT_PUBLISH_SYNC, JIT_PUBLISH_FRESH or 0. */
	__u32 flags;
	/*
	 * For JIT_APPEND: the offset at which the first segment must come to
	 * lie, or JIT_ANY_OFFSET. If the cursor is elsewhere the call fails with
	 * ESTALE: code was relocated for an address it would not get.
	 * For JIT_FILL: JIT_ANY_OFFSET.
	 */
	__u64 expect;
	/* Zero. */
	__u32 reserved[4];
};

/* No particular offset is asked for. */
#define JIT_ANY_OFFSET (~(__u64)0)

/*
 * When the call returns, no CPU can read or execute the old content of the
 * published bytes. Costs one batched flush if a CPU may have cached it.
 * Data that code loads needs this (or JIT_PUBLISH_FRESH).
 */
#define JIT_PUBLISH_SYNC (1 << 0)

/*
 * For JIT_APPEND: the first segment starts on a page that holds no code
 * yet, and the cursor is left at a page boundary, so that no later
 * publication touches these pages either.
 */
#define JIT_PUBLISH_FRESH (1 << 1)

/* One piece of a publication. */
struct jit_segment {
	/* Address of the bytes in the caller's memory. */
	__u64 source;
	/* Number of bytes, at least 1. */
	__u64 len;
	/* For JIT_FILL: where the bytes go. For JIT_APPEND: zero. */
	__u64 offset;
	/*
	 * For JIT_APPEND: alignment of the segment as a power of two, 0 to
	 * JIT_MAX_ALIGN_LOG2. For JIT_FILL: zero.
	 */
	__u32 align_log2;
	/* Zero. */
	__u32 reserved;
};

/* Argument of JIT_RESERVE. */
struct jit_reserve {
	/* Number of bytes, at least 1. */
	__u64 len;
	/* Alignment as a power of two, 0 to JIT_MAX_ALIGN_LOG2. */
	__u32 align_log2;
	/* Zero. */
	__u32 reserved[5];
};

/* Argument of JIT_STATS: the counters of one region since its creation. */
struct jit_stats {
	/* Capacity in bytes. */
	__u64 capacity;
	/* Bytes up to the cursor (published or reserved). */
	__u64 cursor;
	/* Successful JIT_APPEND and JIT_FILL calls. */
	__u64 publications;
	/* Segments they published. */
	__u64 segments;
	/* Bytes they published. */
	__u64 bytes;
	/* Page-table entries that were swapped to a newer version of a page. */
	__u64 swaps;
	/* Pages that were written in place, because no CPU could see them. */
	__u64 in_place;
	/* Stale #BP traps that were resumed. */
	__u64 fixups;
	/* Page versions that were replaced. */
	__u64 retired;
	/* Replaced page versions whose memory was given back or reused. */
	__u64 freed;
	/*
	 * Batched flushes: by JIT_PUBLISH_SYNC, at the bound, or for a fill next
	 * to live code.
	 */
	__u64 flushes;
	/* Inter-processor interrupts that those flushes sent. */
	__u64 ipis;
	/*
	 * Segments published across a boundary of two live pages, which cost a
	 * synchronous flush (a subset of flushes).
	 */
	__u64 straddles;
	/* 1 if the region is sealed. */
	__u64 sealed;
	/*
	 * Blank pages that are kept for the next publications. Given back when
	 * memory is short, or after a second or two without use.
	 */
	__u64 pooled;
	/*
	 * Flushes of a CPU's user TLB at its tick, in the epochs that replaced
	 * pages of this region have waited for.
	 */
	__u64 ticks;
	/*
	 * CPUs that were left alone in these epochs, because they ran something
	 * else when their turn came.
	 */
	__u64 spared;
	/* Zero; room to grow. */
	__u64 reserved[7];
};

#endif /* _UAPI_LINUX_JIT_H */
