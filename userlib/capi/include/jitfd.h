/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libjitfd: executable code for JIT compilers, from a kernel that never maps it
 * writable. See jitfd(7) for an overview.
 *
 * A function that returns int returns 0, or -1 with errno, unless it says otherwise;
 * one that returns a pointer returns NULL with errno. jitfd_error() has the text.
 * EINVAL: a pointer that is not said to be optional is NULL, a flag is unknown, or a
 * size is not set; E2BIG: a struct asks for what this version of the library does not
 * have; ENOMEM; ENOTRECOVERABLE: a bug of the library. After an error everything is as it
 * was before the call.
 *
 * What ..._create() and others return is given back by ..._destroy(), or as they say.
 * All functions may be called from several threads at once, also on one object, but
 * for those that give it back.
 *
 * Zero a struct that begins with its size, and set that:
 *
 *     struct jitfd_rules rules = {0};
 *     rules.size = sizeof(rules);
 *
 * Generated from userlib/capi/src; tests/header.rs there says how.
 */

#ifndef JITFD_H
#define JITFD_H

#include <stddef.h>
#include <stdint.h>

/**
 * The chunk has no bytes.
 */
#define JITFD_REASON_EMPTY 1

/**
 * The chunk has more bytes than one publication takes.
 */
#define JITFD_REASON_TOO_LONG 2

/**
 * A declared data range is empty or reaches beyond the chunk; target: its start.
 */
#define JITFD_REASON_DATA_RANGE 3

/**
 * The bytes are no valid instruction of 64-bit mode.
 */
#define JITFD_REASON_INVALID 4

/**
 * The chunk ends inside an instruction.
 */
#define JITFD_REASON_TRUNCATED 5

/**
 * An instruction runs into declared data; target: where the data begins.
 */
#define JITFD_REASON_RUNS_INTO_DATA 6

/**
 * A direct branch goes into the middle of an instruction; target: where to.
 */
#define JITFD_REASON_INTO_INSTRUCTION 7

/**
 * A direct branch goes behind a lock prefix, and that was not allowed; target:
 * where to.
 */
#define JITFD_REASON_SKIPS_LOCK 8

/**
 * A direct branch goes into declared data; target: where to.
 */
#define JITFD_REASON_INTO_DATA 9

/**
 * A near branch, call or return with an operand-size prefix: processors differ.
 */
#define JITFD_REASON_VENDOR_DEPENDENT 10

/**
 * A declared entry is not the first byte of an instruction; target: the entry.
 */
#define JITFD_REASON_BAD_ENTRY 11

/**
 * The instruction at an entry is not endbr64, which JITFD_RULE_ENDBR64 asks for.
 */
#define JITFD_REASON_NO_ENDBR64 12

/**
 * The rules forbid the instruction; forbidden: by which JITFD_FORBID_.
 */
#define JITFD_REASON_FORBIDDEN 13

/**
 * The instruction crosses a border of 64 bytes, which JITFD_RULE_WITHIN_LINES forbids.
 */
#define JITFD_REASON_CROSSES_LINE 14

/**
 * A branch out of the chunk does not go to an instruction, or not to a declared entry, of
 * another one; target: where to, in bytes from the start of the region.
 */
#define JITFD_REASON_NOT_AN_ENTRY 15

/**
 * A branch that was published before goes to what is no instruction, or no declared
 * entry, of the chunk; target: where to, in bytes from the start of the region.
 */
#define JITFD_REASON_ENTRY_EXPECTED 16

/**
 * A field can't hold what it refers to; target: the address.
 */
#define JITFD_REASON_TOO_FAR 17

/**
 * A field is not inside of its item.
 */
#define JITFD_REASON_FIELD_OUTSIDE 18

/**
 * A field has bytes of another one; target: where that begins.
 */
#define JITFD_REASON_FIELDS_OVERLAP 19

/**
 * A field refers to an item that there is not; target: its number.
 */
#define JITFD_REASON_NO_ITEM 20

/**
 * A branch goes to an address that is not among those that it may leave to; target: the
 * address.
 */
#define JITFD_REASON_LEAVES_TO 21

/**
 * The rules say where branches may leave to, and a part of a region that is only the
 * right to publish knows no address.
 */
#define JITFD_REASON_NO_ADDRESS 22

/**
 * The bytes are those of an ELF file; target: the number of its processor.
 */
#define JITFD_REASON_ELF 23

/**
 * The bytes are instructions of aarch64.
 */
#define JITFD_REASON_AARCH64 24

/**
 * A reason that this header has no number for: see jitfd_error.
 */
#define JITFD_REASON_OTHER 65535

/**
 * The kernel, by /dev/jit. No part of the program can write to code.
 */
#define JITFD_BACKEND_KERNEL 1

/**
 * A memory file mapped twice, once for writing and once for executing.
 */
#define JITFD_BACKEND_DUAL_MAPPING 2

/**
 * Pages that are prepared in writable memory, then turned executable.
 */
#define JITFD_BACKEND_PROTECT_FLIPS 3

/**
 * As jitfd_allow_fallback has said for the whole process.
 */
#define JITFD_FALLBACK_DEFAULT 0

/**
 * /dev/jit or an error.
 */
#define JITFD_FALLBACK_NEVER 1

/**
 * /dev/jit, else dual mapping.
 */
#define JITFD_FALLBACK_DUAL_MAPPING 2

/**
 * /dev/jit, else dual mapping, else mprotect flips.
 */
#define JITFD_FALLBACK_ANY 3

/**
 * Together with one of JITFD_BACKEND_: this one or an error. For tests.
 */
#define JITFD_FALLBACK_ONLY 256

/**
 * Allow direct branches that go behind the lock prefix of an instruction, as the C
 * library's own code has.
 */
#define JITFD_RULE_ALLOW_LOCK_SKIPS 1

/**
 * Other chunks may branch to the declared entries only.
 */
#define JITFD_RULE_ENTRIES_ONLY 2

/**
 * Each entry begins with endbr64; if none is declared, the first byte is one.
 */
#define JITFD_RULE_ENDBR64 4

/**
 * No instruction crosses a border of 64 bytes, so that one fetch sees all of it.
 * The chunk is aligned to 64 bytes then.
 */
#define JITFD_RULE_WITHIN_LINES 8

/**
 * Direct branches leave the region, or code space, to the declared addresses only.
 */
#define JITFD_RULE_LEAVES_ONLY 16

/**
 * Refuse syscall, sysenter and int n.
 */
#define JITFD_FORBID_SYSTEM_CALLS 256

/**
 * Refuse instructions that write the protection-key register.
 */
#define JITFD_FORBID_PROTECTION_KEYS 512

/**
 * Refuse far jumps, calls and returns.
 */
#define JITFD_FORBID_FAR_TRANSFERS 1024

/**
 * Refuse instructions that change a segment register or its base.
 */
#define JITFD_FORBID_SEGMENTS 2048

/**
 * Refuse privileged (CPL 0) instructions.
 */
#define JITFD_FORBID_PRIVILEGED 4096

/**
 * In an error only: one of the mnemonics that the rules forbid.
 */
#define JITFD_FORBID_NAMED 8192

/**
 * An instruction begins there.
 */
#define JITFD_CHUNK_INSTRUCTION 1

/**
 * Other chunks may branch to there.
 */
#define JITFD_CHUNK_ENTRY 2

/**
 * Every process that holds the append descriptor may publish, not only the one
 * that created the region.
 */
#define JITFD_REGION_ANY_PROCESS 1

/**
 * Keep no map of where instructions start, and check no branches between
 * chunks. Publications need not wait for each other then.
 */
#define JITFD_REGION_NO_BOUNDARY_MAP 2

/**
 * Map the region as anonymous memory, so that perf looks up its functions in
 * /tmp/perf-PID.map. EOPNOTSUPP with mprotect flips.
 */
#define JITFD_REGION_PERF_MAP 4

/**
 * All code of the space can be reached from all of it by 32-bit displacements.
 */
#define JITFD_SPACE_TOGETHER 256

