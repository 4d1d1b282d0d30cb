// SPDX-License-Identifier: GPL-2.0-or-later
/* What lies behind the hooks' gates and makes the records. */
#include "kernel/bpf_helpers.h"
#include <asm/ptrace.h>
#include "record.h"
#include "kernel/read.h"
#include "state/state.h"
#include "kernel/dentry_path.h"
#include "state/bound_names.h"
#include "state/endpoint.h"
#include "state/conversation.h"
#include "hooks/concurrent_writers.h"
#include "filter/verdict.h"
#include "records/write.h"
#include "records/payload.h"
#include "records/fds.h"
#include "records/ancillary.h"

/* Which direction a message of this type counts in. */
static __always_inline void find_flow(struct sides *sides, u32 type)
{
	sides->flow = sides->dst && type == TYPE_DGRAM ? dgram_flow(sides->src, sides->dst) : &sides->src->flow;
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

/* One step of send_payload, for the scratch `at`, the last one if more steps would be too many.  Between two steps
 * everything lies in maps: see struct cursor. */
u64 payload_step(u64 at)
{
	u32 key = at;
	bool last = at & LAST_STEP;
	struct scratch *s = scratches.lookup(&key);
	if (!s)
		return PAYLOAD_LOST;
	volatile struct record_header *r = &((struct frame *)s->data)->record;
	volatile struct message *m = &s->message;
	volatile struct cursor *c = &s->cursor;

	copy_piece(s);
	if (c->took && c->wanted && c->done < MAX_PAYLOAD && !last)
		return PAYLOAD_GOES_ON;
	r->offset = c->before;
	r->flags = c->flags;
	if (c->took && c->wanted && !last)
		r->flags |= FLAG_MORE;
	else if (c->wanted)
		r->flags |= FLAG_TRUNCATED | FLAG_UNREADABLE;
	else if (c->before + c->done < m->len)
		r->flags |= FLAG_TRUNCATED;
	if (send_block(s->data, m->at, c->done))
		return PAYLOAD_LOST;
	c->before += c->done;
	c->done = 0;
	return r->flags & FLAG_MORE ? PAYLOAD_GOES_ON : PAYLOAD_SENT;
}

#ifdef DYNPTR
/* Sends a message that fits into one record, for the scratch `at`, with a single copy of its bytes: from where they lie
 * into the ring.  PAYLOAD_GOES_ON: some can't be read, and nothing was sent. */
u64 payload_at_once(u64 at)
{
	u32 key = at;
	struct scratch *s = scratches.lookup(&key);
	if (!s)
		return PAYLOAD_LOST;
	volatile struct cursor *c = &s->cursor;
	u64 begin = c->address, head = s->message.at, wanted = c->wanted;
	u32 left = c->left;
	u64 end = head + wanted;
	BOUND(head, 0x3fff);
	BOUND(end, 0x3ffff);
	u64 tail = tail_len((struct frame *)s->data);
	u64 padded = put_lengths((struct frame *)s->data, head, end, wanted, tail);

	struct bpf_dynptr record;
	if (ring.ringbuf_output(&record, padded + tail, RB_RESERVE)) {
		bpf_ringbuf_discard_dynptr(&record, 0);
		return PAYLOAD_LOST;
	}
	bpf_dynptr_write(&record, 0, s->data, head, 0);
	u8 *part = s->data + HEAD_SPACE;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < CHUNKS; FILTER_NEXT(i)) {
		if (!c->wanted)
			break;
		if (!c->left && c->fragment < c->fragment_count)
			next_fragment(c);
		void *address = (void *)c->address;
		u64 to = s->message.at + c->done, take = least(least(c->left, c->wanted), CHUNK);
		if (!take)
			break;
		if (take == CHUNK) {
			u8 *chunk = bpf_dynptr_data(&record, to, CHUNK);
			if (!chunk || bpf_probe_read_kernel(chunk, CHUNK, address))
				break;
		} else {
			BOUND(take, 0xfff);
			if (bpf_probe_read_kernel(part, take, address))
				break;
			bpf_dynptr_write(&record, to, part, take, 0);
		}
		c->address += take;
		c->left -= take;
		c->done += take;
		c->wanted -= take;
	}
	if (c->wanted) {
		bpf_ringbuf_discard_dynptr(&record, 0);
		c->address = begin;
		c->left = left;
		c->fragment = 0;
		c->done = 0;
		c->wanted = wanted;
		return PAYLOAD_GOES_ON;
	}
	u64 padding = padded - end;
	BOUND(padding, 3);
	*(u32 *)part = 0;
	tail = tail_len((struct frame *)s->data);
	put_tail(part + padding, (struct frame *)s->data, tail);
	bpf_dynptr_write(&record, end, part, padding + tail, 0);
	bpf_ringbuf_submit_dynptr(&record, RB_WAKE_IF_NEEDED);
	return PAYLOAD_SENT;
}
#endif

