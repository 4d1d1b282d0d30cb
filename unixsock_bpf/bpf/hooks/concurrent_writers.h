/* Threads that write to one stream at once.
 *
 * Where the order of their messages is settled without a lock that could be hooked (Linux commit f4e1fb04c123,
 * v6.17: see hooks.bpf.c), a thread may be overtaken between the moment at which the probe sees its filled sk_buff
 * and that at which this is queued.  Each is noted before the probe gives its message a position, until its
 * sendmsg returns; whoever then finds another one there says so in its record. */
#ifndef UNIXSOCK_WRITERS_H
#define UNIXSOCK_WRITERS_H

#ifdef UNIX_SOCK_INQ_LEN

/* Notes that this thread writes to `ep`, and tells whether others do.  Of two that come at once, at least one
 * sees the other: each is noted before it looks, and noting is a barrier. */
static __always_inline bool others_write(struct endpoint *ep)
{
	u64 thread = (u32)bpf_get_current_pid_tgid();
	u32 others = 0;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < WRITERS; i++) {
		u64 writer = *(volatile u64 *)&ep->writers[i];
		if (writer == thread || (!writer && !count_up(&ep->writers[i], thread)))
			break;
		if (!writer) /* another thread was faster */
			count_up(&ep->writers[i], -thread);
	}
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < WRITERS; i++) {
		u64 writer = *(volatile u64 *)&ep->writers[i];
		others += writer && writer != thread;
	}
	return others != 0;
}

/* All that this thread filled is queued: it races with nobody who comes later. */
static __always_inline void end_writing(u64 sk)
{
	u64 thread = (u32)bpf_get_current_pid_tgid();
	struct endpoint *ep = endpoints.lookup(&sk);

	if (!ep)
		return;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < WRITERS; i++) {
		if (ep->writers[i] == thread)
			ep->writers[i] = 0;
	}
}

#else
#define others_write(ep) false
#define end_writing(sk)
#endif
#endif