/**
 * perf finds the names of functions, in /tmp/perf-PID.map, which is written;
 * JITFD_REGION_PERF_MAP goes without saying.
 */
#define JITFD_SPACE_PERF_MAP 512

/**
 * gdb knows the names of functions: as jitfd_gdb_register, for all code.
 */
#define JITFD_SPACE_GDB 1024

/**
 * The first function of a region may lie at its start.
 */
#define JITFD_SPACE_NO_LEAD 2048

/**
 * The address, 64 bits.
 */
#define JITFD_RELOC_ABS64 1

/**
 * The address, which must fit 32 bits without a sign.
 */
#define JITFD_RELOC_ABS32 2

/**
 * The address, which must fit 32 bits with a sign.
 */
#define JITFD_RELOC_ABS32S 3

/**
 * The distance from the field, 64 bits.
 */
#define JITFD_RELOC_REL64 4

/**
 * The distance from the field, 32 bits.
 */
#define JITFD_RELOC_REL32 5

/**
 * The same in a call or jump. To an address that is too far away it goes by a stub
 * that changes r11; the addend must be -4 then.
 */
#define JITFD_RELOC_CALL32 6

/**
 * The distance from the field, 8 bits.
 */
#define JITFD_RELOC_REL8 7

/**
 * The target is the number of an item, counted from 0.
 */
#define JITFD_RELOC_TO_ITEM 1

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RAX 0

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RCX 1

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RDX 2

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RBX 3

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RSP 4

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RBP 5

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RSI 6

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_RDI 7

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R8 8

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R9 9

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R10 10

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R11 11

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R12 12

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R13 13

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R14 14

/**
 * A general register, by its number in instructions.
 */
#define JITFD_REG_R15 15

/**
 * From here on the frame address is reg + offset. The frame address is where rsp
 * was before the call that came here: at the start of a function rsp + 8.
 */
#define JITFD_FRAME_CFA 1

/**
 * From here on the caller's reg is in memory, offset bytes below the frame
 * address: a multiple of 8.
 */
#define JITFD_FRAME_SAVED 2

/**
 * From here on the caller's reg is in the register again.
 */
#define JITFD_FRAME_RESTORED 3

/**
 * The function begins with push rbp; mov rbp, rsp. The first step, at 0; further
 * ones begin at 4.
 */
#define JITFD_FRAME_POINTER 4

/**
 * Debuggers are told of each copy, as jitfd_gdb_register does: gdb then knows the caller also of
 * a thread that it stops in the middle of a trampoline.
 */
#define JITFD_TABLE_DEBUGGERS 1

/**
 * The rule does not stand in the way.
 */
#define JITFD_VERDICT_ALLOWS 1

/**
 * It is not known whether the rule stands in the way.
 */
#define JITFD_VERDICT_MAY_REFUSE 2

/**
 * The rule refuses the backends that the finding names.
 */
#define JITFD_VERDICT_REFUSES 3

/**
 * Code that passed validation: the only thing that can be published. It has its
 * own copy of the bytes and never changes, so it may be used by several threads
 * at once, and published more than once.
 */
typedef struct jitfd_chunk jitfd_chunk;

/**
 * What has made a function of any type, at run time, that calls a handler.
 */
typedef struct jitfd_closure jitfd_closure;

/**
 * A range of code of fixed capacity, to which chunks are appended; mapped
 * readable and executable. On a page with code, what is not published is 0xCC; an
 * access to a page without any ends in SIGBUS, or SIGSEGV with
 * JITFD_BACKEND_PROTECT_FLIPS (with JITFD_BACKEND_DUAL_MAPPING a reserved page is
 * 0xCC). May be used by several threads at once.
 *
 * What jitfd_region_create makes is a whole region. jitfd_region_split,
 * jitfd_region_open, jitfd_region_map and jitfd_region_clone make objects that are
 * parts of one: the code as it is mapped, the right to map it, the right to publish in
 * it. A call that needs a part which an object does not have fails with EBADF.
 *
 * A forked child executes the code, but may publish only with
 * JITFD_REGION_ANY_PROCESS, or in a copy of its own: jitfd_region_adopt. If the parent
 * has several threads, call that before anything else in the child.
 */
typedef struct jitfd_region jitfd_region;

/**
 * What an unwinder or a debugger was told, until jitfd_unregister.
 */
typedef struct jitfd_registration jitfd_registration;

/**
 * What has made a piece of code, at run time, that saves all registers, calls a handler,
 * loads all registers and returns to its caller, or goes elsewhere.
 */
typedef struct jitfd_save_all jitfd_save_all;

/**
 * Room in a code space whose address is known and whose code is still to come.
 * Executing it before it is filled raises a signal, as with jitfd_region_reserve.
 */
typedef struct jitfd_slot jitfd_slot;

/**
 * The code of many functions in as many regions as it takes, with their names,
 * and lookup by address. May be used by several threads at once. Code is not
 * taken back one by one; destroying the space unmaps all of it.
 */
typedef struct jitfd_space jitfd_space;

/**
 * Trampolines: functions made at run time, each of which loads a pointer of its own,
 * the context, into a register and goes on to a target of its own, with everything
 * else as the caller left it. May be used by several threads at once.
 */
typedef struct jitfd_table jitfd_table;

/**
 * Why code was refused, and where. It may grow at its end.
 */
typedef struct jitfd_code_error {
  /**
   * Which of several items or chunks, counted from 0; SIZE_MAX if there was only one.
   */
  size_t item;
  /**
   * The instruction at fault, in bytes from the start of the chunk, or of the item. Of
   * a branch it is the branch, not its target; of a field the field.
   */
  size_t offset;
  /**
   * What the reason speaks of, in bytes from the start of the chunk, if it does not say
   * from what else; else 0.
   */
  size_t target;
  /**
   * One of JITFD_REASON_.
   */
  uint32_t reason;
  /**
   * By which of JITFD_FORBID_ the instruction is forbidden; else 0.
   */
  uint32_t forbidden;
  /**
   * How many of the bytes are those of the instruction: 0 to 15. 0 if the
   * chunk as a whole is at fault.
   */
  uint32_t length;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The instruction, or what there is of it.
   */
  uint8_t bytes[16];
  /**
   * The instruction as text; "(bad)" if it is none.
   */
  char disassembly[112];
} jitfd_code_error;

/**
 * What is called with one of JITFD_BACKEND_ and one line of text.
 */
typedef void (*jitfd_fallback_hook)(int backend, const char *text);

/**
 * Some bytes of a chunk.
 */
typedef struct jitfd_range {
  /**
   * In bytes from the start of the chunk.
   */
  size_t offset;
  /**
   * The number of bytes.
   */
  size_t len;
} jitfd_range;

/**
 * What a chunk may be, and where its data is. All zero but for the size: no
 * data, no lock skips, nothing forbidden, every instruction is an entry.
 */
typedef struct jitfd_rules {
  /**
   * sizeof(struct jitfd_rules).
   */
  size_t size;
  /**
   * JITFD_RULE_ALLOW_LOCK_SKIPS, JITFD_RULE_ENTRIES_ONLY, JITFD_RULE_ENDBR64,
   * JITFD_RULE_WITHIN_LINES, JITFD_RULE_LEAVES_ONLY, JITFD_FORBID_.
   */
  uint32_t flags;
  /**
   * The alignment at which the chunk is appended, in bytes: a power of two up
   * to 4096. 0 is 16.
   */
  uint32_t align;
  /**
   * The ranges that are data: constants, jump tables. In any order. A chunk
   * with data is published so that no CPU reads what was there before.
   */
  const struct jitfd_range *data;
  /**
   * How many ranges there are.
   */
  size_t data_count;
  /**
   * Where other chunks may branch to, in bytes from the start of the chunk. If
   * there is one, JITFD_RULE_ENTRIES_ONLY goes without saying.
   */
  const size_t *entries;
  /**
   * How many entries there are.
   */
  size_t entry_count;
  /**
   * How many threads may work on a chunk of more than 1 MiB. 0: as many as the
   * process may use.
   */
  size_t threads;
  /**
   * Mnemonics that are refused, by their names in the manuals, in any case.
   * Validation then takes about twice as long.
   */
  const char *const *forbidden;
  /**
   * How many mnemonics there are.
   */
  size_t forbidden_count;
  /**
   * The addresses outside of the region, or code space, that direct branches may go
   * to: the functions of the runtime that the code calls. It is checked where the
   * chunk's address is known: when it is published. If there is one,
   * JITFD_RULE_LEAVES_ONLY goes without saying.
   */
  const void *const *leaves;
  /**
   * How many addresses there are.
   */
  size_t leave_count;
} jitfd_rules;

