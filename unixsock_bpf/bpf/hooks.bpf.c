// SPDX-License-Identifier: GPL-2.0-or-later
/* The programs that are attached.  They take each message on an AF_UNIX socket where the filled sk_buff is put on the
 * receiver's queue.  There the bytes are exactly those that the receiver will read, both socks are
 * known, and no answer can have been sent yet.
 *
 * A hook notes what it saw and goes on by a tail call (hooks/attach.h) to a program of records.bpf.c, or to
 * `news` below.  compiler.py runs this through bcc, with the layouts that probe/offsets.py found in BTF as macros.
 */
#include "kernel/bpf_helpers.h"
#include <asm/ptrace.h>
#include "record.h"
#include "kernel/read.h"
#include "state/state.h"
#include "hooks/attach.h"
#include "kernel/dentry_path.h"
#include "state/bound_names.h"
#include "state/endpoint.h"
#include "state/conversation.h"
#include "hooks/concurrent_writers.h"
#include "records/payload.h"

#define COPY_MEMBER(type, offset) *(type *)(to + (offset)) = *(type *)(skb + (offset))

/* Copies what `message` needs of an sk_buff; zeros where there is none.  `typed`: it is an argument of an fentry
 * program, which may read it without a helper. */
static __always_inline void copy_skb(u8 *to, u64 skb, bool typed)
{
	if (!typed) {
		bpf_probe_read_kernel(to, SKB_SIZE, (void *)skb);
		return;
	}
	COPY_MEMBER(u32, SKB_LEN);
	COPY_MEMBER(u32, SKB_DATA_LEN);
	COPY_MEMBER(u32, SKB_END);
	COPY_MEMBER(u64, SKB_HEAD);
	COPY_MEMBER(u64, SKB_DATA);
	COPY_MEMBER(u64, SKB_CB + PARMS_PID);
	COPY_MEMBER(u32, SKB_CB + PARMS_UID);
	COPY_MEMBER(u32, SKB_CB + PARMS_GID);
	COPY_MEMBER(u64, SKB_CB + PARMS_FP);
#ifdef PARMS_SECID
	COPY_MEMBER(u32, SKB_CB + PARMS_SECID);
#endif
}

/* `len` bytes go from `sk` to `other`: those of `skb`, or if `address` is not 0, those there.  `typed`: as above. */
static __always_inline bool tell_message(u32 slot, u64 sk, u64 other, u64 skb, u64 address, u32 len, u32 flags,
					 bool typed)
{
	struct settings *set = get_settings();
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!set)
		return false;
	/* The self-test's messages go on to `message`, which counts them, before the capture runs. */
	if (!set->running && !set->prover) {
		if (ep)
			count_paused(ep, other, len);
		return false;
	}
	/* This is all that a socket costs that the filter leaves out.  It may have got a name since. */
	if (ep && left_out(ep, other) && (ep->named || !LOAD(u64, sk, UNIX_SOCK_ADDR))) {
		count_unseen(ep, len);
		return false;
	}
	struct scratch *s = get_scratch(bpf_get_smp_processor_id(), slot);
	if (!s) { /* on a processor that came after the start */
		struct totals *t = get_totals();
		if (t)
			__sync_fetch_and_add(&t->untracked, 1);
		return false;
	}
	copy_skb(s->skb, skb, typed);
	s->call.sk = sk;
	s->call.other = other;
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
	s->call.listener = 0;
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

#include "hooks/oob.h"
#include "hooks/sendpage.h"

/* Datagrams and seqpackets, and streams before they were appended to the receiver's queue in place
 * (Linux commit f4e1fb04c123 ("af_unix: Use cached value for SOCK_STREAM in unix_inq_len()."), v6.17).
 * The receiver's lock is held, so order is the receiver's. */
static __always_inline bool on_queue(u32 slot, u64 list, u64 skb)
{
	u64 sk = PEEK(slot, u64, skb, SKB_SK);
	if (!sk || PEEK(slot, u16, sk, SOCK_FAMILY) != AF_UNIX)
		return false;
	u64 other = list - SOCK_RECEIVE_QUEUE;
	u32 len = PEEK(slot, u32, skb, SKB_LEN);
	if (len == 1 && is_urgent(skb, other))
		return false; /* on_urgent's */
	/* unix_gc puts back what io_uring keeps its files in: a socket that no process has a descriptor of. */
	if (sk == other && !len && !LOAD(u64, LOAD(u64, sk, SOCK_SOCKET), SOCKET_FILE))
		return false;
	return tell_message(slot, sk, other, skb, 0, len, 0, slot != KPROBE_SLOT);
}

#ifdef UNIX_SOCK_INQ_LEN
#define RCV_SHUTDOWN 1

/* Streams since then: the sk_buff is filled, and is queued next unless the receiver is gone. */
static __always_inline bool on_filled(u32 slot, u64 skb)
{
	u64 sk = LOAD(u64, skb, SKB_SK);
	u32 len = LOAD(u32, skb, SKB_LEN);
	u64 other = peer_of(sk);
	if (!other || (LOAD(u64, other, SOCK_FLAGS) & 1 << SOCK_DEAD_BIT) ||
	    (LOAD(u8, other, SOCK_SHUTDOWN) & RCV_SHUTDOWN))
		return false;
	return tell_message(slot, sk, other, skb, 0, len, 0, false);
}

/* Before: whether it is a stream's sk_buff, since others fill them by these functions, too. */
static __always_inline u64 keep_spliced(const struct arguments *args)
{
	u64 sk = LOAD(u64, args->first, SKB_SK);
	if (!sk || LOAD(u16, sk, SOCK_FAMILY) != AF_UNIX || LOAD(u16, sk, SOCK_TYPE) != TYPE_STREAM)
		return 0;
	return args->first;
}

static __always_inline bool on_spliced(u32 slot, u64 skb, int result)
{
	return result > 0 && on_filled(slot, skb);
}

static __always_inline u64 keep_copied(const struct arguments *args)
{
	u64 skb = keep_spliced(args);
	if (skb && args->fourth == 1 && is_urgent_copy(args->third))
		return 0; /* on_urgent's */
	return skb;
}

static __always_inline bool on_copied(u32 slot, u64 skb, int result)
{
	return !result && on_filled(slot, skb);
}
#endif

static __always_inline bool is_used(u32 slot, u64 sk)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep && ((ep->type != TYPE_DGRAM && left_out(ep, 0)) || is_current(&ep->users[READER])))
		return false;
	return tell_event(slot, sk, 0, NO_EVENT, NEWS_READ);
}

/* Who reads: recvmsg and its kin begin with the socket. */
static __always_inline bool on_use(u32 slot, u64 socket, u64 unused)
{
	return is_used(slot, PEEK(slot, u64, socket, SOCKET_SK));
}

static __always_inline bool on_sock_use(u32 slot, u64 sk, u64 unused)
{
	return is_used(slot, sk);
}

/* The program for what is never recorded. */
int news(void *ctx)
{
	u32 slot;
	GET_SLOT(slot);
	struct small_scratch *s = get_small_scratch(slot);
	struct workspace *w = get_workspace(workspace_at(bpf_get_smp_processor_id(), slot));
	struct sides sides = {};

	if (s && w)
		remembered(&sides, w, s->call.sk, s->call.other, s->call.listener, s->call.news, false);
	return 0;
}

#include "hooks/fd_passing.h"
#include "hooks/bind.h"
#include "hooks/lifecycle.h"
#include "hooks/refused.h"
