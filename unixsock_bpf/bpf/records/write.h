/* Putting a record together and into the ring. */
#ifndef UNIXSOCK_EMIT_H
#define UNIXSOCK_EMIT_H

#include "state/subprograms.h"

/* Of the kernel's helpers for rings: it wakes the reader where that has taken all that was there before, which is
 * once in a batch, and leaves no moment in which a record comes and a reader goes to sleep. */
#define RB_WAKE_IF_NEEDED 0

/* Elements of fixed and short length lie in the first 4 kB. */
static __always_inline u8 *head_at(u8 *data, u64 at)
{
	BOUND(at, 0xfff);
	return data + at;
}

/* An element of up to 0x1ff bytes. */
static __always_inline void put_text(u8 *data, volatile struct message *m, u32 type, const u8 *text, u64 len)
{
	u64 at = m->at;
	u8 *to = head_at(data, at);
	BOUND(len, 0x1ff);
	*(u32 *)to = type | (u32)len << 16;
	u8 *end = to + (len & 0x1fc);
	*(u32 *)(end + 4) = 0;
	bpf_probe_read_kernel(to + 4, len, text);
	m->at = at + 4 + ((len + 3) & ~3u);
}

/* The same for a comm, whose 16 bytes end in zeros; what is beyond its length the next element overwrites. */
static __always_inline void put_comm(u8 *data, volatile struct message *m, u32 type, const u8 *comm, u64 len)
{
	u64 at = m->at;
	u8 *to = head_at(data, at);
	*(u32 *)to = type | (u32)len << 16;
	copy_comm(to + 4, comm);
	m->at = at + 4 + ((len + 3) & ~3u);
}

/* The same for a text in a field of `room` bytes, a constant, that ends in zeros, too: a helper takes longer than these
 * few words. */
static __always_inline void put_words(u8 *data, volatile struct message *m, u32 type, const u8 *text, u64 len, u32 room)
{
	u64 at = m->at;
	u8 *to = head_at(data, at);
	*(u32 *)to = type | (u32)len << 16;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < room; i += 8)
		*(u64 *)(to + 4 + i) = *(const u64 *)(text + i);
	m->at = at + 4 + ((len + 3) & ~3u);
}

/* The path of a cgroup.  Most records follow one of the same cgroup: its path is kept if it is short.  It never changes,
 * and no other cgroup gets the id. */
static __always_inline void put_cgroup(u8 *data, volatile struct message *m, u64 id, struct workspace *w)
{
	if (!id)
		return;
	if (w->path_of != id) {
		struct cgroup_line *line = cgroups.lookup(&id);
		if (!line || !line->len)
			return;
		if (line->len >= sizeof(w->path)) {
			put_text(data, m, ELEMENT_CGROUP, line->path, line->len);
			return;
		}
		u64 len = line->len;
		BOUND(len, 0x7f);
#pragma clang loop unroll(full)
		for (u32 i = 0; i < sizeof(w->path); i += 8)
			*(u64 *)(w->path + i) = 0;
		bpf_probe_read_kernel(w->path, len, line->path);
		w->path_len = len;
		w->path_of = id;
	}
	put_words(data, m, ELEMENT_CGROUP, w->path, w->path_len, sizeof(w->path));
}

/* Frame, header and the elements that say who and where. */
static __always_inline void put_head(u8 *data, volatile struct message *m, struct sides *sides, struct settings *set,
				     struct workspace *w)
{
	struct frame *frame = (struct frame *)data;
	u64 now = bpf_ktime_get_boot_ns() + set->clock_offset;

	frame->block_type = BLOCK_EPB;
	frame->interface_id = 0;
	frame->time_high = now >> 32;
	frame->time_low = now;
	frame->prefix[0] = PREFIX_0;
	frame->prefix[1] = PREFIX_1;
	frame->prefix[2] = PREFIX_2;
	frame->prefix[3] = PREFIX_3;