/**
 * What a chunk is.
 */
typedef struct jitfd_chunk_info {
  /**
   * In: sizeof(struct jitfd_chunk_info).
   */
  size_t size;
  /**
   * Its bytes, valid until it is given back.
   */
  const void *bytes;
  /**
   * How many bytes there are.
   */
  size_t len;
  /**
   * Where branches go behind a lock prefix, which JITFD_RULE_ALLOW_LOCK_SKIPS has
   * let pass: in bytes from the start of the chunk. Valid until it is given back.
   */
  const size_t *lock_skips;
  /**
   * How many of these there are.
   */
  size_t lock_skip_count;
  /**
   * The alignment at which it is appended, in bytes.
   */
  uint32_t align;
  /**
   * 1 if some of it is data, else 0.
   */
  uint32_t holds_data;
} jitfd_chunk_info;

/**
 * How a region is made. All zero but for the size: by what the process allows, at any
 * address, only this process publishes, branches between chunks are checked.
 */
typedef struct jitfd_region_options {
  /**
   * sizeof(struct jitfd_region_options).
   */
  size_t size;
  /**
   * JITFD_REGION_ANY_PROCESS, JITFD_REGION_NO_BOUNDARY_MAP, JITFD_REGION_PERF_MAP.
   */
  uint32_t flags;
  /**
   * One of JITFD_FALLBACK_; 0 is as the process allows.
   */
  uint32_t fallback;
  /**
   * Unless null, the region is placed where 32-bit displacements reach all
   * addresses from this one to near_last.
   */
  const void *near_first;
  /**
   * Null if it is the same as near_first.
   */
  const void *near_last;
} jitfd_region_options;

/**
 * What a region is in this process. It does not change, but for the descriptors, by
 * jitfd_region_adopt.
 */
typedef struct jitfd_region_info {
  /**
   * In: sizeof(struct jitfd_region_info).
   */
  size_t size;
  /**
   * The address of its first byte; null if it is not mapped by this object.
   */
  void *address;
  /**
   * How many bytes are mapped there.
   */
  size_t len;
  /**
   * What makes its code executable: one of JITFD_BACKEND_.
   */
  int backend;
  /**
   * The descriptor by which it can be mapped, in this process or in one that it is
   * sent to; it gives no right to publish. -1 if the object has none, as those of
   * fallbacks. It stays the object's: do not close it.
   */
  int map_fd;
  /**
   * The descriptor by which code is published; it can't be mapped. Another process
   * needs JITFD_REGION_ANY_PROCESS to use it. Else as map_fd.
   */
  int append_fd;
  /**
   * 0.
   */
  int reserved;
} jitfd_region_info;

/**
 * Where code lies, or will lie. This struct does not grow.
 */
typedef struct jitfd_place {
  /**
   * In bytes from the start of the region.
   */
  size_t offset;
  /**
   * The number of bytes.
   */
  size_t len;
  /**
   * The address in this process; null if the region is not mapped by this object.
   */
  void *address;
} jitfd_place;

/**
 * Makes the code for a place, whose length is 0. It returns a chunk, which it gives
 * away; or null with errno, and nothing is published. It must return, and may publish in
 * the same region.
 */
typedef struct jitfd_chunk *(*jitfd_emitter)(void *data, const struct jitfd_place *place);

/**
 * The counters of a region since it was made.
 */
typedef struct jitfd_stats {
  /**
   * In: sizeof(struct jitfd_stats).
   */
  size_t size;
  /**
   * Bytes that the region has room for.
   */
  uint64_t capacity;
  /**
   * Bytes published, reserved or skipped.
   */
  uint64_t cursor;
  /**
   * Calls that published.
   */
  uint64_t publications;
  /**
   * Chunks they published.
   */
  uint64_t segments;
  /**
   * Bytes they published.
   */
  uint64_t bytes;
  /**
   * Page-table entries pointed to a newer version of a page.
   */
  uint64_t swaps;
  /**
   * Pages written without a new version, since no CPU could see them.
   */
  uint64_t in_place;
  /**
   * Stale traps that were resumed.
   */
  uint64_t fixups;
  /**
   * Versions of pages that were replaced.
   */
  uint64_t retired;
  /**
   * Of these, those that were freed.
   */
  uint64_t freed;
  /**
   * Batched flushes of other CPUs.
   */
  uint64_t flushes;
  /**
   * Interrupts that these sent.
   */
  uint64_t ipis;
  /**
   * Flushes for a fill across two live pages; part of flushes.
   */
  uint64_t straddles;
  /**
   * 1 if the region is sealed, else 0.
   */
  uint64_t sealed;
  /**
   * Blank pages that are kept for the next publications.
   */
  uint64_t pooled;
} jitfd_stats;

/**
 * A published function. This struct does not grow.
 */
typedef struct jitfd_symbol {
  /**
   * The name, which has no NUL; valid as long as the space.
   */
  const char *name;
  /**
   * The length of the name in bytes.
   */
  size_t name_len;
  /**
   * The address of the first byte.
   */
  void *address;
  /**
   * The number of bytes.
   */
  size_t len;
} jitfd_symbol;

/**
 * Is told of code right after it was published, by the publishing thread and so
 * perhaps by several at once. The name is valid as long as the space, the struct only
 * during the call. It must return.
 */
typedef void (*jitfd_listener)(void *data, const struct jitfd_symbol *function);

/**
 * How a code space is made. All zero but for the size: regions of 16 MiB, as many
 * as there is need for, made as jitfd_region_create does without options.
 */
typedef struct jitfd_space_options {
  /**
   * sizeof(struct jitfd_space_options).
   */
  size_t size;
  /**
   * JITFD_SPACE_TOGETHER, JITFD_SPACE_PERF_MAP, JITFD_SPACE_GDB,
   * JITFD_SPACE_NO_LEAD; and JITFD_REGION_, for each region.
   */
  uint32_t flags;
  /**
   * One of JITFD_FALLBACK_; 0 is as the process allows.
   */
  uint32_t fallback;
  /**
   * Unless null, all regions are placed where 32-bit displacements reach all
   * addresses from this one to near_last.
   */
  const void *near_first;
  /**
   * Null if it is the same as near_first.
   */
  const void *near_last;
  /**
   * The capacity of each region in bytes; 0 for 16 MiB.
   */
  size_t region_capacity;
  /**
   * The capacity of all regions together in bytes; 0 for no bound.
   */
  size_t max_capacity;
  /**
   * Is told of all code; or null.
   */
  jitfd_listener listener;
  /**
   * The first argument of the listener.
   */
  void *listener_data;
  /**
   * A folder for a dump of the code (jit-PID.dump), which perf inject reads; or
   * null.
   */
  const char *jitdump;
  /**
   * By which rules jitfd_space_link and jitfd_space_publish_moved validate; or
   * null. They have no data, no entries and no align. If they ask for entries,
   * each linked item that begins with code has one at its start.
   */
  const struct jitfd_rules *rules;
  /**
   * Trap bytes at the start of each region, so that the bytes before a function
   * can be read and never are another function's; 0 for 16.
   */
  size_t lead;
} jitfd_space_options;

/**
 * Room for one function. All zero but for the size and the length: aligned to 16,
 * without a name, anywhere in the space.
 */
