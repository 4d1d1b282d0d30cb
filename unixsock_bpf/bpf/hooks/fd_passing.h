/* Finding out what passed descriptors refer to: see struct passed. */
#ifndef UNIXSOCK_PASSING_H
#define UNIXSOCK_PASSING_H

#include "records/fds.h"

/* Kinds of files that no directory has: by file system and, in anon_inodefs, by name. */
struct pseudo_file {
	u64 magic;
	u8 name[16];
};
BPF_TABLE("hash", struct pseudo_file, u32, pseudo_files, 64);

#define ANON_INODE_FS_MAGIC 0x09041934

/* By the four bits of i_mode that tell a file's type: S_IFIFO is 1, S_IFCHR 2, S_IFDIR 4, S_IFBLK 6,
 * S_IFREG 8, S_IFSOCK 12. */
#define KIND_OF_TYPE(mode)                                                                                \
	(((u64)FD_PIPE << 4 | (u64)FD_CHARDEV << 8 | (u64)FD_DIRECTORY << 16 | (u64)FD_BLOCKDEV << 24 |   \
	  (u64)FD_FILE << 32 | (u64)FD_SOCKET << 48) >> ((mode) >> 12 << 2) & 0xf)

BPF_ARRAY(no_passed, struct passed, 1); /* all zero */

/* The current process passes a socket's `file`: if it was the one that reads, another may go on with that. */
static __always_inline void pass_on(u64 file)
{
	u64 sk = LOAD(u64, LOAD(u64, file, FILE_PRIVATE), SOCKET_SK);
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep && ep->users[READER].tgid == bpf_get_current_pid_tgid() >> 32)
		ep->passed_on = 1;
}

static __always_inline void begin_descriptor(volatile struct passed *p)
{
	u64 file = LOAD(u64, p->list + FP_FILES, p->index * 8);
	u64 inode = LOAD(u64, file, FILE_INODE);
	u64 dentry = LOAD(u64, file, FILE_DENTRY);
	u64 name = LOAD(u64, dentry, DENTRY_NAME);
	u16 mode = LOAD(u16, inode, INODE_MODE);
	struct pseudo_file pseudo = { .magic = LOAD(u64, LOAD(u64, inode, INODE_SB), SB_MAGIC) };

	p->index++;
	p->walking = 1;
	p->inode = LOAD(u64, inode, INODE_INO);
	p->kind = KIND_OF_TYPE(mode);
	if (p->kind == FD_SOCKET)
		pass_on(file);
	begin_walk(&p->walk, LOAD(u64, file, FILE_MOUNT), p->steps < FD_STEPS_FOR_PATHS ? dentry : 0);
	p->anonymous = 0;
	bool deleted = !LOAD(u64, dentry, DENTRY_UNHASHED);
	if (LOAD(u64, dentry, DENTRY_PARENT) == dentry) {
		u64 start = 0;
		bpf_probe_read_kernel(&start, 6, (void *)name);
		if (pseudo.magic == ANON_INODE_FS_MAGIC) {
			p->anonymous = 1;
			p->kind = FD_ANON;
			bpf_probe_read_kernel_str(pseudo.name, sizeof(pseudo.name), (void *)name);
		}
		u32 *kind = pseudo_files.lookup(&pseudo);
		if (kind)
			p->kind = *kind;
		if (start == 0x3a64666d656d) { /* "memfd:" */
			p->kind = FD_MEMFD;
		} else {
			deleted = false;
			/* Their inode tells all. */
			if (kind && !p->anonymous)
				p->walk.dentry = 0;
		}
	}
	if (deleted && p->walk.dentry) {
		/* " (deleted)", as numbers: bcc loads no data section. */
		volatile u8 *text = &p->walk.text[PATH_ROOM - 10];
		p->walk.begin = PATH_ROOM - 10;
		*(volatile u64 *)text = 0x6574656c65642820;
		*(volatile u16 *)(text + 8) = 0x2964;
	}
}