	volatile struct record_header *r = &frame->record;
	struct endpoint *src = sides->src, *dst = sides->dst;
	struct user *from = &w->users[0], *to = &w->users[1];
	r->version = RECORD_VERSION;
	r->event = m->event;
	r->type = m->type;
	r->role = m->role;
	r->flags = m->flags;
	r->src_pid = from->pid;
	r->src_tid = current_tid(from, set);
	r->src_uid = from->uid;
	r->src_gid = from->gid;
	r->netns = src->netns;
	r->src_sock = src->id;
	r->src_inode = src->inode;
	r->dst_pid = 0;
	r->dst_uid = 0;
	r->dst_gid = 0;
	r->dst_sock = 0;
	r->dst_inode = 0;
	r->seq = m->seq;
	r->ack = m->ack;
	r->message = m->number;
	r->len = m->len;
	r->offset = 0;
	if (from->owner)
		r->flags |= FLAG_SRC_CREDS;
	if (src->from_start)
		r->flags |= FLAG_FROM_START;
	if (dst) {
		r->dst_pid = to->pid;
		r->dst_uid = to->uid;
		r->dst_gid = to->gid;
		r->dst_sock = dst->id;
		r->dst_inode = dst->inode;
		if (to->owner)
			r->flags |= FLAG_DST_CREDS;
		if (to->owner == OWNER_GUESSED)
			r->flags |= FLAG_DST_GUESSED;
	}
	m->at = sizeof(struct frame);
	struct endpoint *ends[2] = { src, dst };
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		struct endpoint *ep = ends[i];
		if (!ep)
			break;
		if (w->users[i].comm_len)
			put_comm(data, m, ELEMENT_SRC_COMM + i, w->users[i].comm, w->users[i].comm_len);
		if (ep->name_len)
			put_words(data, m, ELEMENT_SRC_NAME + i, ep->name, ep->name_len, NAME_SIZE);
		struct place *place = ep->place ? places.lookup(&ep->place) : NULL;
		if (place)
			put_text(data, m, ELEMENT_SRC_PATH + i, place->path, place->len);
	}
	put_cgroup(data, m, from->cgroup, w);
}

/* Bytes behind the padded payload: the option epb_processid_threadid with the options' end, if the sender is known, and
 * the block's length. */
static __always_inline u64 tail_len(struct frame *frame)
{
	u64 options = -(u64)frame->record.src_pid >> 59;
	BOUND(options, 16); /* in a way that LLVM makes no jump of */
	return options + 4;
}

/* Writes them: 20 bytes, of which `tail` count. */
static __always_inline void put_tail(u8 *to, struct frame *frame, u64 tail)
{
	*(u32 *)to = OPTION_PROCESS | 8 << 16;
	*(u32 *)(to + 4) = frame->record.src_pid;
	*(u32 *)(to + 8) = frame->record.src_tid;
	*(u32 *)(to + 12) = 0;
	*(u32 *)(to + tail - 4) = frame->block_len;
}

/* Writes the lengths of a block whose payload of `caplen` bytes lies from `at` to `end`; returns where its tail of `tail`
 * bytes begins. */
static __always_inline u64 put_lengths(struct frame *frame, u64 at, u64 end, u32 caplen, u64 tail)
{
	u64 padded = end + 3;
	BOUND(padded, 0x3fffc);
	frame->record.header_len = at - __builtin_offsetof(struct frame, record);
	frame->record.caplen = caplen;
	frame->caplen = frame->origlen = end - __builtin_offsetof(struct frame, prefix);
	frame->block_len = padded + tail;
	return padded;
}

/* Ends the block, whose payload of `caplen` bytes begins at `at`, and sends it.  0: it went out. */
static __always_inline int send_block(u8 *data, u64 at, u32 caplen)
{
	struct frame *frame = (struct frame *)data;
	u64 end = at + caplen, tail = tail_len(frame);
	BOUND(end, 0x3ffff);
	u64 padded = put_lengths(frame, at, end, caplen, tail);
	*(u32 *)(data + end) = 0;
	put_tail(data + padded, frame, tail);
	return ring.ringbuf_output(data, padded + tail, RB_WAKE_IF_NEEDED);
}

/* The same for a block without payload in a small_scratch. */
static __always_inline int send_small(u8 *data, u64 at)
{
	struct frame *frame = (struct frame *)data;
	u64 tail = tail_len(frame);
	BOUND(at, 0xffc);
	put_lengths(frame, at, at, 0, tail);
	put_tail(data + at, frame, tail);
	return ring.ringbuf_output(data, at + tail, RB_WAKE_IF_NEEDED);
}

