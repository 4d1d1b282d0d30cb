/* Both sides of what happened: their states, and what each hook's news changes in them. */
#ifndef UNIXSOCK_SIDES_H
#define UNIXSOCK_SIDES_H

#include "state/subprograms.h"

/* Both sides of a conversation.  False, and no more than the sender, if it was decided that the filter
 * lets nothing of it through (if `judged`); and false if it can't be followed. */
static __always_inline bool take_sides(struct sides *of, u64 sk, u64 other, struct workspace *w, bool judged)
{
	struct endpoint *sides[2] = {};
	u64 socks[2] = { sk, other };
	struct totals *t = get_totals();

	if (!t || !running())
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		if (!socks[i])
			break;
		struct endpoint *ep = endpoint_of(socks[i], w);
		if (!ep) {
			of->untracked = 1;
			return false;
		}
		sides[i] = ep;
		if (judged && !i && other && left_out(ep, other)) {
			of->src = ep;
			return false;
		}
	}
	of->src = sides[0];
	of->dst = sides[1];
	if (!of->src)
		return false;
	if (of->dst)
		of->src->peer_id = of->dst->id;
	return true;
}

/* Who is at both ends: the sender is the current process; the receiver, if nobody was seen using
 * its socket, is taken from what the kernel told the sender. */
static __always_inline void take_users(struct sides *sides, u64 sk, u64 other, struct workspace *w)
{
	note_user(sides->src, w);
	if (sides->dst && !sides->dst->owner && peer_of(sk) == other)
		guess_user(sides->dst, sk);
}

/* Positions count what the filter leaves out: the next one may not. */
static __always_inline void count_unseen(struct endpoint *ep, u32 len)
{
	if (ep->type == TYPE_DGRAM)
		return;
	__sync_fetch_and_add(&ep->flow.bytes, len);
	__sync_fetch_and_add(&ep->flow.messages, 1);
}

/* What a socket that is to be accepted is going to have: its listener's name and user, its client's type. */
static __always_inline void take_from_listener(struct endpoint *ep, u64 listener, u8 type)
{
	ep->type = type;
	if (!ep->named)
		take_name(ep, listener);
	if (!ep->owner)
		guess_user(ep, listener);
}

/* Remembers what a hook saw of a socket, and finds both sides.  False, as take_sides, if that can't be done. */
static __always_inline bool take_news(struct remember_part *of)
{
	struct sides *sides = of->sides;
	struct totals *t = get_totals();
	u64 sk = of->sk, other = of->other, listener = of->listener, news = of->news;
	if (!t || !take_sides(sides, sk, other, of->w, of->judged))
		return false;
	struct endpoint *src = sides->src, *dst = sides->dst;
	if (listener && dst)
		take_from_listener(dst, listener, src->type);
	if (news & NEWS_USED)
		take_users(sides, sk, other, of->w);
	if ((news & NEWS_BOUND) && src->place) {
		src->socket_changes++;
		__sync_fetch_and_add(&t->renames, 1);
	}
	if ((news & NEWS_PAIRED) && dst)
		src->from_start = dst->from_start = 1;
	if ((news & NEWS_CLIENT) && dst)
		src->client = dst->server = 1;
	if (news & NEWS_SERVER)
		src->server = 1;
	return true;
}

#endif
