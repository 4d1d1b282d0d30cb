// SPDX-License-Identifier: GPL-2.0-or-later
/* The probe: everything said on AF_UNIX sockets, taken where the filled sk_buff is put on the
 * receiver's queue.  There the bytes are exactly those that the receiver will read, both socks are
 * known, and no answer can have been sent yet.
 *
 * loader.py compiles this through bcc after the filter's functions, with the layouts that layout.py
 * found in BTF as macros; bcc attaches each program by its name.
 */
#include <linux/types.h>
#include <asm/ptrace.h>
#include "record.h"
#include "read.h"
#include "state.h"
#include "hooks.h"
#include "paths.h"
#include "identity.h"
#include "emit.h"
#include "payload.h"
#include "descriptors.h"
#include "ancillary.h"

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
		struct verdict *v = &ep->verdicts[GENERATION & 1];
		if (judged && !i && other && v->rejected_peer == other && v->generation == GENERATION &&
		    v->rejected_at == (u32)t->renames) {
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

/* Whether the filter lets this message through. */
static __always_inline bool wanted(volatile struct message *m, struct sides *sides, u64 other, u32 fds, u32 creds,
				   struct workspace *w)
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
		judge(ends[i], w);
	}
	struct verdict *from = &src->verdicts[GENERATION & 1];
	struct verdict *to = dst ? &dst->verdicts[GENERATION & 1] : &w->endpoint.verdicts[0]; /* all zero */
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

/* Where a datagram counts: by pair, because a socket may send to many. */
static __always_inline struct flow *dgram_flow(struct sides *sides)
{
	struct pair pair = { sides->src->id, sides->dst->id };
	struct flow *flow = flows.lookup(&pair);
	if (!flow) {
		struct flow none = {};
		flows.insert(&pair, &none); /* fails if another CPU was faster */
		flow = flows.lookup(&pair);
	}
	return flow;
}

/* Which direction a message of this type counts in. */
static __always_inline void find_flow(struct sides *sides, u32 type)
{
	struct flow *flow = sides->dst && type == TYPE_DGRAM ? dgram_flow(sides) : NULL;
	sides->flow = flow ? flow : &sides->src->flow;
}

/* The same, and where it stands, and which side is the server. */
static __always_inline void take_flow(volatile struct message *m, struct sides *sides, u64 sk, u64 other)
{
	find_flow(sides, m->type);
	u32 role = ROLE_UNKNOWN;
	u64 ack = 0;
	if (!sides->dst) {
	} else if (m->type == TYPE_DGRAM) {
		struct pair back = { sides->dst->id, sides->src->id };
		struct flow *answer = flows.lookup(&back);
		if (answer)
			ack = answer->bytes;
		role = dgram_role(sk, other, answer != NULL);
	} else {
		role = stream_role(sides->src, sides->dst);
		ack = sides->dst->flow.bytes;
	}
	m->role = role;
	m->ack = ack;
	m->seq = sides->flow->bytes;
	m->number = sides->flow->messages;
}

/* Sends the payload after the head that is in `s`, in as many records as it takes.  0: all of it.
 * Between two steps everything lies in maps: see struct cursor. */
static __always_inline int send_payload(struct scratch *s)
{
	volatile struct record_header *r = &((struct frame *)s->data)->record;
	volatile struct message *m = &s->message;
	volatile struct cursor *c = &s->cursor;

	u32 step = 0;

	c->flags = r->flags;
	c->wanted = m->len < SNAPLEN ? m->len : SNAPLEN;
	do {
		u32 took = copy_piece(s, c->wanted);
		u32 wanted = c->wanted - took;
		c->wanted = wanted;
		if (!took || !wanted || c->done >= MAX_PAYLOAD) {
			u32 flags = c->flags;
			if (took && wanted) {
				flags |= FLAG_MORE;
			} else if (c->before + c->done < m->len) {
				struct totals *t = get_totals();
				flags |= FLAG_TRUNCATED | c->unreadable;
				if (t)
					__sync_fetch_and_add(&t->truncated, 1);
			}
			r->offset = c->before;
			r->flags = flags;
			if (send_block(s->data, m->at, c->done))
				return 1;
			c->before += c->done;
			c->done = 0;
			if (!(flags & FLAG_MORE))
				break;
		}
		/* The end of the loop has to be a condition for the verifier, not a jump. */
		asm volatile("%0 += 1" : "+r"(step));
	} while (step < STEPS);
	return 0;
}