/* Announces the processes behind the pseudo addresses of both sides to the reader, where it does not know them yet. */
static __always_inline void announce(struct sides *of, struct workspace *w)
{
	struct endpoint *sides[2] = { of->src, of->dst };
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 2; i++) {
		struct endpoint *ep = sides[i], *other = sides[1 - i];
		struct user *user = &w->users[i];
		/* A socket is named after who writes, and until then after who reads. */
		if (!ep || !user->tag || ep->announced == user->tag || (i && ep->announced && ep->users[WRITER].owner))
			continue;
		struct announcement *a = ring.ringbuf_reserve(sizeof(*a));
		if (!a)
			return;
		struct endpoint *named = ep->name_len || !other ? ep : other;
		a->block_type = ANNOUNCEMENT;
		a->block_len = sizeof(*a);
		a->sock = ep->id;
		a->pid = user->pid;
		a->name_len = named->name_len;
		copy_comm(a->comm, user->comm);
		bpf_probe_read_kernel(a->name, sizeof(a->name), named->name);
		ring.ringbuf_submit(a, RB_WAKE_IF_NEEDED);
		ep->announced = user->tag;
	}
}

/* Counts a message that could not be captured against its direction. */
static __always_inline void lose(volatile struct message *m, struct sides *sides, u32 reason)
{
	struct flow *flow = sides->flow;
	struct totals *t = get_totals();
	if (m->event != EVENT_DATA) {
		if (t)
			__sync_fetch_and_add(&t->lost_events, 1);
		return;
	}
	if (!flow->lost_messages) {
		flow->lost_at = m->seq;
		flow->lost_message = m->number;
	}
	flow->lost_reasons |= reason;
	/* In this order, so that a thread that sees the message counted sees its bytes counted. */
	__sync_fetch_and_add(&flow->lost_bytes, m->len);
	__sync_fetch_and_add(&flow->lost_messages, 1);
	sides->src->lossy = 1;
	if (t) {
		__sync_fetch_and_add(&t->lost_messages, 1);
		__sync_fetch_and_add(&t->lost_bytes, m->len);
	}
}

/* Begins a record.  If messages fell out of this direction since the last one, a record of that goes
 * out before.  0: the caller may go on; else the ring is full, and the message is counted as lost. */
static __always_inline int begin(u8 *data, volatile struct message *m, struct sides *sides, struct settings *set,
				 struct workspace *w)
{
	struct flow *flow = sides->flow;
	announce(sides, w);
	u32 round = 0;
	do {
		put_head(data, m, sides, set, w);
		struct record_header *r = &((struct frame *)data)->record;
		u64 messages = *(volatile u64 *)&flow->lost_messages, bytes = *(volatile u64 *)&flow->lost_bytes;
		if (!messages)
			return 0;
		r->event = EVENT_LOST;
		r->seq = flow->lost_at;
		r->message = flow->lost_message;
		r->len = 0;
		/* Subtracted before they are reported, so that only one of two threads that write at once reports them. */
		if (count_up(&flow->lost_messages, -messages) < messages) {
			__sync_fetch_and_add(&flow->lost_messages, messages);
			messages = 0;
			bytes = 0;
		}
		__sync_fetch_and_add(&flow->lost_bytes, -bytes);
		u64 at = m->at;
		u8 *to = head_at(data, at);
		*(u32 *)to = ELEMENT_LOST | 20 << 16;
		*(u64 *)(to + 4) = messages;
		*(u64 *)(to + 12) = bytes;
		*(u32 *)(to + 20) = flow->lost_reasons;
		if (messages && send_small(data, at + 24)) {
			__sync_fetch_and_add(&flow->lost_bytes, bytes);
			__sync_fetch_and_add(&flow->lost_messages, messages);
			break;
		}
		/* The end of the loop has to be a condition for the verifier, not a jump. */
		asm volatile("%0 += 1" : "+r"(round));
	} while (round < 2);
	lose(m, sides, LOST_RING_FULL);
	return 1;
}

#endif