/* The path is whole: puts it into the element, if there is room beside what the others need. */
static __always_inline void end_descriptor(volatile struct passed *p)
{
	/* The root has no name, and so no slash before it. */
	if (p->walk.begin == PATH_ROOM && p->kind == FD_DIRECTORY) {
		p->walk.begin = PATH_ROOM - 1;
		p->walk.text[PATH_ROOM - 1] = '/';
	}
	p->len = PATH_ROOM - p->walk.begin;
	if (p->anonymous && p->len && p->walk.begin > 10) {
		/* over the slash that stands there */
		u64 begin = p->walk.begin - 10;
		p->walk.begin = begin;
		p->len += 10;
		BOUND(begin, 0xfff);
		volatile u8 *text = p->walk.text + begin; /* "anon_inode:" */
		*(volatile u64 *)text = 0x6f6e695f6e6f6e61;
		*(volatile u16 *)(text + 8) = 0x6564;
		text[10] = ':';
	}
	if (p->walk.too_long || p->at + p->len + (p->count - p->index + 2) * FD_ELEMENT > ELEMENTS_ROOM)
		p->len = 0;
	u64 at = p->at, begin = p->walk.begin, len = p->len;
	p->walking = 0;
	p->at = at + ((FD_ELEMENT + len + 3) & ~3ull);
	BOUND(at, 0x1fff);
	BOUND(begin, 0xfff);
	BOUND(len, 0xfff);
	u8 *to = (u8 *)p->elements + at;
	*(u32 *)to = ELEMENT_FD | (u32)(FD_ELEMENT - 4 + len) << 16;
	*(u32 *)(to + 4) = p->kind;
	*(u32 *)(to + 8) = p->inode;
	*(u32 *)(to + 12) = p->inode >> 32;
	u64 end = at + FD_ELEMENT + len;
	BOUND(end, 0x3ffc);
	*(u32 *)((u8 *)p->elements + end) = 0;
	bpf_probe_read_kernel(to + FD_ELEMENT, len, (u8 *)p->walk.text + begin);
}

/* One step of what `thread` passes.  0: all is looked at. */
u64 passed_step(u64 thread)
{
	struct passed *p = passed.lookup(&thread);
	if (!p)
		return 0;
	if (!p->walking && p->index >= p->count) {
		p->complete = 1;
		return 0;
	}
	if (!p->walking) {
		begin_descriptor(p);
	} else if (p->walk.dentry) {
		p->steps++;
		walk_up(&p->walk);
	} else {
		end_descriptor(p);
	}
	return 1;
}

u64 passed_steps(u64 thread)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FD_STEPS; i++) {
		if (!call_passed_step(thread))
			return 0;
	}
	return 1;
}

/* `list`, a struct scm_fp_list, is to travel with what the current thread sends. */
static __always_inline bool take_passed(u64 list)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 zero = 0;
	struct passed *p = passed.lookup(&thread);

	if (!list || !running())
		return false;
	if (!p) {
		struct passed *none = no_passed.lookup(&zero);
		if (!none)
			return false;
		passed.update(&thread, none);
		p = passed.lookup(&thread);
		if (!p)
			return false;
	}
	p->list = list;
	p->first = LOAD(u64, list, FP_FILES);
	p->count = LOAD(u16, list, FP_COUNT);
	p->index = 0;
	p->at = 0;
	p->steps = 0;
	p->walking = 0;
	p->complete = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FD_ROUNDS; i++) {
		if (!call_passed_steps(thread))
			break;
	}
	return false;
}

static __always_inline bool on_passed(u64 list, u64 unused)
{
	return take_passed(list);
}

/* The end of a send with descriptors, or of a receive. */
static __always_inline bool on_passed_end(u64 scm, u64 unused)
{
	u64 thread = bpf_get_current_pid_tgid();
	passed.delete(&thread);
	return false;
}

/* The sender's control messages were read into the third argument. */
static __always_inline bool on_scm_sent(const struct arguments *args, int result)
{
	return take_passed(result ? 0 : LOAD(u64, args->third, SCM_FP));
}
#endif