/* Positions count what the filter leaves out: the next one may not. */
static __always_inline void count_unseen(struct endpoint *ep, u32 len)
{
	if (ep->type == TYPE_DGRAM)
		return;
	__sync_fetch_and_add(&ep->flow.bytes, len);
	__sync_fetch_and_add(&ep->flow.messages, 1);
}

/* What was queued for a receiver. */
static __always_inline void on_message(u32 slot)
{
	struct totals *t = get_totals();
	struct workspace *w = get_workspace(slot);
	struct scratch *s = get_scratch(slot);
	struct sides sides = {};

	if (!t || !s || !w)
		return;
	u64 sk = s->call.sk, other = s->call.other, skb = s->call.skb;
	u32 len = s->call.len;
	if (!take_sides(&sides, sk, other, w, true)) {
		if (sides.untracked)
			__sync_fetch_and_add(&t->untracked, 1);
		if (sides.src)
			count_unseen(sides.src, len);
		return;
	}
	if (!sides.dst)
		return;
	volatile struct message *m = &s->message;
	m->event = EVENT_DATA;
	m->type = sides.src->type;
	m->len = len;
	m->flags = s->call.flags;
	take_users(&sides, sk, other, w);
	take_flow(m, &sides, sk, other);
	m->seq = count_up(&sides.flow->bytes, len);
	m->number = count_up(&sides.flow->messages, 1);

	/* Zeros where there is no skb. */
	bpf_probe_read_kernel(s->skb, SKB_SIZE, (void *)skb);
	take_ancillary(&s->ancillary, s->skb);
	if (!wanted(m, &sides, other, s->ancillary.fds, s->ancillary.creds, w))
		return;
	__sync_fetch_and_add(&t->messages, 1);
	__sync_fetch_and_add(&t->bytes, len);
	if (begin_record(s->data, m, &sides))
		return;
	/* The verifier would follow both kinds of flow through all that comes. */
	sides.flow = NULL;
	put_ancillary(s->data, m, &s->ancillary);
	if (s->call.address)
		cursor_at(&s->cursor, s->call.address, len);
	else
		cursor_at_skb(&s->cursor, s->skb);
	if (send_payload(s)) {
		m->len -= s->cursor.before;
		find_flow(&sides, m->type);
		lose(m, &sides, LOST_RING_FULL);
	}
	sides.src->emitted = 1;
	sides.dst->emitted = 1;
}

int message(void *ctx)
{
	u32 slot;
	GET_SLOT(slot);
	on_message(slot);
	return 0;
}

/* `len` bytes go from `sk` to `other`: those of `skb`, or if `address` is not 0, those there. */
static __always_inline bool tell_message(u32 slot, u64 sk, u64 other, u64 skb, u64 address, u32 len, u32 flags)
{
	struct scratch *s = get_scratch(slot);
	struct endpoint *ep = endpoints.lookup(&sk);
	/* This is all that a socket costs that the filter leaves out.  It may have got a name since. */
	if (ep && left_out(ep, other) && (ep->named || !LOAD(u64, sk, UNIX_SOCK_ADDR))) {
		count_unseen(ep, len);
		return false;
	}
	if (!s)
		return false;
	s->call.sk = sk;
	s->call.other = other;
	s->call.skb = skb;
	s->call.address = address;
	s->call.len = len;
	s->call.flags = flags;
	return true;
}

/* Something happened to `sk`: see struct call. */
static __always_inline bool tell_event(u32 slot, u64 sk, u64 other, u8 event, u8 news)
{
	struct small_scratch *s = get_small_scratch(slot);
	if (!s || !sk)
		return false;
	s->call.sk = sk;
	s->call.other = other;
	s->call.event = event;
	s->call.news = news;
	s->call.flags = 0;
	s->call.element = 0;
	return true;
}