typedef struct jitfd_request {
  /**
   * sizeof(struct jitfd_request).
   */
  size_t size;
  /**
   * The number of bytes.
   */
  size_t len;
  /**
   * A power of two up to 4096; 0 is 16.
   */
  size_t align;
  /**
   * The name under which the code is found, in UTF-8; or null.
   */
  const char *name;
  /**
   * As in struct jitfd_region_options; a region is added if none is there.
   */
  const void *near_first;
  /**
   * As in struct jitfd_region_options.
   */
  const void *near_last;
} jitfd_request;

/**
 * How the bytes of a code space are used. published, reserved, wasted and free
 * are together the capacity.
 */
typedef struct jitfd_space_stats {
  /**
   * In: sizeof(struct jitfd_space_stats).
   */
  size_t size;
  /**
   * Regions there are.
   */
  uint64_t regions;
  /**
   * Functions published.
   */
  uint64_t functions;
  /**
   * The capacity of all regions, in bytes.
   */
  uint64_t capacity;
  /**
   * Bytes of code and data that were published.
   */
  uint64_t published;
  /**
   * Bytes reserved and not published (yet).
   */
  uint64_t reserved;
  /**
   * Bytes skipped, given up, or at the start of a region.
   */
  uint64_t wasted;
  /**
   * Bytes behind the last function of each region.
   */
  uint64_t free;
} jitfd_space_stats;

/**
 * One field of an item that depends on addresses. CPUs count a branch from the
 * instruction behind it, so the addend of one that ends with its field is -4.
 */
typedef struct jitfd_reloc {
  /**
   * Where the field begins, in bytes from the start of the item.
   */
  size_t at;
  /**
   * One of JITFD_RELOC_.
   */
  uint32_t kind;
  /**
   * JITFD_RELOC_TO_ITEM, or 0 if the target is an address.
   */
  uint32_t flags;
  /**
   * What the field refers to.
   */
  size_t target;
  /**
   * Is added to the target's address.
   */
  int64_t addend;
} jitfd_reloc;

/**
 * One function, or constant, of several that are published as one.
 */
typedef struct jitfd_item {
  /**
   * The name under which it is found, in UTF-8; or null.
   */
  const char *name;
  /**
   * Its bytes. What the fields of its records hold does not matter.
   */
  const void *bytes;
  /**
   * The number of bytes, at least 1.
   */
  size_t len;
  /**
   * A power of two up to 4096; 0 is 16.
   */
  size_t align;
  /**
   * The ranges that are data.
   */
  const struct jitfd_range *data;
  /**
   * How many ranges there are.
   */
  size_t data_count;
  /**
   * The fields that depend on addresses.
   */
  const struct jitfd_reloc *relocs;
  /**
   * How many there are.
   */
  size_t reloc_count;
  /**
   * 0.
   */
  size_t reserved[2];
} jitfd_item;

/**
 * An unwind table in the format of .eh_frame, with the zero at its end: to be
 * registered (jitfd_eh_frame_register), or given to jitfd_gdb_register.
 */
typedef struct jitfd_eh_frame {
  /**
   * Its bytes.
   */
  const void *bytes;
  /**
   * How many there are.
   */
  size_t len;
} jitfd_eh_frame;

/**
 * One step in the description of a function's frame: what is different from some
 * instruction on. Fields that a kind does not use are 0. This struct does not
 * grow.
 */
typedef struct jitfd_frame_step {
  /**
   * From where on, in bytes from the start of the function.
   */
  size_t at;
  /**
   * One of JITFD_FRAME_.
   */
  uint32_t kind;
  /**
   * JITFD_REG_RBX, RBP, RSP or R12 to R15.
   */
  uint32_t reg;
  /**
   * In bytes.
   */
  uint32_t offset;
  /**
   * 0.
   */
  uint32_t reserved;
} jitfd_frame_step;

/**
 * One function of an unwind table: where it is, and how its caller is found. This
 * struct does not grow.
 */
typedef struct jitfd_frame {
  /**
   * The address of its first byte.
   */
  const void *address;
  /**
   * The number of bytes.
   */
  size_t len;
  /**
   * What is different from where on, in ascending order. None, for a function that
   * leaves rsp where it is.
   */
  const struct jitfd_frame_step *steps;
  /**
   * How many steps there are.
   */
  size_t step_count;
} jitfd_frame;

/**
 * How a table is made. All zero but for the size: by what the process allows, 1024
 * trampolines to a copy.
 */
typedef struct jitfd_table_options {
  /**
   * sizeof(struct jitfd_table_options).
   */
  size_t size;
  /**
   * JITFD_TABLE_DEBUGGERS.
   */
  uint32_t flags;
  /**
   * One of JITFD_FALLBACK_; 0 is as the process allows.
   */
  uint32_t fallback;
  /**
   * How many trampolines a copy of the code has: a power of two between 256 and
   * 65536, the next one is taken. 0 for 1024. A copy needs two mappings.
   */
  size_t copy_capacity;
} jitfd_table_options;

/**
 * A function of any type; cast it to its own.
 */
typedef void (*jitfd_function)(void);

/**
 * What a table has.
 */
typedef struct jitfd_table_stats {
  /**
   * In: sizeof(struct jitfd_table_stats).
   */
  size_t size;
  /**
   * Trampolines in use, and those that threads keep for their next ones.
   */
  uint64_t taken;
  /**
   * The mapped copies of the code.
   */
  uint64_t copies;
  /**
   * Trampolines in one copy.
   */
  uint64_t copy_capacity;
  /**
   * Bytes of code: once, or with mprotect flips for each copy.
   */
  uint64_t code_bytes;
  /**
   * Bytes of data in all copies, allocated page by page when first used.
   */
  uint64_t data_bytes;
  /**
   * What makes its code executable: one of JITFD_BACKEND_.
   */
  uint64_t backend;
} jitfd_table_stats;

/**
 * A register, and what it is set to. This struct does not grow.
 */
typedef struct jitfd_register_value {
  /**
   * The value.
   */
  uint64_t value;
  /**
   * One of JITFD_REG_.
   */
  uint32_t reg;
  /**
   * 0.
   */
  uint32_t reserved;
} jitfd_register_value;

/**
 * Code that sets general registers, pushes values, and goes to a target. All else, the
 * flags included, is as its caller left it.
 */
typedef struct jitfd_thunk {
  /**
   * sizeof(struct jitfd_thunk).
   */
  size_t size;
  /**
   * Where it goes.
   */
  jitfd_function target;
  /**
   * The registers that it sets; the last value of each counts.
   */
  const struct jitfd_register_value *registers;
  /**
   * How many there are.
   */
  size_t register_count;
  /**
   * What it pushes; the last one is at [rsp] when the target is entered. A target must
   * take them off before it returns.
   */
  const uint64_t *pushes;
  /**
   * How many there are.
   */
  size_t push_count;
} jitfd_thunk;

/**
 * What a function was called with, whatever its type, and what it is to return. It
 * may grow at its end.
 */
typedef struct jitfd_registers {
  /**
   * rdi, rsi, rdx, rcx, r8, r9: the first integers and pointers.
   */
  uint64_t integers[6];
  /**
   * xmm0 to xmm7, two halves each, the lower one first: the first floating point
   * numbers.
   */
  uint64_t vectors[8][2];
  /**
   * The other arguments, of 8 bytes or a multiple of that each.
   */
  const uint64_t *stack;
  /**
   * Of a variadic function: how many of the vectors are used at most.
   */
  uint64_t vector_count;
  /**
   * Out: rax and rdx, for an integer, a pointer or two of them. At first 0.
   */
  uint64_t returned[2];
  /**
   * Out: xmm0 and xmm1. At first 0.
   */
  uint64_t returned_vectors[2][2];
} jitfd_registers;

/**
 * Sees the registers of a call, and sets what it returns. By any thread that calls;
 * may throw C++ exceptions.
 */
typedef void (*jitfd_closure_handler)(struct jitfd_registers *registers, void *data);

/**
 * The registers as they were when a save-all trampoline was called, and as they will be
 * when it returns. The other parts of the vector and x87 state are kept, but not shown.
 * It may grow at its end.
 */
