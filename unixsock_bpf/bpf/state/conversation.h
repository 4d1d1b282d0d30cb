/* Both sides of what happened: their states, and what each hook's news changes in them. */
#ifndef UNIXSOCK_SIDES_H
#define UNIXSOCK_SIDES_H

#include "state/subprograms.h"

/* Both sides of a conversation.  False, and no more than the sender, if it was decided that the filter
 * lets nothing of it through (if `judged`); and false if it can't be followed. */
static __always_inline bool take_sides(struct sides *of, u64 sk, u64 other, struct workspace *w, bool judged,
					bool paused_too)
{
	struct endpoint *sides[2] = {};
	u64 socks[2] = { sk, other };
	struct totals *t = get_totals();

	if (!t || !(running() || paused_too))
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		if (!socks[i])
			break;
		struct endpoint *ep = endpoint_of(socks[i], w, &of->untracked);
		if (!ep) {
			if (!of->untracked)
				of->src = NULL;
			return false;
		}
		sides[i] = ep;
		if (!i) {
			of->src = ep; /* its positions count, whatever becomes of the message */
			if (judged && other && left_out(ep, other))
				return false;
		} else if (ep->type && ep->type != sides[0]->type) { /* 0: a socket that is still to be accepted */
			of->src = NULL; /* memory that looks like a sock */
			return false;
		}
	}
	of->dst = sides[1];
	if (!of->src)
		return false;
	if (of->dst) {
		of->src->peer_id = of->dst->id;
		if (!of->dst->peer_id)
			of->dst->peer_id = of->src->id;
	}
	return true;
}

/* Finds the processes at both ends: the sender is the current process, if it uses the socket; the receiver is the one
 * that reads or, if none was seen using its socket, the one that the kernel noted for the sender. */
static __always_inline void take_users(struct sides *sides, u64 sk, u64 other, u64 news, struct workspace *w)
{
	if (news & NEWS_READ)
		sides->src->passed_on = 0;
	if (news & (NEWS_USED | NEWS_READ))
		note_user(&sides->src->users[news & NEWS_READ ? READER : WRITER], &w->users[0], w);
	else
		find_user(&w->users[0], sides->src, WRITER);
	if (!sides->dst)
		return;
	if ((news & NEWS_USED) && !has_user(sides->dst) && peer_of(sk) == other)
		guess_user(sides->dst, sk);
	find_user(&w->users[1], sides->dst, READER);
}

/* Where datagrams count: by pair, because a socket may send to many.  Where there is no room for one more pair, with
 * the sender. */
static __always_inline struct flow *dgram_flow(struct endpoint *src, struct endpoint *dst)
{
	struct pair pair = { src->id, dst->id };
	struct flow *flow = flows.lookup(&pair);
	if (!flow) {
		struct flow none = {};
		flows.insert(&pair, &none); /* fails if another CPU was faster */
		flow = flows.lookup(&pair);
	}
	return flow ? flow : &src->flow;
}

/* Positions count what the filter leaves out: the next one may not. */
static __always_inline void count_unseen(struct endpoint *ep, u32 len)
{
	if (ep->type == TYPE_DGRAM)
		return;
	__sync_fetch_and_add(&ep->flow.bytes, len);
	__sync_fetch_and_add(&ep->flow.messages, 1);
}

/* The same in a pause, where datagrams count, too. */
static __always_inline void count_paused(struct endpoint *ep, u64 other, u32 len)
{
	struct endpoint *dst = endpoints.lookup(&other);
	struct flow *flow = &ep->flow;
	if (ep->type == TYPE_DGRAM) {
		if (!dst)
			return;
		flow = dgram_flow(ep, dst);
	}
	__sync_fetch_and_add(&flow->bytes, len);
	__sync_fetch_and_add(&flow->messages, 1);
}

/* What a socket that is to be accepted is going to have: its listener's name and user, its client's type. */
static __always_inline void take_from_listener(struct endpoint *ep, u64 listener, u8 type)
{
	ep->type = type;
	if (!ep->named)
		take_name(ep, listener);
	if (!has_user(ep))
		guess_user(ep, listener);
}

/* Remembers what a hook saw of a socket, and finds both sides.  False, as take_sides, if that can't be done. */
static __always_inline bool take_news(struct remember_part *of)
{
	struct sides *sides = of->sides;
	struct totals *t = get_totals();
	u64 sk = of->sk, other = of->other, listener = of->listener, news = of->news;
	if (!t || !take_sides(sides, sk, other, of->w, of->judged, news & NEWS_ENDED))
		return false;
	struct endpoint *src = sides->src, *dst = sides->dst;
	if (listener && dst)
		take_from_listener(dst, listener, src->type);
	take_users(sides, sk, other, news, of->w);
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