/* The same with an element. */
static __always_inline bool tell_more(u32 slot, u64 sk, u64 other, u8 event, u32 element, u32 value)
{
	struct small_scratch *s = get_small_scratch(slot);
	if (!s || !tell_event(slot, sk, other, event, NEWS_USED))
		return false;
	s->call.element = element;
	s->call.value = value;
	return true;
}

#include "oob.h"
#include "sendpage.h"

/* Datagrams and seqpackets, and streams before they were appended to the receiver's queue in place
 * (Linux commit f4e1fb04c123 ("af_unix: Use cached value for SOCK_STREAM in unix_inq_len()."), v6.17).
 * The receiver's lock is held, so order is the receiver's. */
static __always_inline bool on_queue(u32 slot, u64 list, u64 skb)
{
	u64 sk = PEEK(u64, skb, SKB_SK);
	if (!sk || PEEK(u16, sk, SOCK_FAMILY) != AF_UNIX)
		return false;
	u64 other = list - SOCK_RECEIVE_QUEUE;
	return !is_urgent(skb, other) && tell_message(slot, sk, other, skb, 0, PEEK(u32, skb, SKB_LEN), 0);
}
MESSAGE_ON_ENTRY(skb_queue_tail, on_queue)

#ifdef UNIX_SOCK_INQ_LEN
#define SOCK_DEAD_BIT 0 /* of sk_flags */
#define RCV_SHUTDOWN 1

/* Streams since then: the sk_buff is filled, and is queued next unless the receiver is gone. */
static __always_inline bool on_filled(u32 slot, u64 skb, u64 iter)
{
	u64 sk = LOAD(u64, skb, SKB_SK);
	if (!sk || LOAD(u16, sk, SOCK_FAMILY) != AF_UNIX || LOAD(u16, sk, SOCK_TYPE) != TYPE_STREAM)
		return false;
	if (iter && is_urgent_copy(iter))
		return false; /* on_urgent's */
	u64 other = peer_of(sk);
	if (!other || (LOAD(u64, other, SOCK_FLAGS) & 1 << SOCK_DEAD_BIT) ||
	    (LOAD(u8, other, SOCK_SHUTDOWN) & RCV_SHUTDOWN))
		return false;
	u32 thread = bpf_get_current_pid_tgid(), flags = 0;
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep) {
		if (ep->writer && ep->writer != thread)
			flags |= FLAG_UNORDERED;
		ep->writer = thread;
	}
	return tell_message(slot, sk, other, skb, 0, LOAD(u32, skb, SKB_LEN), flags);
}

static __always_inline bool on_copied(u32 slot, u64 skb, u64 iter, int result)
{
	return !result && on_filled(slot, skb, iter);
}
MESSAGE_ON_EVERY_RETURN(skb_copy_datagram_from_iter, on_copied, 4, 3)

static __always_inline bool on_spliced(u32 slot, u64 skb, u64 unused, int result)
{
	return result > 0 && on_filled(slot, skb, 0);
}
MESSAGE_ON_EVERY_RETURN(skb_splice_from_iter, on_spliced, ARGS_SKB_SPLICE_FROM_ITER, 2)

/* All that this thread filled is queued: it raced with nobody who comes later. */
static __always_inline void on_written(u64 sk)
{
	u32 thread = bpf_get_current_pid_tgid();
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep && ep->writer == thread)
		ep->writer = 0;
}
#endif

/* Who reads: recvmsg and its kin begin with the socket. */
static __always_inline bool on_use(u32 slot, u64 socket, u64 unused)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep && ((ep->type != TYPE_DGRAM && left_out(ep, 0)) || has_user(ep)))
		return false;
	return tell_event(slot, sk, 0, NO_EVENT, NEWS_USED);
}
NEWS_ON_ENTRY(unix_stream_recvmsg, on_use)
NEWS_ON_ENTRY(unix_dgram_recvmsg, on_use)
NEWS_ON_ENTRY(unix_seqpacket_recvmsg, on_use)
NEWS_ON_ENTRY(unix_stream_splice_read, on_use)

#include "places.h"
#include "events.h"