typedef struct jitfd_saved_registers {
  /**
   * The general registers, by their number: general[JITFD_REG_RAX]. That of rsp is
   * where the return address is; a change of it is not taken.
   */
  uint64_t general[16];
  /**
   * The lower 128 bits of xmm0 to xmm15, two halves each, the lower one first.
   */
  uint64_t vectors[16][2];
  /**
   * rflags. A caller expects the direction flag to be 0.
   */
  uint64_t flags;
  /**
   * In: where the trampoline returns to.
   */
  void *return_address;
  /**
   * In: the trampoline that was called.
   */
  jitfd_function trampoline;
  /**
   * Out: where it goes when the handler has returned: to a function, as if its caller
   * had called that; or back to the caller if it stays null.
   */
  jitfd_function jump;
} jitfd_saved_registers;

/**
 * Reads and changes the registers of whoever has called a save-all trampoline. The
 * caller, or where it jumps, must expect what is changed. By any thread that calls; may
 * throw C++ exceptions, and no change counts then.
 */
typedef void (*jitfd_save_all_handler)(struct jitfd_saved_registers *saved, void *data);

/**
 * One rule of the system, in words.
 */
typedef struct jitfd_finding {
  /**
   * What it is about, such as "module".
   */
  const char *subject;
  /**
   * One line.
   */
  const char *text;
  /**
   * One of JITFD_VERDICT_.
   */
  uint32_t verdict;
  /**
   * The backends that it refuses or may refuse: of each the bit
   * 1 << JITFD_BACKEND_.
   */
  uint32_t backends;
} jitfd_finding;

/**
 * How the attempt to use a backend ended.
 */
typedef struct jitfd_trial {
  /**
   * One of JITFD_BACKEND_.
   */
  int backend;
  /**
   * 1 if it works, else 0.
   */
  uint32_t works;
  /**
   * In one line: "works", or what went wrong.
   */
  const char *text;
} jitfd_trial;

/**
 * What this system allows this process, and what refuses the rest. It never changes,
 * and all that it points to is valid as long as it is not given back.
 */
typedef struct jitfd_probe {
  /**
   * The system's rules.
   */
  const struct jitfd_finding *findings;
  /**
   * How many there are.
   */
  size_t finding_count;
  /**
   * The backends, the best one first: a program gets the first one that works and
   * that it allows.
   */
  const struct jitfd_trial *trials;
  /**
   * How many there are.
   */
  size_t trial_count;
} jitfd_probe;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/**
 * What went wrong in the last call of this thread that failed, in words: which
 * call, why, and what to do. Empty if none has failed.
 *
 * The text is valid until the next failing call of this thread.
 */
const char *jitfd_error(void);

/**
 * The version of the library, as text: "0.1.0".
 */
const char *jitfd_version(void);

/**
 * Where and why code was refused, if that is what the last call of this thread that
 * failed has failed for (errno EILSEQ, EOVERFLOW, or EINVAL for the chunk as a whole);
 * else null.
 *
 * It is valid until the next failing call of this thread.
 */
const struct jitfd_code_error *jitfd_get_code_error(void);

/**
 * Says once for the whole process what is done where there is no /dev/jit: one of
 * JITFD_FALLBACK_ but JITFD_FALLBACK_DEFAULT. It holds from now on for
 * jit_create_code, and wherever a fallback is 0 or options are null. At first it is
 * JITFD_FALLBACK_NEVER.
 *
 * Returns 0, or -1 with errno EINVAL if there is no such fallback.
 */
int jitfd_allow_fallback(uint32_t fallback);

/**
 * What makes code executable in this process where one of JITFD_FALLBACK_ is allowed:
 * one of JITFD_BACKEND_. The first call that makes code for that fallback finds it out,
 * by making some, and it stays so.
 *
 * Returns -1 with errno as jit_create_code, if nothing does; jitfd_error says what
 * refuses each backend.
 */
int jitfd_backend(uint32_t fallback);

/**
 * The name of one of JITFD_BACKEND_, for messages.
 *
 * Returns null with errno EINVAL if there is no such backend.
 */
const char *jitfd_backend_name(int backend);

/**
 * Has hook called once in the life of the process, when a fallback makes code
 * for the first time; without a hook a line is written to standard error. It
 * runs in the thread that makes the code, must return, and the text is valid
 * until then.
 *
 * Returns 0, or -1 with errno EBUSY if there is a hook already; EINVAL if hook
 * is null.
 */
int jitfd_set_fallback_hook(jitfd_fallback_hook hook);

/**
 * A new mapping that holds exactly len bytes of code from source, readable and
 * executable, never writable. The rest of the last page is 0xCC.
 *
 * A copy of the code is checked as by jitfd_validate without rules, and that
 * copy is published. For code with data, or to go around the check, make a
 * chunk and use jitfd_create_code.
 *
 * It ends with munmap(code, len), or jit_destroy_code, which is the same.
 *
 * Returns null with errno EILSEQ if the code is refused; EINVAL for a null
 * source or a length of 0 or above 1 GiB; ENOENT if the module is not loaded;
 * EACCES if a file mode or policy forbids it; EPERM if /dev is mounted noexec;
 * ENOMEM; EDQUOT at the user's bound; EMFILE or ENFILE if the first call can't
 * open the device. If fallbacks are allowed and refused too, the errno is that of
 * the device, and jitfd_error has all of them.
 */
void *jit_create_code(const void *source, size_t len);

/**
 * Unmaps code of jit_create_code or jitfd_create_code. len is its length.
 *
 * As munmap it knows pages, not code: whatever is mapped there goes, and where
 * nothing is, a second time for instance, it returns 0.
 *
 * Returns 0, or -1 with errno EINVAL if code is null or not the start of a page of
 * user space, or len is 0.
 */
int jit_destroy_code(void *code, size_t len);

/**
 * As jit_create_code, with a chunk, and one of JITFD_FALLBACK_: 0 is as the process
 * allows.
 *
 * Returns null with errno as jit_create_code, but never EILSEQ; EINVAL also if there
 * is no such fallback.
 */
void *jitfd_create_code(const struct jitfd_chunk *chunk, uint32_t fallback);

/**
 * Replaces the pages at address by a chunk, in one step: for engines that write
 * code at the address at which they will execute it. The pages are the caller's
 * private memory, and no thread uses them meanwhile; the rest of the last one
 * becomes 0xCC. They stay the caller's to unmap.
 *
 * Returns 0, or -1 with errno as jitfd_create_code, and EINVAL also if address
 * is not the start of a page or some page is neither private memory nor earlier
 * code (only the kernel checks that). The pages are unchanged then.
 */
int jitfd_create_code_at(const struct jitfd_chunk *chunk,
                         void *address,
                         uint32_t fallback);

/**
 * Makes the pages from address on code, as they are: for engines with a hook that is
 * told where its code lies, but not what of it is data. It is mprotect to PROT_READ |
 * PROT_EXEC where that is refused. All pages with one of the len bytes keep all their
 * bytes; nothing is validated. The pages are the caller's private memory, readable, and
 * no thread uses them meanwhile. A len of 0 does nothing.
 *
 * Returns 0, or -1 with errno as jitfd_create_code_at. The pages are unchanged then.
 */
int jitfd_make_executable(void *address, size_t len, uint32_t fallback);

/**
 * The way back: makes the pages from address on ordinary memory with the same bytes,
 * which can be written and not executed, in one step. The pages are of
 * jitfd_make_executable, jitfd_create_code_at or private memory, and no thread uses them
 * meanwhile. A len of 0 does nothing.
 *
 * Returns 0, or -1 with errno EINVAL if address is not the start of a page, or ENOMEM.
 * The pages are unchanged then.
 */
int jitfd_make_writable(void *address, size_t len, uint32_t fallback);

