// SPDX-License-Identifier: GPL-2.0-or-later
/* All that depends on the capture filter, whose functions come before this (filter/__init__.py).  The loader
 * puts these programs behind those of records.bpf.c, which call them. */
#include "kernel/bpf_helpers.h"
#include "filter/abi.h"

int answer_name(void *ctx)
{
	struct name_question *q = ctx;
	q->atoms = filter_name_atoms(q->name, q->len, q->work);
	return 0;
}

int answer_end(void *ctx)
{
	struct end_question *q = ctx;
	q->socket_atoms = filter_socket_atoms(q->inode, q->netns);
	q->owner_atoms = 0;
	if (q->comm)
		q->owner_atoms = filter_owner_atoms(q->pid, q->uid, q->comm, q->cgroups, q->work);
	return 0;
}

int answer_message(void *ctx)
{
	struct message_question *q = ctx;
#ifdef FILTER_ASKS_INODES
	u32 src_final = q->src_inode_known, dst_final = q->dst_inode_known;
#else
	u32 src_final = 1, dst_final = 1;
#endif
	if (q->two_ends && !filter_sockets(q->src, q->dst, q->type, src_final, dst_final))
		return NEVER_WANTED;
	return NOT_WANTED + filter_message(q->src, q->src_owner, q->dst, q->dst_owner, q->type, q->event, q->len,
					      q->fds, q->creds);
}
