/* The capture filter's verdict: its atoms once for a socket and its process, and then one for each message.
 *
 * A filter is an element of `filters` and the lanes it uses in `filter_lanes`.  There is room for two: that of an
 * even generation and that of an odd one.  The reader fills the one that is not in use, and then writes
 * `generation` in settings, which each program reads once for a message (probe/filter_maps.py). */
#ifndef UNIXSOCK_VERDICT_H
#define UNIXSOCK_VERDICT_H

/* Adds one where the compiler doesn't see it: it would make one condition, which the verifier doesn't know, of a loop's
 * two. */
#define FILTER_NEXT(i) ({ asm volatile("%0 += 1" : "+r"(i)); })

/* A mask that it doesn't take away, knowing that it is needless: the verifier does not know. */
#define FILTER_MASK(value, mask) ({ asm volatile("%0 &= %1" : "+r"(value) : "i"(mask)); })

#include "filter/interpreter.h"

BPF_TABLE("array", u32, struct filter, filters, 2);
BPF_TABLE("array", u32, struct filter_lane, filter_lanes, 2 * FILTER_LANES);

/* Subprograms as those of state/subprograms.h, but global: the verifier looks at each once, however often it is
 * called.  Their argument is a number, the only kind that Linux 5.10 lets them have.  The loader reads these lines. */
#define GLOBAL_filter_lane 0x510c01
#define GLOBAL_filter_members 0x510c02
#define GLOBAL_filter_step_on 0x510c03
#define GLOBAL_judge_endpoint 0x510c06
#define GLOBAL_filter_answer 0x510c0f

static u64 (*call_filter_lane)(u64) = (void *)GLOBAL_filter_lane;
static u64 (*call_filter_members)(u64) = (void *)GLOBAL_filter_members;
static u64 (*call_filter_step_on)(u64) = (void *)GLOBAL_filter_step_on;
static u64 (*call_judge_endpoint)(u64) = (void *)GLOBAL_judge_endpoint;
static u64 (*call_filter_answer)(u64) = (void *)GLOBAL_filter_answer;

/* Their argument: where the workspace is, which filter, and what else they need. */
#define FILTER_ARGUMENT(workspace, generation, more) ((u64)(workspace) | ((u64)(generation)&1) << 31 | (u64)(more) << 32)
#define FILTER_WORKSPACE(argument) ((u32)(argument)&0x7fffffff)
#define FILTER_INDEX(argument) ((u32)(argument) >> 31)
#define FILTER_MORE(argument) ((u32)((argument) >> 32))

static u64 filter_more_steps(const struct filter *f, u64 *words, u64 at, u64 context)
{
	return call_filter_step_on(context | at << 32);
}

/* 0: the earlier verdict still holds.  Without jumps, each of which the verifier would follow. */
static __always_inline u32 outdated(struct endpoint *ep, u32 i, struct workspace *w, u32 generation)
{
	struct verdict *v = verdict_of(ep, generation, i);
	return (v->generation ^ generation) | (v->socket_changes ^ ep->socket_changes) | (v->owner ^ w->users[i].tag);
}

/* Atoms of the globs that w->text matches.  `which`: as in struct filter. */
static __always_inline u64 match_text(const struct filter *f, u64 context, u32 which, u32 len)
{
	u32 first = f->first_lane[which], lanes = f->lanes[which];
	u64 atoms = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FILTER_LANES; FILTER_NEXT(i)) {
		if (i >= lanes)
			break;
		atoms |= call_filter_lane(context | (u64)((first + i) << 16 | which << 8 | len) << 32);
	}
	return atoms;
}

/* The global functions. */
u64 filter_lane(u64 argument)
{
	u32 at = FILTER_WORKSPACE(argument), index = FILTER_INDEX(argument), more = FILTER_MORE(argument);
	u32 lane = index * FILTER_LANES + (more >> 16 & (FILTER_LANES - 1));
	struct workspace *w = workspaces.lookup(&at);
	struct filter *f = filters.lookup(&index);
	struct filter_lane *l = filter_lanes.lookup(&lane);
	return w && f && l ? filter_lane_atoms(f, l, more >> 8, w->text, more & 0xff) : 0;
}

u64 filter_members(u64 argument)
{
	u32 at = FILTER_WORKSPACE(argument), index = FILTER_INDEX(argument);
	struct workspace *w = workspaces.lookup(&at);
	struct filter *f = filters.lookup(&index);
	if (w && f)
		filter_add_members(f, FILTER_MORE(argument), w->facts, w->atoms);
	return 0;
}

u64 filter_step_on(u64 argument)
{
	u32 at = FILTER_WORKSPACE(argument), index = FILTER_INDEX(argument);
	struct workspace *w = workspaces.lookup(&at);
	struct filter *f = filters.lookup(&index);
	return w && f ? filter_steps(f, w->words, FILTER_MORE(argument)) : FILTER_ACCEPT;
}

/* The verdict on w->question. */
u64 filter_answer(u64 argument)
{
	u32 at = FILTER_WORKSPACE(argument), index = FILTER_INDEX(argument);
	struct workspace *w = workspaces.lookup(&at);
	struct filter *f = filters.lookup(&index);
	return w && f ? filter_verdict(f, &w->question, w->words, argument) : NOT_WANTED;
}