/**
 * Checks a copy of the code and keeps that copy: what was checked is what is
 * published, whoever writes to the source meanwhile.
 *
 * A chunk passes if every byte of it belongs to a complete, valid instruction
 * or to declared data, if it ends where one of these ends, and if direct
 * branches inside it go to instructions. rules can tighten that. Branches that
 * leave the chunk are checked when it is published in a region.
 *
 * rules may be null. Give the chunk back with jitfd_chunk_destroy.
 *
 * Returns null with errno EILSEQ if an instruction is refused, EINVAL for a length
 * of 0 or above 1 GiB or a bad data range: jitfd_get_code_error tells where and why.
 * EINVAL also for a null source, a bad align, flag or size; E2BIG if rules asks for
 * what this version does not have; ENOMEM.
 */
struct jitfd_chunk *jitfd_validate(const void *source,
                                   size_t len,
                                   const struct jitfd_rules *rules);

/**
 * Takes a copy of the code as valid without looking at it: this bypasses
 * validation. The caller vouches for all that jitfd_validate checks, and that
 * rules name every byte of data that the code loads.
 *
 * Returns null with errno as jitfd_validate; give the chunk back with
 * jitfd_chunk_destroy.
 */
struct jitfd_chunk *jitfd_assume_valid(const void *source,
                                       size_t len,
                                       const struct jitfd_rules *rules);

/**
 * Gives a chunk back. What was published of it stays. Null is allowed.
 */
void jitfd_chunk_destroy(struct jitfd_chunk *chunk);

/**
 * Stores what a chunk is.
 *
 * Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
 */
int jitfd_chunk_get_info(const struct jitfd_chunk *chunk, struct jitfd_chunk_info *info);

/**
 * What is at an offset of a chunk, in bytes from its start: JITFD_CHUNK_INSTRUCTION
 * and JITFD_CHUNK_ENTRY, or 0, in the middle of an instruction, in data or beyond the
 * end.
 *
 * Returns -1 with errno EINVAL if chunk is null.
 */
int jitfd_chunk_at(const struct jitfd_chunk *chunk, size_t offset);

/**
 * How many bytes of NOPs an instruction of len bytes needs before it at an offset, in
 * bytes from the start of the code, so that it does not cross a border of 64 bytes, as
 * JITFD_RULE_WITHIN_LINES demands. The code begins at such a border.
 */
size_t jitfd_line_padding(size_t offset, size_t len);

/**
 * Fills len bytes of code that is being written, from an offset on, with the longest
 * NOPs that do not cross a border of 64 bytes themselves: before an instruction
 * (jitfd_line_padding), or up to an aligned label. The code has room for them.
 *
 * Returns 0, or -1 with errno EINVAL if code is null, or offset + len overflows.
 */
int jitfd_line_nops(void *code, size_t offset, size_t len);

/**
 * Creates a region of capacity bytes, rounded up to whole pages and at most
 * 1 GiB, and maps it. Memory is used only for what is published. options may be
 * null. Give the region back with jitfd_region_destroy or jitfd_region_split.
 *
 * Returns null with errno EINVAL for a bad capacity, flag, fallback or size; E2BIG if
 * options asks for what this version does not have; ENOENT if the module is not
 * loaded; EACCES if a file mode or policy forbids it; EPERM if /dev is mounted noexec;
 * ENOMEM, also if there is no room close enough; EDQUOT at the user's bound; EMFILE or
 * ENFILE; EOPNOTSUPP if a fallback can't do what the flags ask for.
 */
struct jitfd_region *jitfd_region_create(size_t capacity,
                                         const struct jitfd_region_options *options);

/**
 * Takes over descriptors of a region that were received from another process: of its
 * map_fd and its append_fd (jitfd_region_get_info), or -1 for one that there is not.
 * Nothing is mapped: jitfd_region_map. Branches between chunks are not checked: only
 * the whole region knows what was published before. A descriptor of something else is
 * found out by the first call that uses it. Give the object back with
 * jitfd_region_destroy, which closes the descriptors.
 *
 * Returns null with errno EBADF if one of them is closed, or there is none; they are
 * the caller's then.
 */
struct jitfd_region *jitfd_region_open(int map_fd, int append_fd);

/**
 * Gives a region, or a part of one, back: unmaps what it maps, and closes its
 * descriptors. No thread executes that code or uses the object any more. Null is
 * allowed.
 */
void jitfd_region_destroy(struct jitfd_region *region);

/**
 * Stores what a region, or a part of one, is in this process.
 *
 * Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
 */
int jitfd_region_get_info(const struct jitfd_region *region,
                          struct jitfd_region_info *info);

/**
 * Publishes a chunk behind what is there, at its alignment. When the call
 * returns it is executable in every thread and process that maps the region.
 * place may be null.
 *
 * Returns 0, or -1 with errno EILSEQ if a branch between chunks does not go to
 * an instruction; ENOSPC if it does not fit; EROFS if the region is sealed;
 * EPERM in a process that may not publish; EBADF without the right to publish; ENOTTY
 * if the append descriptor is of something else; ESTALE if other holders of that were
 * always faster; EDQUOT at the user's bound; ENOMEM; EINVAL for a null pointer.
 * Nothing is published then.
 */
int jitfd_region_publish(struct jitfd_region *region,
                         const struct jitfd_chunk *chunk,
                         struct jitfd_place *place);

/**
 * Publishes up to 1024 chunks by one call, in order, all or none. places has
 * room for count of them, or is null. No chunk at all is no error.
 *
 * Returns 0, or -1 with errno as jitfd_region_publish, and EINVAL for more than 1024.
 */
int jitfd_region_publish_all(struct jitfd_region *region,
                             const struct jitfd_chunk *const *chunks,
                             size_t count,
                             struct jitfd_place *places);

/**
 * Publishes what emit makes for the place that it is told, a multiple of align_bytes (a
 * power of two up to 4096). If somebody else publishes there meanwhile, emit is called
 * again, with another place. Stores where the chunk lies, unless place is null.
 *
 * Returns 0, or -1 with errno as jitfd_region_publish; what emit has left there, if it
 * returns null (ECANCELED if that is 0); EINVAL also for a bad align, or one below 64 for a
 * chunk with JITFD_RULE_WITHIN_LINES.
 */
int jitfd_region_publish_with(struct jitfd_region *region,
                              size_t align_bytes,
                              jitfd_emitter emit,
                              void *data,
                              struct jitfd_place *place);

/**
 * Sets len bytes aside, at a multiple of align_bytes (a power of two up to
 * 4096). Their address is known before the code for them is made. Executing
 * them before they are filled raises a signal: SIGTRAP, or on a page without
 * any code SIGBUS (SIGTRAP or SIGSEGV with a fallback).
 *
 * Returns 0, or -1 with errno ENOSPC, EROFS, EPERM, EBADF, ENOTTY or ENOMEM as
 * jitfd_region_publish; EINVAL for a null pointer, a len of 0 or a bad align.
 */
int jitfd_region_reserve(struct jitfd_region *region,
                         size_t len,
                         size_t align_bytes,
                         struct jitfd_place *place);

/**
 * Publishes a chunk skip bytes behind the start of a reserved range, which is as
 * jitfd_region_reserve has stored it. Each byte can be filled once. place, where the
 * chunk is put, may be null. The range has the alignment that it was reserved
 * with; the chunk's is checked only with JITFD_RULE_WITHIN_LINES.
 *
 * Returns 0, or -1 with errno EINVAL if the chunk is longer than the rest of
 * the range, the range is of another region, or a pointer is null; EEXIST if a
 * byte is not reserved or was filled before; EILSEQ, EROFS, EPERM, EBADF, ENOTTY,
 * EDQUOT or ENOMEM as jitfd_region_publish. Nothing is published then.
 */
int jitfd_region_fill(struct jitfd_region *region,
                      const struct jitfd_place *reserved,
                      size_t skip,
                      const struct jitfd_chunk *chunk,
                      struct jitfd_place *place);

/**
 * Ends all publication into the region, by anybody, for good. What is
 * published stays. Sealing twice is no error.
 *
 * Returns 0, or -1 with errno EPERM in a process that may not publish; EBADF or ENOTTY
 * as jitfd_region_publish; EINVAL if region is null.
 */
