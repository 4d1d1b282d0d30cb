/* What the filter says: once for a socket and its process, and then for each message. */
#ifndef UNIXSOCK_VERDICT_H
#define UNIXSOCK_VERDICT_H

#include "filter/abi.h"

#define NAME_MOST 108 /* bytes of a name that the filter looks at */

static int (*ask_name)(struct name_question *) = (void *)CALL_answer_name;
static int (*ask_end)(struct end_question *) = (void *)CALL_answer_end;
static int (*ask_message)(struct message_question *) = (void *)CALL_answer_message;

/* 0: what was said of it still holds.  Without jumps, each of which the verifier would follow. */
static __always_inline u32 outdated(struct endpoint *ep, u32 generation)
{
	struct verdict *v = &ep->verdicts[generation & 1];
	return (v->generation ^ generation) | (v->socket_changes ^ ep->socket_changes) |
	       (v->owner_changes ^ ep->owner_changes);
}

/* Bits of the path terms that the names of both ends match.  The verifier follows each glob through each byte of
 * each name, so all names have to come to it alike: by one way, and from one place. */
static __always_inline void match_names(struct endpoint *ends[2], struct workspace *w)
{
	struct name_question q = { w->name, 0, &w->filter, 0 };

	w->atoms[0] = w->atoms[1] = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 4; i++) {
		struct endpoint *ep = ends[i >> 1];
		const u8 *name = ep->name;
		u64 len = ep->named ? ep->name_len : NAME_SIZE;
		if (!(i & 1)) {
			/* What comes after this makes another verdict. */
			w->socket_changes[i >> 1] = ep->socket_changes;
			w->owner_changes[i >> 1] = ep->owner_changes;
		} else {
			/* A relative name counts by its path as well. */
			struct place *place = ep->place ? places.lookup(&ep->place) : NULL;
			if (!place)
				continue;
			name = place->path;
			len = place->len;
		}
		if (len > NAME_MOST)
			continue;
		bpf_probe_read_kernel(w->name, sizeof(w->name), name);
		q.len = len;
		ask_name(&q);
		w->atoms[i >> 1] |= q.atoms;
	}
}

/* Puts into `ep`, the `i`th end, what the filter says of it by now. */
static __always_inline void judge(struct endpoint *ep, u32 i, struct workspace *w, u32 generation)
{
	struct verdict *v = &ep->verdicts[generation & 1];
	u32 pid = ep->pid, parent = ep->parent;
	ep->capturer = capturers.lookup(&pid) != NULL || capturers.lookup(&parent) != NULL;
	struct cgroup_line *line = cgroups.lookup(&ep->cgroup);
	if (!line)
		line = &w->no_cgroup;
	struct end_question end = {
		.comm = ep->owner ? ep->comm : NULL,
		.cgroups = line->ids,
		.work = &w->filter,
		.inode = ep->inode,
		.netns = ep->netns,
		.pid = pid,
		.uid = ep->uid,
	};
	ask_end(&end);
	v->socket_atoms = w->atoms[i] | end.socket_atoms;
	v->owner_atoms = end.owner_atoms;
	if (v->generation != generation)
		v->rejected_peer = 0;
	v->socket_changes = w->socket_changes[i];
	v->owner_changes = w->owner_changes[i];
	v->generation = generation;
}

/* Whether the filter lets this message through. */
static __always_inline bool wanted(volatile struct message *m, struct sides *sides, volatile struct call *call,
				   u32 fds, u32 creds, struct workspace *w, u32 generation)
{
	struct endpoint *src = sides->src, *dst = sides->dst;
	struct totals *t = get_totals();

	if (!t)
		return false;
	/* Before anything is looked at: a name that comes meanwhile makes what is decided here outdated. */
	u32 renames = *(volatile u64 *)&t->renames;
	u32 stale = outdated(src, generation);
	if (dst)
		stale |= outdated(dst, generation);
	if (stale) {
		/* Looked up anew, and what has no peer twice: the verifier would follow all this for each way to it. */
		u64 first = call->sk, second = call->other;
		if (!second)
			second = first;
		struct endpoint *ends[2] = { endpoints.lookup(&first), endpoints.lookup(&second) };
		if (!ends[0] || !ends[1])
			return false;
		match_names(ends, w);
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < 2; i++)
			judge(ends[i], i, w, generation);
		sides->src = src = ends[0];
		sides->dst = dst = call->other ? ends[1] : NULL;
	}
	struct verdict *from = &src->verdicts[generation & 1];
	struct verdict *to = dst ? &dst->verdicts[generation & 1] : &w->endpoint.verdicts[0]; /* all zero */
	struct message_question q = {
		.src = from->socket_atoms,
		.src_owner = from->owner_atoms,
		.dst = to->socket_atoms,
		.dst_owner = to->owner_atoms,
		.src_inode_known = src->inode != 0,
		.dst_inode_known = dst && dst->inode != 0,
		.two_ends = dst != NULL,
		.type = m->type,
		.event = m->event,
		.len = m->len,
		.fds = fds,
		.creds = creds,
	};
	int verdict = ask_message(&q);
	if (verdict == NEVER_WANTED) {
		from->rejected_at = renames;
		from->rejected_peer = call->other;
		/* Streams and seqpackets can have no other peer at this address. */
		if (dst && m->type == TYPE_DGRAM)
			dst->refused = 1;
		return false;
	}
#ifndef WITH_CAPTURERS
	if (src->capturer || (dst && dst->capturer))
		return false;
#endif
	return verdict == WANTED;
}

#endif