/* Puts into the endpoint of the sock w->judged what the filter says of it by now.  0: there is no such endpoint. */
u64 judge_endpoint(u64 argument)
{
	u32 at = FILTER_WORKSPACE(argument), index = FILTER_INDEX(argument), generation = FILTER_MORE(argument);
	u64 context = FILTER_ARGUMENT(at, generation, 0);
	struct workspace *w = workspaces.lookup(&at);
	struct filter *f = filters.lookup(&index);
	if (!w || !f)
		return 0;
	u64 sk = w->judged;
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!ep)
		return 0;
	u32 use = w->judged_use & 1;
	struct verdict *v = verdict_of(ep, generation, use);
	struct user *user = &w->users[use];
	/* What comes after this makes another verdict. */
	u32 socket_changes = ep->socket_changes;
	u64 socket_atoms = f->atoms_of_any_name, owner_atoms = 0;

	u32 pid = user->pid, parent = user->parent;
	v->capturer = capturers.lookup(&pid) != NULL || capturers.lookup(&parent) != NULL;
	if (f->lanes[0] && ep->named) {
		bpf_probe_read_kernel(w->text, sizeof(w->text), ep->name);
		socket_atoms |= match_text(f, context, 0, ep->name_len);
		/* A relative name counts by its path as well. */
		struct place *place = ep->place ? places.lookup(&ep->place) : NULL;
		if (place && place->len <= FILTER_NAME_BYTES) {
			bpf_probe_read_kernel(w->text, sizeof(w->text), place->path);
			socket_atoms |= match_text(f, context, 0, place->len);
		}
	}
	if (f->lanes[1] && user->owner) {
		bpf_probe_read_kernel(w->text, sizeof(user->comm), user->comm);
		owner_atoms = match_text(f, context, 1, sizeof(user->comm));
	}
	w->atoms[0] = socket_atoms;
	w->atoms[1] = owner_atoms;
	u32 members = f->members;
	if (members) {
		struct cgroup_line *line = cgroups.lookup(&user->cgroup);
		if (!line)
			line = &w->no_cgroup;
		w->facts[FILTER_FACT_inode] = ep->inode;
		w->facts[FILTER_FACT_netns] = ep->netns;
		w->facts[FILTER_FACT_pid] = pid;
		w->facts[FILTER_FACT_uid] = user->uid;
		bpf_probe_read_kernel(&w->facts[FILTER_FACT_cgroup], sizeof(line->ids), line->ids);
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < FILTER_MEMBERS / FILTER_STRIDE; FILTER_NEXT(i)) {
			u32 first = i * FILTER_STRIDE;
			if (first >= members)
				break;
			call_filter_members(context | (u64)first << 32);
		}
	}
	v->socket_atoms = w->atoms[0];
	v->owner_atoms = user->owner ? w->atoms[1] : 0;
	if (v->generation != generation) {
		v->rejected_peer = 0;
		v->accepted_peer = 0;
		v->accepted_at = 0;
	}
	v->socket_changes = socket_changes;
	v->owner = user->tag;
	v->generation = generation;
	return 1;
}

/* Whether the filter lets this message through.  `at`: where `w` is.  `asked`: atoms of a receiver's name that is no
 * endpoint's. */
static __always_inline bool wanted(volatile struct message *m, struct sides *sides, volatile struct call *call,
				   u32 fds, u32 creds, u64 asked, struct workspace *w, u32 at, u32 generation)
{
	struct endpoint *src = sides->src, *dst = sides->dst;
	struct totals *t = get_totals();
	u32 key = generation & 1;
	struct filter *f = filters.lookup(&key);
	u64 index = generation;
	FILTER_MASK(index, 1);

	if (!t || !f)
		return false;
	/* Before anything is looked at: a name that comes meanwhile makes what is decided here outdated. */
	u32 renames = *(volatile u64 *)&t->renames;
	if (outdated(src, WRITER, w, generation)) {
		w->judged = call->sk;
		w->judged_use = WRITER;
		if (!call_judge_endpoint(FILTER_ARGUMENT(at, generation, generation)))
			return false;
	}
	if (dst && outdated(dst, READER, w, generation)) {
		w->judged = call->other;
		w->judged_use = READER;
		if (!call_judge_endpoint(FILTER_ARGUMENT(at, generation, generation)))
			return false;
	}
	struct verdict *from = &src->verdicts[index * USES + WRITER];
	/* Not 0, which stands for never. */
	u32 asked_at = renames + 1;
	bool known = from->accepted_at == asked_at;
	if (f->entry != FILTER_ACCEPT && !(known && from->accepted_peer && from->accepted_peer == call->other)) {
		struct filter_question *q = &w->question;
		q->src = from->socket_atoms;
		q->src_owner = from->owner_atoms;
		q->dst = asked;
		q->dst_owner = q->two_ends = q->inodes_known = 0;
		/* Streams and seqpackets can have no other peer at this address. */
		q->asks_always = !known && !asked && m->type != TYPE_DGRAM;
		if (dst) {
			q->dst = asked | dst->verdicts[index * USES + READER].socket_atoms;
			q->dst_owner = dst->verdicts[index * USES + READER].owner_atoms;
			q->two_ends = 1;
			q->inodes_known = src->inode && dst->inode;
		}
		q->type = m->type;
		q->event = m->event;
		q->len = m->len;
		q->fds = fds;
		q->creds = creds;
		u32 verdict = call_filter_answer(FILTER_ARGUMENT(at, generation, 0));
		if (verdict == NEVER_WANTED) {
			from->rejected_at = renames;
			from->rejected_peer = call->other;
			/* Streams and seqpackets can have no other peer at this address. */
			if (dst && m->type == TYPE_DGRAM)
				dst->refused = 1;
		}
		if (verdict < WANTED)
			return false;
		if (q->asks_always && dst) {
			from->accepted_peer = verdict == ALWAYS_WANTED ? call->other : 0;
			from->accepted_at = asked_at;
		}
	}
	return !from->capturer && !(dst && dst->verdicts[index * USES + READER].capturer);
}

#endif
