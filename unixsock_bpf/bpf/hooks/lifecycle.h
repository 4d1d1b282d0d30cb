/* Life cycle: where connections begin and end, and sends that failed. */

/* The process that closes it last, as a rule at its exit, does not count as its user. */
static __always_inline bool on_close(u32 slot, u64 sk, u64 unused)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!ep || ep->closed)
		return false;
	ep->closed = 1;
	return tell_event(slot, sk, peer_of(sk), EVENT_CLOSE, NEWS_ENDED);
}

/* No message will count here any more. */
static __always_inline void forget_flow(struct pair *pair)
{
	struct flow *flow = flows.lookup(pair);
	if (flow && !flow->lost_messages)
		flows.delete(pair);
}

/* The kernel frees the sock: its address may be used again. */
static __always_inline bool on_free(u64 sk, u64 unused)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	struct totals *t = get_totals();
	if (!ep || !t)
		return false;
	if (ep->refused)
		__sync_fetch_and_add(&t->renames, 1);
	if (ep->lossy) {
		orphans.update(&ep->id, ep);
	} else if (ep->type == TYPE_DGRAM) {
		struct pair pair = { ep->id, ep->peer_id }, back = { ep->peer_id, ep->id };
		forget_flow(&pair);
		forget_flow(&back);
	}
	endpoints.delete(&sk);
	return false;
}

static __always_inline bool is_connected(u32 slot, u64 sk, u64 other)
{
	return tell_event(slot, sk, other, EVENT_CONNECT, NEWS_USED | NEWS_PAIRED | NEWS_CLIENT);
}

/* The last that can fail.  Many threads may sleep in connect, none does here. */
static __always_inline bool on_connect(u32 slot, const struct arguments *args, int result)
{
	struct small_scratch *s = get_small_scratch(slot);
	u64 sk = args->first, listener = args->second, other = args->third;
	if (result || !s || !is_connected(slot, sk, other))
		return false;
	s->call.listener = listener;
	return true;
}

/* Without CONFIG_SECURITY_NETWORK. */
static __always_inline bool on_connected(u32 slot, const struct arguments *args, int result)
{
	u64 sk = PEEK(slot, u64, args->first, SOCKET_SK);
	u64 other = peer_of(sk);
	return !result && other && is_connected(slot, sk, other);
}

static __always_inline bool is_accepted(u32 slot, u64 sk)
{
	return tell_event(slot, sk, peer_of(sk), EVENT_ACCEPT, NEWS_USED | NEWS_SERVER);
}

/* All that can fail is over.  Many threads may sleep in accept, none does here. */
static __always_inline bool on_graft(u32 slot, u64 sk, u64 unused)
{
	return LOAD(u16, sk, SOCK_FAMILY) == AF_UNIX && is_accepted(slot, sk);
}

/* Without CONFIG_SECURITY_NETWORK. */
static __always_inline bool on_accept(u32 slot, const struct arguments *args, int result)
{
	return !result && is_accepted(slot, LOAD(u64, args->second, SOCKET_SK));
}

static __always_inline bool on_socketpair(u32 slot, const struct arguments *args, int result)
{
	u64 sk = LOAD(u64, args->first, SOCKET_SK);
	u64 other = LOAD(u64, args->second, SOCKET_SK);
	struct small_scratch *s = get_small_scratch(slot);
	if (result || !s || !tell_event(slot, sk, other, EVENT_CONNECT, NEWS_USED | NEWS_PAIRED))
		return false;
	s->call.flags = FLAG_SOCKETPAIR;
	return true;
}

#ifdef UNIX_SOCK_INQ_LEN
/* `len` bytes from `seq` on were not queued, though the probe saw them filled. */
static __always_inline bool tell_undelivered(u32 slot, u64 sk, u32 len, u64 seq, int result)
{
	struct small_scratch *s = get_small_scratch(slot);
	if (!s || !tell_event(slot, sk, peer_of(sk), EVENT_UNDELIVERED, NEWS_USED | NEWS_ENDED))
		return false;
	s->call.len = len;
	s->call.seq = seq;
	s->call.element = result < 0 ? ELEMENT_ERROR : 0;
	s->call.value = -result;
	return true;
}
#endif

static __always_inline u64 keep_first(const struct arguments *args)
{
	return args->first;
}

static __always_inline bool on_stream_sent(u32 slot, u64 socket, int result)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
#ifdef UNIX_SOCK_INQ_LEN
	struct endpoint *ep = endpoints.lookup(&sk);
	u64 seq = 0;
	u32 undelivered = ep ? end_writing(ep, result, &seq) : 0;
	if (undelivered)
		return tell_undelivered(slot, sk, undelivered, seq, result);
#endif
	return result < 0 && tell_more(slot, sk, peer_of(sk), EVENT_SEND_ERROR, ELEMENT_ERROR, -result);
}

static __always_inline bool on_shutdown(u32 slot, const struct arguments *args, int result)
{
	u64 sk = LOAD(u64, args->first, SOCKET_SK);
	return !result && tell_more(slot, sk, peer_of(sk), EVENT_SHUTDOWN, ELEMENT_SHUTDOWN, args->second);
}
