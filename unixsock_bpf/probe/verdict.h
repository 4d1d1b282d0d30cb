/* What the filter says: once for a socket and its process, and then for each message. */
#ifndef UNIXSOCK_VERDICT_H
#define UNIXSOCK_VERDICT_H

/* Puts into `ep` what the filter says of it by now. */
static __always_inline void judge(struct endpoint *ep, struct workspace *w, u32 generation)
{
	struct verdict *v = &ep->verdicts[generation & 1];
	u32 socket_changes = ep->socket_changes, owner_changes = ep->owner_changes;

	if (v->generation == generation && v->socket_changes == socket_changes && v->owner_changes == owner_changes)
		return;
	u32 pid = ep->pid, parent = ep->parent;
	ep->capturer = capturers.lookup(&pid) != NULL || capturers.lookup(&parent) != NULL;
	u64 atoms = filter_socket_atoms(ep->inode, ep->netns);
	const u8 *name = ep->name;
	u64 len = ep->name_len;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		if (ep->named && len <= 108)
			atoms |= filter_name_atoms(name, len, &w->filter);
		/* A relative name counts by its path as well. */
		struct place *place = ep->place ? places.lookup(&ep->place) : NULL;
		if (!place)
			break;
		name = place->path;
		len = place->len;
	}
	v->socket_atoms = atoms;
	atoms = 0;
	struct cgroup_line *line = cgroups.lookup(&ep->cgroup);
	if (!line)
		line = &w->no_cgroup;
	if (ep->owner)
		atoms = filter_owner_atoms(ep->pid, ep->uid, ep->comm, line->ids, &w->filter);
	v->owner_atoms = atoms;
	if (v->generation != generation)
		v->rejected_peer = 0;
	v->socket_changes = socket_changes;
	v->owner_changes = owner_changes;
	v->generation = generation;
}

/* Whether all that the filter asks of a socket is known. */
static __always_inline bool final(struct endpoint *ep)
{
#ifdef FILTER_ASKS_INODES
	return ep->inode != 0;
#else
	return true;
#endif
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
	if (dst && !filter_sockets(from->socket_atoms, to->socket_atoms, m->type, final(src), final(dst))) {
		from->rejected_at = t->renames;
		from->rejected_peer = other;
		return false;
	}
#ifndef WITH_CAPTURERS
	if (src->capturer || (dst && dst->capturer))
		return false;
#endif
	return filter_message(from->socket_atoms, from->owner_atoms, to->socket_atoms, to->owner_atoms, m->type,
			      m->event, m->len, fds, creds);
}

#endif