int jitfd_region_seal(struct jitfd_region *region);

/**
 * Stores the counters of a region.
 *
 * Returns 0, or -1 with errno EBADF of an object that is only a mapping; ENODATA or
 * ENOTTY if the descriptor is of no region; EINVAL for a null pointer or a bad size.
 */
int jitfd_region_get_stats(const struct jitfd_region *region, struct jitfd_stats *stats);

/**
 * After fork(), in the child: makes the region the child's own, a copy of the
 * parent's as it is now (with a fallback: as it was at the fork()), at the same
 * addresses. Both go on publishing, each into its own. Without it the child
 * executes what its parent has published and publishes, and is refused to publish
 * itself (EPERM). The copy is not sealed, its counters start at 0, and only the
 * child may publish in it. In the process that made the region the call does the
 * same. The descriptors are those of the copy from now on; further mappings stay the
 * parent's. Branches to what the parent has published since the fork() are not
 * checked.
 *
 * Returns 0, or -1 with errno EINVAL if another thread was publishing in the
 * region at the fork(), or region is null; EBADF if it is only a part; else as
 * jitfd_region_create. The region is as it was then.
 */
int jitfd_region_adopt(struct jitfd_region *region);

/**
 * Takes a whole region apart, to give its parts to different owners: the code as it is
 * mapped, the right to map it, and the right to publish in it. The region is given
 * back. Each of the three pointers may be null: nobody has that part from now on; what
 * was mapped is unmapped, if it is that.
 *
 * Returns 0, or -1 with errno EINVAL if region is null, EBADF if it is only a part;
 * nothing has changed then.
 */
int jitfd_region_split(struct jitfd_region *region,
                       struct jitfd_region **mapping,
                       struct jitfd_region **mapper,
                       struct jitfd_region **publisher);

/**
 * Maps the first len bytes of the region, readable and executable, once more: at an
 * address of its own (with mprotect flips it is the same). The object that is returned
 * is that mapping and nothing else. Give it back with jitfd_region_destroy.
 *
 * Returns null with errno ENODATA, ENODEV or EPERM if the descriptor is of no
 * region; EBADF without the right to map; EINVAL if len is 0 or exceeds the region, or
 * region is null; EACCES if a policy forbids it; EPERM if /dev is mounted noexec; ENOMEM.
 */
struct jitfd_region *jitfd_region_map(const struct jitfd_region *region, size_t len);

/**
 * Makes a region that is a copy of this one: its capacity, code, cursor and
 * unfilled reservations; not sealed, with counters of 0. Memory is shared until
 * one of the two publishes. flags is JITFD_REGION_ANY_PROCESS or 0. The object that is
 * returned may map and publish, as that of jitfd_region_open. Code that refers to itself
 * by address is right only where the source is mapped. Give it back with
 * jitfd_region_destroy.
 *
 * Returns null with errno as jitfd_region_create; EBADF without the right to map;
 * ENODATA or ENOTTY if the descriptor is of no region; EOPNOTSUPP if it is a fallback's.
 */
struct jitfd_region *jitfd_region_clone(const struct jitfd_region *region,
                                        uint32_t flags);

/**
 * Makes a code space with one region. options may be null. Give it back with
 * jitfd_space_destroy.
 *
 * Returns null with errno as jitfd_region_create; or that of a file for tools that
 * can't be made, such as EEXIST, EACCES or ENOENT.
 */
struct jitfd_space *jitfd_space_create(const struct jitfd_space_options *options);

/**
 * Unmaps a code space. No thread executes its code or uses it any more. Slots
 * that were not filled are to be abandoned before. Null is allowed.
 */
void jitfd_space_destroy(struct jitfd_space *space);

/**
 * Publishes a chunk under a name in UTF-8, or null, and stores its address, unless
 * that is null.
 *
 * Returns 0, or -1 with errno as jitfd_region_publish and, if the space has to grow, as
 * jitfd_region_create; ENOSPC if the space has reached its bound.
 */
int jitfd_space_publish(struct jitfd_space *space,
                        const char *name,
                        const struct jitfd_chunk *chunk,
                        void **address);

/**
 * Publishes up to 1024 chunks next to each other, all or none. names has count of
 * them, each of which may be null, or is null; addresses has room for count of
 * them, or is null.
 *
 * Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also for more than
 * 1024.
 */
int jitfd_space_publish_all(struct jitfd_space *space,
                            const char *const *names,
                            const struct jitfd_chunk *const *chunks,
                            size_t count,
                            void **addresses);

/**
 * Sets room aside, and stores its address, unless that is null. The slot that is
 * returned is given back by jitfd_space_fill or jitfd_space_abandon.
 *
 * Returns null with errno as jitfd_space_publish.
 */
struct jitfd_slot *jitfd_space_reserve(struct jitfd_space *space,
                                       const struct jitfd_request *request,
                                       void **address);

/**
 * Publishes a chunk at the start of a slot, and gives the slot back. What the
 * chunk does not need remains trap bytes.
 *
 * Returns 0, or -1 with errno as jitfd_region_fill; the slot can be filled by another
 * try, or abandoned, then.
 */
int jitfd_space_fill(struct jitfd_space *space,
                     struct jitfd_slot *slot,
                     const struct jitfd_chunk *chunk);

/**
 * Gives a slot back that will not be filled. Its room is not used again. Null
 * is allowed for the slot.
 */
void jitfd_space_abandon(struct jitfd_space *space, struct jitfd_slot *slot);

/**
 * After fork(), in the child: makes the space the child's own, a copy of the
 * parent's at the same addresses, as jitfd_region_adopt does with each of its regions.
 * Without it a child is refused to publish (EPERM). The listener is called in the
 * child for what the child publishes; a perf map or a dump is a file of the
 * child's own then. If the parent has several threads, call it before anything
 * else in the child, and fork while none of them publishes: under a lock of the
 * program's own that compilers hold while they publish (pthread_atfork can take it).
 *
 * Returns 0, or -1 with errno EINVAL if another thread was publishing in the space
 * at the fork(), or space is null; else as jitfd_space_create. The child can't
 * publish then.
 */
int jitfd_space_adopt(struct jitfd_space *space);

/**
 * Publishes len bytes of code that works at the address from, changed so that it
 * works where it comes to lie. The length in request is not used. Stores the
 * address, unless that is null.
 *
 * Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also if the code is
 * not whole, valid instructions, or can't be moved.
 */
int jitfd_space_publish_moved(struct jitfd_space *space,
                              const struct jitfd_request *request,
                              const void *source,
                              size_t len,
                              const void *from,
                              void **address);

/**
 * The function that an address lies in. Takes no lock and allocates nothing, so it
 * may be called by a signal handler, with pointers that are not null. A return
 * address lies behind its call: look up the address minus 1.
 *
 * Returns 1 and stores the function, 0 if there is none, or -1 with errno EINVAL
 * for a null pointer.
 */
int jitfd_space_lookup(const struct jitfd_space *space,
                       const void *address,
                       struct jitfd_symbol *symbol);

/**
 * Stores the published functions, count of them at most, those of one region by
 * ascending address; and how many there are. symbols may be null if count is 0.
 * While other threads publish there may be more by the next call.
 *
 * Returns 0, or -1 with errno EINVAL for a null pointer.
 */
int jitfd_space_symbols(const struct jitfd_space *space,
                        struct jitfd_symbol *symbols,
                        size_t count,
                        size_t *total);

/**
 * Stores how the bytes of a code space are used.
 *
 * Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
 */
int jitfd_space_get_stats(const struct jitfd_space *space,
                          struct jitfd_space_stats *stats);

/**
 * Publishes items that refer to each other as one, relocated for the addresses
 * they get, and stores these. addresses has room for count of them, or is null.
 *
 * Returns 0, or -1 with errno as jitfd_space_publish; EOVERFLOW if a field can't
 * hold what it refers to, is not inside its item or overlaps another; EILSEQ if the
 * relocated code is refused, or an item has data that is not inside of it or ends
 * inside an instruction; EINVAL also if an item is empty, has a reserved field that is not 0,
 * or a bad align, or there is no item. Nothing is published then.
 */
