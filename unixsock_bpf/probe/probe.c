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
#include "identity.h"
#include "emit.h"
#include "payload.h"
#include "ancillary.h"
#include "hooks.h"

static __always_inline bool final(struct endpoint *ep)
{
	return (ep->flags & EP_NAMED) && ep->inode;
}

/* Both sides of a conversation, unless the filter lets nothing of it through. */
static __always_inline bool take_sides(struct sides *of, u32 type, u64 sk, u64 other, u32 slot)
{
	struct endpoint *sides[2] = {};
	u64 socks[2] = { sk, other };

	if (!running())
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		if (!socks[i])
			break;
		struct endpoint *ep = endpoint_of(socks[i], slot);
		if (!ep) {
			struct totals *t = get_totals();
			if (t)
				__sync_fetch_and_add(&t->untracked, 1);
			return false;
		}
		if (!i && other && ep->rejected_peer == other)
			return false;
		sides[i] = ep;
	}
	struct endpoint *src = sides[0], *dst = sides[1];
	if (!src)
		return false;
	src->type = type;
	if (dst)
		src->peer_id = dst->id;
	of->src = src;
	of->dst = dst;
	of->flow = &src->flow;
	if (dst && !filter_sockets(src->socket_atoms, dst->socket_atoms, type, final(src), final(dst))) {
		src->rejected_peer = other;
		return false;
	}
	return true;
}

/* Who is at both ends: the sender is the current process; the receiver, if nobody was seen using
 * its socket, is taken from what the kernel told the sender. */
static __always_inline void take_users(struct sides *sides, u64 sk, u64 other)
{
	note_user(sides->src, true);
	if (!sides->dst)
		return;
	if (!(sides->dst->flags & EP_OWNER) && peer_of(sk) == other)
		guess_user(sides->dst, sk);
	judge_user(sides->dst);
}

/* Whether the filter lets this message through. */
static __always_inline bool wanted(volatile struct message *m, struct sides *sides, u32 fds, u32 creds)
{
	struct endpoint *src = sides->src, *dst = sides->dst;
	if ((src->flags | (dst ? dst->flags : 0)) & EP_CAPTURER)
		return false;
	return filter_message(src->socket_atoms, src->owner_atoms, dst ? dst->socket_atoms : 0,
			      dst ? dst->owner_atoms : 0, m->type, m->event, m->len, fds, creds);
}

/* Which direction the message counts in, and where that stands.  Datagrams are counted by pair:
 * a socket may send them to many. */
static __always_inline void take_flow(volatile struct message *m, struct sides *sides, u64 sk, u64 other)
{
	struct endpoint *src = sides->src, *dst = sides->dst;
	if (!dst) {
		m->role = ROLE_UNKNOWN;
		m->ack = 0;
	} else if (m->type == TYPE_DGRAM) {
		struct pair there = { src->id, dst->id }, back = { dst->id, src->id };
		struct flow none = {};
		struct flow *answer = flows.lookup(&back);
		m->ack = answer ? answer->bytes : 0;
		m->role = dgram_role(sk, other, answer != NULL);
		flows.insert(&there, &none); /* fails if it is there */
		struct flow *flow = flows.lookup(&there);
		if (flow)
			sides->flow = flow;
	} else {
		m->role = stream_role(src, dst);
		m->ack = dst->flow.bytes;
	}
	m->seq = sides->flow->bytes;
	m->number = sides->flow->messages;
}

/* Sends the payload after the head that is in `s`, in as many records as it takes.  0: all of it. */
static __always_inline int send_payload(struct scratch *s, u32 len)
{
	volatile struct record_header *r = &((struct frame *)s->data)->record;
	volatile struct cursor *c = &s->cursor;
	u32 total = len < SNAPLEN ? len : SNAPLEN;
	u32 flags = r->flags;
	u32 round = 0;

	do {
		u32 want = total - c->before;
		u32 more = 0;
		if (want > MAX_PAYLOAD) {
			want = MAX_PAYLOAD;
			more = FLAG_MORE;
		}
		r->offset = c->before;
		u32 caplen = copy_payload(s, want);
		if (caplen < want)
			more = 0;
		if (!more && c->before + caplen < len) {
			struct totals *t = get_totals();
			more = FLAG_TRUNCATED | (c->unreadable ? FLAG_UNREADABLE : 0);
			if (t)
				__sync_fetch_and_add(&t->truncated, 1);
		}
		r->flags = flags | more;
		if (send_block(s->data, s->message.at, caplen))
			return 1;
		c->before += caplen;
		if (more != FLAG_MORE)
			break;
		asm volatile("%0 += 1" : "+r"(round));
	} while (round < RECORDS);
	return 0;
}