/* Sends the payload after the head that is in `s`, in as many records as it takes.  0: all of it. */
static __always_inline int send_payload(struct scratch *s, u32 at)
{
	volatile struct record_header *r = &((struct frame *)s->data)->record;
	volatile struct message *m = &s->message;
	u32 snaplen, len = m->len;
	GET_SNAPLEN(snaplen);
	u64 wanted = len < snaplen ? len : snaplen;

	/* Most messages are short and lie in one place. */
	if (wanted < SHORT && wanted <= s->cursor.left) {
		u64 to = m->at, take = wanted;
		BOUND(to, 0x3ffff);
		BOUND(take, 0xfff);
		if (!bpf_probe_read_kernel(s->data + to, take, (void *)s->cursor.address)) {
			if (wanted < len)
				r->flags |= FLAG_TRUNCATED;
			return send_block(s->data, to, take);
		}
	}
	s->cursor.flags = r->flags;
	s->cursor.wanted = wanted;
#ifdef DYNPTR
	if (wanted >= SHORT && wanted <= AT_ONCE && s->cursor.fragment_count <= AT_ONCE_FRAGMENTS) {
		if (wanted < len)
			r->flags |= FLAG_TRUNCATED;
		u64 done = call_payload_at_once(at);
		if (done != PAYLOAD_GOES_ON)
			return done == PAYLOAD_LOST;
		r->flags = s->cursor.flags;
	}
#endif
#pragma clang loop unroll(disable)
	for (u32 step = 0; step < STEPS; step++) {
		u64 done = call_payload_step(at | (step == STEPS - 1 ? LAST_STEP : 0));
		if (done != PAYLOAD_GOES_ON)
			return done == PAYLOAD_LOST;
	}
	return 0;
}

/* The probe's test of itself (probe/self_test.py), before the capture begins: counts what its own socket sent. */
static __always_inline bool prove(struct settings *set, struct totals *t, u64 sk, u32 len)
{
	if (!set->prover)
		return false;
	if (inode_of(sk) == set->prover)
		__sync_fetch_and_add(&t->proved, len);
	return true;
}

