/* Threads in the middle of a send to a stream.
 *
 * Where nothing that could be hooked happens under the receiver's lock (Linux commit f4e1fb04c123, v6.17: see
 * hooks.bpf.c), the probe sees an sk_buff when it is filled.  Until it is queued, another thread may overtake it, and
 * the receiver may be shut down, so that it is not queued at all.  So each thread is noted before the probe gives its
 * message a position, until its sendmsg returns: who finds another one there says so in its record, and what sendmsg
 * did not queue is taken back. */
#ifndef UNIXSOCK_WRITERS_H
#define UNIXSOCK_WRITERS_H

#ifdef UNIX_SOCK_INQ_LEN

/* A thread is between filling and queueing for no longer than this, unless its sendmsg's return was not seen. */
#define LONGEST_SENDING 10000000000ull /* ns */

/* The current thread's place in `ep`, or NULL: there is none. */
static __always_inline struct sending *own_sending(struct endpoint *ep)
{
	u64 thread = (u32)bpf_get_current_pid_tgid();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SENDINGS; i++) {
		if (*(volatile u64 *)&ep->sendings[i].thread == thread)
			return &ep->sendings[i];
	}
	return NULL;
}

/* Notes that this thread writes to `ep`, and tells whether others may.  Of two that come at once, at least one
 * sees the other: each is noted before it looks, and noting is a barrier. */
static __always_inline bool others_write(struct endpoint *ep)
{
	u64 thread = (u32)bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns();
	u32 others = 0;
	struct sending *own = own_sending(ep);

	if (!own) {
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < SENDINGS; i++) {
			struct sending *free = &ep->sendings[i];
			if (!*(volatile u64 *)&free->claims && !count_up(&free->claims, 1)) {
				own = free;
				break;
			}
			/* Another thread was faster, or its return was never seen. */
			if (free->thread && now - free->since > LONGEST_SENDING)
				free->thread = 0;
		}
		if (!own)
			return true;
		own->filled = 0;
		own->messages = 0;
		own->recorded = 0;
		*(volatile u64 *)&own->thread = thread;
	}
	own->since = now;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SENDINGS; i++) {
		struct sending *one = &ep->sendings[i];
		others += *(volatile u64 *)&one->claims && one->thread != thread;
	}
	return others != 0;
}

/* Notes what the current thread filled last. */
static __always_inline void note_filled(struct endpoint *ep, u64 end, u32 len, bool recorded)
{
	struct sending *own = own_sending(ep);
	if (!own)
		return;
	own->filled += len;
	own->end = end;
	own->messages++;
	own->recorded = recorded;
}

/* All that this thread filled is queued, or will never be: of that these are the last `undelivered` bytes. */
static __always_inline u32 end_writing(struct endpoint *ep, int result, u64 *seq)
{
	struct sending *own = own_sending(ep);
	u64 sent = result > 0 ? result : 0;

	if (!own)
		return 0;
	u64 undelivered = own->filled > sent ? own->filled - sent : 0;
	*seq = own->end - undelivered;
	if (undelivered) {
		struct totals *t = get_totals();
		__sync_fetch_and_add(&ep->flow.bytes, -undelivered);
		__sync_fetch_and_add(&ep->flow.messages, -1);
		if (t && own->recorded) {
			__sync_fetch_and_add(&t->bytes, -undelivered);
			__sync_fetch_and_add(&t->messages, -1);
		}
		if (!own->recorded)
			undelivered = 0;
	}
	*(volatile u64 *)&own->thread = 0;
	__sync_fetch_and_add(&own->claims, -1);
	return undelivered;
}

#endif
#endif