/* `len` bytes of `skb` were queued from `sk` to `other`. */
static __always_inline void on_data(u64 sk, u64 other, u64 skb, u32 len, u32 slot, u32 flags)
{
	struct totals *t = get_totals();
	u32 cpu_slot = bpf_get_smp_processor_id() * DATA_SLOTS + slot;
	struct scratch *s = scratches.lookup(&cpu_slot);
	struct sides sides = {};

	if (!t || !s)
		return;
	volatile struct message *m = &s->message;
	m->event = EVENT_DATA;
	m->type = LOAD(u16, sk, SOCK_TYPE);
	m->len = len;
	m->flags = flags;
	if (!take_sides(&sides, m->type, sk, other, slot) || !sides.dst)
		return;
	take_users(&sides, sk, other);
	take_flow(m, &sides, sk, other);
	__sync_fetch_and_add(&sides.flow->bytes, len);
	__sync_fetch_and_add(&sides.flow->messages, 1);

	struct ancillary a = {};
	if (skb)
		take_ancillary(&a, skb, other);
	if (!wanted(m, &sides, a.fds, a.creds))
		return;
	__sync_fetch_and_add(&t->messages, 1);
	__sync_fetch_and_add(&t->bytes, len);
	if (begin_record(s->data, m, &sides))
		return;
	put_ancillary(s->data, m, &a);
	if (skb)
		cursor_at_skb(&s->cursor, skb);
	if (send_payload(s, len)) {
		m->len = len - s->cursor.before;
		lose(m, &sides, LOST_RING_FULL);
	}
	sides.src->flags |= EP_EMITTED;
	sides.dst->flags |= EP_EMITTED;
}

/* Datagrams and seqpackets, and streams before they were appended to the receiver's queue in place
 * (Linux commit f4e1fb04c123 ("af_unix: Use cached value for SOCK_STREAM in unix_inq_len()."), v6.17).
 * The receiver's lock is held, so order is the receiver's. */
static __always_inline void on_queue(u64 list, u64 skb)
{
	u64 sk = LOAD(u64, skb, SKB_SK);
	if (!is_unix(sk))
		return;
	u64 other = list - SOCK_RECEIVE_QUEUE;
	if (!is_unix(other))
		return;
	u32 flags = 0;
#ifdef UNIX_SOCK_OOB_SKB
	if (LOAD(u64, other, UNIX_SOCK_OOB_SKB) == skb)
		flags |= FLAG_OOB;
#endif
	on_data(sk, other, skb, LOAD(u32, skb, SKB_LEN), SLOT_QUEUE, flags);
}
ON_ENTRY(skb_queue_tail, on_queue)

#ifdef UNIX_SOCK_INQ_LEN
#define SOCK_DEAD_BIT 0 /* of sk_flags */
#define RCV_SHUTDOWN 1

/* Streams since then: the sk_buff is filled, and is queued next unless the receiver is gone. */
static __always_inline void on_filled(u64 skb, u64 unused, int result)
{
	u64 sk = LOAD(u64, skb, SKB_SK);
	if (!is_unix(sk) || LOAD(u16, sk, SOCK_TYPE) != TYPE_STREAM)
		return;
	u64 other = peer_of(sk);
	if (!other || (LOAD(u64, other, SOCK_FLAGS) & 1 << SOCK_DEAD_BIT) ||
	    (LOAD(u8, other, SOCK_SHUTDOWN) & RCV_SHUTDOWN))
		return;
	u32 thread = bpf_get_current_pid_tgid(), flags = 0;
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep) {
		if (ep->writer && ep->writer != thread)
			flags |= FLAG_UNORDERED;
		ep->writer = thread;
	}
	on_data(sk, other, skb, LOAD(u32, skb, SKB_LEN), SLOT_COPY, flags);
}

static __always_inline void on_copied(u64 skb, u64 unused, int result)
{
	if (!result)
		on_filled(skb, unused, result);
}
ON_RETURN(skb_copy_datagram_from_iter, on_copied, 4)

static __always_inline void on_spliced(u64 skb, u64 unused, int result)
{
	if (result > 0)
		on_filled(skb, unused, result);
}
ON_RETURN(skb_splice_from_iter, on_spliced, ARGS_SKB_SPLICE_FROM_ITER)

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
static __always_inline void on_use(u64 socket, u64 unused)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
	if (!sk || !running())
		return;
	struct endpoint *ep = endpoint_of(sk, SLOT_USE);
	if (ep)
		note_user(ep, false);
}
ON_ENTRY(unix_stream_recvmsg, on_use)
ON_ENTRY(unix_dgram_recvmsg, on_use)
ON_ENTRY(unix_seqpacket_recvmsg, on_use)
ON_ENTRY(unix_stream_splice_read, on_use)
ON_ENTRY(unix_bind, on_use)

#include "events.h"
