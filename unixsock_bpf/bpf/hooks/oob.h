/* MSG_OOB: the last byte of such a send goes into an sk_buff of its own, which the receiver may take
 * out of turn.  At first it was queued through skb_queue_tail, later, and in stable kernels, in place.
 * But always SIGURG is sent right after that, under the receiver's lock. */
#ifndef UNIXSOCK_OOB_H
#define UNIXSOCK_OOB_H

#define MSG_OOB 1

#ifdef UNIX_SOCK_OOB_SKB

/* Whether this sk_buff of one byte, being queued for `other`, is on_urgent's. */
static __always_inline bool is_urgent(u64 skb, u64 other)
{
	return LOAD(u64, other, UNIX_SOCK_OOB_SKB) == skb;
}

static __always_inline bool on_urgent(u32 slot, u64 other, u64 unused)
{
	if (LOAD(u16, other, SOCK_FAMILY) != AF_UNIX)
		return false; /* TCP has urgent bytes too */
	u64 skb = LOAD(u64, other, UNIX_SOCK_OOB_SKB);
	u64 sk = skb ? LOAD(u64, skb, SKB_SK) : 0;
	return sk && tell_message(slot, sk, other, skb, LOAD(u64, skb, SKB_DATA), 1, FLAG_OOB, false);
}
#else
#define is_urgent(skb, other) false
#endif

/* Whether sendmsg is going to copy from `iter` the one byte that MSG_OOB makes urgent: its last. */
static __always_inline bool is_urgent_copy(u64 iter)
{
	u64 msg = iter - MSGHDR_ITER;
	return (LOAD(u32, msg, MSGHDR_FLAGS) & MSG_OOB) && LOAD(u64, iter, IOV_ITER_COUNT) == 1;
}

#endif