int jitfd_space_link(struct jitfd_space *space,
                     const struct jitfd_item *items,
                     size_t count,
                     void **addresses);

/**
 * Makes the unwind table of functions: one for many, not one for each. Give it back
 * with jitfd_eh_frame_destroy; what was registered stays so.
 *
 * Returns null with errno EINVAL for a step that makes no sense, a null pointer, a
 * len of 0, or a function that goes beyond the last address; ENOMEM.
 */
struct jitfd_eh_frame *jitfd_eh_frame_create(const struct jitfd_frame *functions,
                                             size_t count);

/**
 * Gives a table back; what was registered stays so. Null is allowed.
 */
void jitfd_eh_frame_destroy(struct jitfd_eh_frame *table);

/**
 * Has exceptions and backtraces of this program find their way by the len bytes of
 * an .eh_frame section with its zero at the end: those of a jitfd_eh_frame, or the
 * compiler's own. It is copied, so all addresses in it must be absolute
 * (__register_frame takes one that is relative to its place). Register one table
 * for many functions, not one for each. Take it back with jitfd_unregister, before the
 * code ends. What it says must be true of the code that is there.
 *
 * Returns null with errno EINVAL for a null pointer, or if the records do not follow
 * each other up to a zero of four bytes that is the end of the bytes, one is in
 * DWARF's 64-bit form, or a function's does not refer to a common one before it; or
 * ENOMEM.
 */
struct jitfd_registration *jitfd_eh_frame_register(const void *bytes, size_t len);

/**
 * Tells gdb of functions that were published, also if it attaches later: their names in
 * UTF-8, which may be null, addresses and lengths; and eh_frame_len bytes of an unwind
 * table about them with absolute addresses (those of a jitfd_eh_frame), or null and 0.
 * All is copied but the code. Take it back with jitfd_unregister.
 *
 * With a debugger attached each registration stops the program for a moment: a program
 * does well to do it on demand only. JITFD_SPACE_GDB does it for all code of a code
 * space.
 *
 * Returns null with errno EINVAL if there are no functions, one has no bytes,
 * a name is not UTF-8, or for a null pointer.
 */
struct jitfd_registration *jitfd_gdb_register(const struct jitfd_symbol *functions,
                                              size_t count,
                                              const void *eh_frame,
                                              size_t eh_frame_len);

/**
 * Takes back what was registered: the unwinder or debugger forgets it. Null is allowed.
 */
void jitfd_unregister(struct jitfd_registration *registration);

/**
 * Makes a table whose trampolines carry their context in a register:
 * JITFD_REG_RDI, RSI, RDX, RCX, R8 or R9, those of the first to the sixth integer
 * argument, of which callers pass as many as come before it; or JITFD_REG_R10, the
 * static chain, for targets that expect it there, as GCC's nested functions do. options
 * may be null. Give the table back with jitfd_table_destroy.
 *
 * Returns null with errno as jitfd_region_create; EINVAL also if no context is carried
 * there.
 */
struct jitfd_table *jitfd_table_create(uint32_t context_register,
                                       const struct jitfd_table_options *options);

/**
 * Unmaps a table with all its trampolines, none of which may be called any more.
 * Null is allowed.
 */
void jitfd_table_destroy(struct jitfd_table *table);

/**
 * Makes a trampoline. A call of it is a call of the target, with the context in the
 * table's register: the target must be a function that takes it there. Mostly this is
 * no system call. Give it back with jitfd_table_release.
 *
 * Returns the trampoline, which is called as the target is but without the context;
 * or null with errno EINVAL for a null table or target, ENOMEM if there is no memory
 * or address space for a further copy, EACCES or EPERM if code may not be made any
 * more.
 */
jitfd_function jitfd_table_bind(struct jitfd_table *table,
                                jitfd_function target,
                                void *context);

/**
 * Frees a trampoline, which nobody calls from now on. Calls that have reached the
 * target are not concerned. A call that is made nevertheless ends with SIGTRAP as
 * long as the trampoline was not made anew. Null is allowed for the entry.
 *
 * Freeing one twice is an error of the program, as with free(). It changes nothing
 * as long as no trampoline was made anew in its place and its copy of the code is
 * mapped; two threads that free one at the same time are not found out. A pointer
 * that is none of this table's trampolines is not found out at all.
 */
void jitfd_table_release(struct jitfd_table *table, jitfd_function entry);

/**
 * Stores the context of a trampoline of this table that is in use.
 *
 * Returns 0, or -1 with errno EINVAL for a null pointer.
 */
int jitfd_table_context(const struct jitfd_table *table,
                        jitfd_function entry,
                        void **context);

/**
 * Stores what a table has at the moment.
 *
 * Returns 0, or -1 with errno EINVAL for a null pointer or a bad size.
 */
int jitfd_table_get_stats(const struct jitfd_table *table,
                          struct jitfd_table_stats *stats);

/**
 * Publishes a thunk in a code space, under a name in UTF-8, or null, and stores its
 * address. It stays as long as the space, and nothing can change what it sets.
 *
 * Returns 0, or -1 with errno as jitfd_space_publish; EINVAL also if there is no such
 * register, or there are too many pushes.
 */
int jitfd_space_publish_thunk(struct jitfd_space *space,
                              const char *name,
                              const struct jitfd_thunk *thunk,
                              jitfd_function *entry);

/**
 * Makes a function that calls handler with the registers it was called with, and
 * data; by what the process allows. Stores the function, which is valid until the
 * closure is given back: jitfd_closure_destroy.
 *
 * Returns null with errno as jitfd_table_create; EINVAL if handler or function is null.
 */
struct jitfd_closure *jitfd_closure_create(jitfd_closure_handler handler,
                                           void *data,
                                           jitfd_function *function);

/**
 * Gives a closure back, whose function nobody calls from now on, nor is in. Null is
 * allowed.
 */
void jitfd_closure_destroy(struct jitfd_closure *closure);

/**
 * Makes a save-all trampoline, by what the process allows. Stores the address to call,
 * which is valid until the trampoline is given back: jitfd_save_all_destroy.
 *
 * Returns null with errno as jitfd_table_create; EINVAL if handler or function is null.
 */
struct jitfd_save_all *jitfd_save_all_create(jitfd_save_all_handler handler,
                                             void *data,
                                             jitfd_function *function);

/**
 * Gives a save-all trampoline back, which nobody calls from now on, nor is in. Null is
 * allowed.
 */
void jitfd_save_all_destroy(struct jitfd_save_all *trampoline);

/**
 * As libffi's ffi_closure_alloc, for libffi 3.4 or newer: memory for an ffi_closure
 * of size bytes, and the address where its code will be, which is what
 * ffi_prep_closure_loc wants as codeloc. Give it back with jitfd_ffi_closure_free.
 * The first call sets up what they have in common, as jitfd_allow_fallback says.
 *
 * Returns null with errno as jitfd_region_create; EINVAL also if code is null or size is
 * less than 56, the size of an ffi_closure.
 */
void *jitfd_ffi_closure_alloc(size_t size, void **code);

/**
 * As libffi's ffi_closure_free: gives back what jitfd_ffi_closure_alloc has returned.
 * Nobody calls its code from now on. Null is allowed.
 */
void jitfd_ffi_closure_free(void *closure);

/**
 * Finds out what this system allows this process, and what refuses the rest. Each
 * backend is tried in a forked child, which takes some milliseconds. The result
 * holds for the process as it is now: give up rights first. Give it back with
 * jitfd_probe_destroy.
 *
 * Returns null with errno ENOTRECOVERABLE only.
 */
struct jitfd_probe *jitfd_probe_create(void);

/**
 * Gives a probe back. Null is allowed.
 */
void jitfd_probe_destroy(struct jitfd_probe *probe);

#ifdef __cplusplus
}  /* extern "C" */
#endif  /* __cplusplus */

#endif  /* JITFD_H */
