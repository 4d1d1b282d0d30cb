/* What the filter says: once for a socket and its process, and then for each message. */
#ifndef UNIXSOCK_VERDICT_H
#define UNIXSOCK_VERDICT_H

#include "question.h"

static int (*ask_name)(struct name_question *) = (void *)CALL_answer_name;
static int (*ask_end)(struct end_question *) = (void *)CALL_answer_end;
static int (*ask_message)(struct message_question *) = (void *)CALL_answer_message;

/* Puts into `ep` what the filter says of it by now. */
static __always_inline void judge(struct endpoint *ep, struct workspace *w, u32 generation)
{
	struct verdict *v = &ep->verdicts[generation & 1];
	u32 socket_changes = ep->socket_changes, owner_changes = ep->owner_changes;

	if (v->generation == generation && v->socket_changes == socket_changes && v->owner_changes == owner_changes)
		return;
	u32 pid = ep->pid, parent = ep->parent;
	ep->capturer = capturers.lookup(&pid) != NULL || capturers.lookup(&parent) != NULL;
	struct name_question name = { ep->name, ep->name_len, &w->filter, 0 };
	u64 atoms = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		if (ep->named && name.len <= 108) {
			ask_name(&name);
			atoms |= name.atoms;
		}
		/* A relative name counts by its path as well. */
		struct place *place = ep->place ? places.lookup(&ep->place) : NULL;
		if (!place)
			break;
		name.name = place->path;
		name.len = place->len;
	}
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
	v->socket_atoms = atoms | end.socket_atoms;
	v->owner_atoms = end.owner_atoms;
	if (v->generation != generation)
		v->rejected_peer = 0;
	v->socket_changes = socket_changes;
	v->owner_changes = owner_changes;
	v->generation = generation;
}

/* Whether the filter lets this message through. */
static __always_inline bool wanted(volatile struct message *m, struct sides *sides, u64 other, u32 fds, u32 creds,
				   struct workspace *w, u32 generation)
{
	struct endpoint *src = sides->src, *dst = sides->dst;
	struct endpoint *ends[2] = { src, dst };
	struct totals *t = get_totals();

	if (!t)
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		if (!ends[i])
			break;
		judge(ends[i], w, generation);
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
		from->rejected_at = t->renames;
		from->rejected_peer = other;
		return false;
	}
#ifndef WITH_CAPTURERS
	if (src->capturer || (dst && dst->capturer))
		return false;
#endif
	return verdict == WANTED;
}

#endif