/* What was queued for a receiver. */
static __always_inline void on_message(u32 slot)
{
	u32 cpu = bpf_get_smp_processor_id(), at = workspace_at(cpu, slot);
	struct totals *t = get_totals();
	struct settings *set = get_settings();
	struct workspace *w = get_workspace(at);
	struct scratch *s = get_scratch(cpu, slot);
	struct sides sides = {};

	if (!t || !set || !s || !w)
		return;
	u32 generation = set->generation;
	u32 len = s->call.len;
	if (!set->running && prove(set, t, s->call.sk, len))
		return;
	if (!remembered(&sides, w, s->call.sk, s->call.other, 0, NEWS_USED, true)) {
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
	take_ancillary(&s->ancillary, s->skb, s->call.other);
	volatile struct call *call = &s->call;
	/* Before there are two kinds of flow: the verifier would follow the filter for both. */
	bool through = wanted(m, &sides, call, s->ancillary.fds, s->ancillary.creds, 0, w, at, generation);
	take_flow(m, &sides, call->sk, call->other);
#ifdef UNIX_SOCK_INQ_LEN
	if (m->type == TYPE_STREAM && others_write(sides.src))
		m->flags |= FLAG_UNORDERED;
#endif
	m->seq = count_up(&sides.flow->bytes, len);
	m->number = count_up(&sides.flow->messages, 1);
#ifdef UNIX_SOCK_INQ_LEN
	if (m->type == TYPE_STREAM)
		note_filled(sides.src, m->seq + len, len, through);
#endif
	if (!through || !sides.dst)
		return;
	__sync_fetch_and_add(&t->messages, 1);
	__sync_fetch_and_add(&t->bytes, len);
	if (begun(s->data, m, &sides, set, w))
		return;
	/* The verifier would follow both kinds of flow through all that comes. */
	sides.flow = NULL;
	put_ancillary(s->data, m, &s->ancillary);
	if (s->call.address)
		cursor_at(&s->cursor, s->call.address, len);
	else
		cursor_at_skb(&s->cursor, s->skb);
	if (send_payload(s, scratch_at(cpu, slot))) {
		m->len -= s->cursor.before;
		m->seq += s->cursor.before;
		find_flow(&sides, m->type);
		lose(m, &sides, LOST_RING_FULL);
	} else if (((struct frame *)s->data)->record.flags & FLAG_TRUNCATED) {
		__sync_fetch_and_add(&t->truncated, 1);
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

/* A stream or seqpacket without a name that nothing was heard of but, perhaps, a refused connect. */
static __always_inline bool never_connected(struct sides *sides)
{
	struct endpoint *src = sides->src;
	return !sides->dst && src->type != TYPE_DGRAM && !src->named && !src->client && !src->server && !src->emitted;
}

/* Makes a record of what happened, where that is wanted. */
static __always_inline void on_event(u32 slot)
{
	u32 at = workspace_at(bpf_get_smp_processor_id(), slot);
	struct small_scratch *s = get_small_scratch(slot);
	struct settings *set = get_settings();
	struct workspace *w = get_workspace(at);
	struct sides sides = {};

	if (!s || !set || !w)
		return;
	volatile struct call *call = &s->call;
	u8 event = call->event;
	if (!remembered(&sides, w, call->sk, call->other, call->listener, call->news, false)) {
		struct totals *t = get_totals();
		if (sides.untracked && t)
			__sync_fetch_and_add(&t->lost_events, 1);
		return;
	}
	u32 generation = set->generation, index = generation & 1;
	struct filter *f = filters.lookup(&index);
	/* What is taken back went out before. */
	bool undelivered = event == EVENT_UNDELIVERED;
	/* Readers want to know that a stream has ended. */
	if (!f || (!f->events && !undelivered && (event != EVENT_CLOSE || !sides.src->emitted)))
		return;
	if (event == EVENT_CLOSE && never_connected(&sides) && !(f->events & EVENTS_CLOSE))
		return;
	volatile struct message *m = &s->message;
	m->event = event;
	m->type = sides.src->type;
	m->len = 0;
	m->flags = s->call.flags;
	if (!undelivered && !wanted(m, &sides, call, 0, 0, 0, w, at, generation))
		return;
	take_flow(m, &sides, call->sk, call->other);
	if (undelivered) {
		m->seq = call->seq;
		m->len = call->len;
	}
	if (begun(s->data, m, &sides, set, w))
		return;
	if (s->call.element)
		put_number(s->data, m, s->call.element, s->call.value);
	if (send_small(s->data, m->at))
		lose(m, &sides, LOST_RING_FULL);
}

int event(void *ctx)
{
	u32 slot;
	GET_SLOT(slot);
	on_event(slot);
	return 0;
}

#include "records/refused.h"

int remember(void *ctx)
{
	return take_news(ctx);
}

u64 pid_number(u64 pid)
{
	struct settings *set = get_settings();
	return set ? find_number(pid, set->pid_namespace) : 0;
}

int begin_record(void *ctx)
{
	struct begin_part *part = ctx;
	return begin(part->data, part->m, part->sides, part->set, part->w);
}
