/* Maps and the kernel's helper functions, as bcc's translator wants them.  They stand in for bcc's own bpf.h and
 * helpers.h, which declare all that there is: bcc reads what it compiles three times, so that those took half of a
 * small compile (compiler.py keeps them out).
 *
 * Translated are calls of a map's members, and its members `key`, `leaf`, `max_entries` and `flags` are looked for by
 * name.  bcc also makes native functions that print and read the types of the first two members, which nothing here
 * calls: two numbers, since for key and value that takes as long again. */
#ifndef UNIXSOCK_BCC_H
#define UNIXSOCK_BCC_H

#include <linux/types.h>

#define BCC_SEC(name) __attribute__((section(name), used))

/* From linux/bpf.h, where the numbers never change. */
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_MMAPABLE 1024
#define BPF_F_RDONLY_PROG 128

#define BPF_F_TABLE(type, key_type, leaf_type, name, entries, map_flags)  \
	struct name##_table {                                             \
		u32 max_entries;                                          \
		int flags;                                                \
		key_type key;                                             \
		leaf_type leaf;                                           \
		leaf_type *(*lookup)(key_type *);                         \
		int (*update)(key_type *, leaf_type *);                   \
		int (*insert)(key_type *, leaf_type *);                   \
		int (*delete)(key_type *);                                \
		void (*call)(void *, int);                                \
	};                                                                \
	__attribute__((section("maps/" type))) struct name##_table name = { \
		.max_entries = (entries),                                 \
		.flags = (map_flags),                                     \
	}
#define BPF_TABLE(type, key_type, leaf_type, name, entries) BPF_F_TABLE(type, key_type, leaf_type, name, entries, 0)
#define BPF_ARRAY(name, leaf_type, entries) BPF_TABLE("array", int, leaf_type, name, entries)

/* A ring has no elements; `key` and `leaf` are what bcc wants a table to have. */
#define BPF_RINGBUF(name, bytes)                                              \
	struct name##_table {                                                 \
		u32 max_entries;                                              \
		int flags;                                                    \
		int key;                                                      \
		u32 leaf;                                                     \
		int (*ringbuf_output)(void *, u64, u64);                      \
		void *(*ringbuf_reserve)(u64);                                \
		void (*ringbuf_submit)(void *, u64);                          \
	};                                                                    \
	__attribute__((section("maps/ringbuf"))) struct name##_table name = { \
		.max_entries = (bytes),                                       \
	}

u64 bpf_pseudo_fd(u64, u64) asm("llvm.bpf.pseudo");

/* Helpers by the numbers that linux/bpf.h gives them for ever. */
static void *(*bpf_map_lookup_elem)(void *map, void *key) = (void *)1;
static int (*bpf_map_update_elem)(void *map, void *key, void *value, u64 flags) = (void *)2;
static int (*bpf_map_delete_elem)(void *map, void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static int (*bpf_tail_call)(void *ctx, void *map, int index) = (void *)12;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static int (*bpf_get_current_comm)(void *to, u32 size) = (void *)16;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static int (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static int (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static int (*bpf_ringbuf_copy)(void *ring, void *from, u64 size, u64 flags) = (void *)130; /* bpf_ringbuf_output */
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, u64 flags) = (void *)132;

/* A record of a ring whose size is no constant; what bpf_dynptr_data returns is as long as it was asked for. */
struct bpf_dynptr {
	u64 opaque[2];
} __attribute__((aligned(8)));
static long (*bpf_ringbuf_reserve_dynptr)(void *ring, u32 size, u64 flags, struct bpf_dynptr *to) = (void *)198;
static void (*bpf_ringbuf_submit_dynptr)(struct bpf_dynptr *record, u64 flags) = (void *)199;
static void (*bpf_ringbuf_discard_dynptr)(struct bpf_dynptr *record, u64 flags) = (void *)200;
static long (*bpf_dynptr_write)(struct bpf_dynptr *to, u32 offset, void *from, u32 size, u64 flags) = (void *)202;
static void *(*bpf_dynptr_data)(struct bpf_dynptr *of, u32 offset, u32 size) = (void *)203;

/* What bcc makes of tables' calls.  It knows none that reserves what is no constant: with RB_RESERVE for its flags, the
 * one that copies to a ring stands for that, and `from` is a struct bpf_dynptr. */
#define RB_RESERVE (1ull << 63)
static __always_inline int bpf_ringbuf_output(void *ring, void *from, u64 size, u64 flags)
{
	return flags == RB_RESERVE ? bpf_ringbuf_reserve_dynptr(ring, size, 0, from) :
				     bpf_ringbuf_copy(ring, from, size, flags);
}

static __always_inline void bpf_tail_call_(void *map, void *ctx, int index)
{
	bpf_tail_call(ctx, map, index);
}

#endif
