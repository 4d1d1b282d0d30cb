/* Life cycle: where connections begin and end, and sends that failed. */

/* Working memory for an event from `sk` to `other` (0: nobody), if the filter lets it through so far. */
static __always_inline struct small_scratch *begin_event(struct sides *sides, u64 sk, u64 other, u32 slot,
							 u8 event, u32 flags)
{
	u32 at = bpf_get_smp_processor_id() * (SLOTS - DATA_SLOTS) + slot - DATA_SLOTS;
	struct small_scratch *s = small_scratches.lookup(&at);
	if (!s || !sk)
		return NULL;
	s->message.event = event;
	s->message.type = LOAD(u16, sk, SOCK_TYPE);
	s->message.len = 0;
	s->message.flags = flags;
	return take_sides(sides, s->message.type, sk, other, slot) ? s : NULL;
}

/* Sends it, with one u32 element if `element` is not 0. */
static __always_inline void send_event(struct small_scratch *s, struct sides *sides, u64 sk, u64 other,
				       u32 element, u32 value)
{
	volatile struct message *m = &s->message;
	if (!wanted(m, sides, 0, 0))
		return;
	take_flow(m, sides, sk, other);
	if (begin_record(s->data, m, sides))
		return;
	if (element) {
		u64 at = m->at;
		u8 *to = head_at(s->data, at);
		*(u32 *)to = element | 4 << 16;
		*(u32 *)(to + 4) = value;
		m->at = at + 8;
	}
	if (send_small(s->data, m->at))
		lose(m, sides, LOST_RING_FULL);
}

static __always_inline void on_close(u64 sk, u64 unused)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!ep || (ep->flags & EP_CLOSED))
		return;
	ep->flags |= EP_CLOSED;
#ifndef WITH_EVENTS
	if (!(ep->flags & EP_EMITTED))
		return;
#endif
	u64 other = peer_of(sk);
	struct sides sides = {};
	struct small_scratch *s = begin_event(&sides, sk, other, SLOT_CLOSE, EVENT_CLOSE, 0);
	if (s)
		send_event(s, &sides, sk, other, 0, 0);
}
ON_ENTRY(unix_release_sock, on_close)

/* The kernel frees the sock: its address may be used again. */
static __always_inline void on_free(u64 sk, u64 unused)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!ep)
		return;
	if (ep->flags & EP_LOSSY)
		orphans.update(&ep->id, ep);
	endpoints.delete(&sk);
}
ON_ENTRY(unix_sock_destructor, on_free)

/* Both ends exist from here on, and positions count from the first byte. */
static __always_inline void on_connect(u64 socket, u64 unused, int result)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
	u64 other = peer_of(sk);
	struct sides sides = {};
	if (result || !other)
		return;
	struct small_scratch *s = begin_event(&sides, sk, other, SLOT_CONNECT, EVENT_CONNECT, 0);
	if (!s || !sides.dst)
		return;
	take_users(&sides, sk, other);
	sides.src->flags |= EP_FROM_START | EP_CLIENT;
	sides.dst->flags |= EP_FROM_START | EP_SERVER;
#ifdef WITH_EVENTS
	send_event(s, &sides, sk, other, 0, 0);
#endif
}
ON_RETURN(unix_stream_connect, on_connect, ARGS_UNIX_STREAM_CONNECT)

static __always_inline void on_accept(u64 listener, u64 socket, int result)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
	struct sides sides = {};
	if (result || !sk)
		return;
	u64 other = peer_of(sk);
	struct small_scratch *s = begin_event(&sides, sk, other, SLOT_ACCEPT, EVENT_ACCEPT, 0);
	if (!s)
		return;
	take_users(&sides, sk, other);
	sides.src->flags |= EP_SERVER;
#ifdef WITH_EVENTS
	send_event(s, &sides, sk, other, 0, 0);
#endif
}
ON_RETURN(unix_accept, on_accept, ARGS_UNIX_ACCEPT)

static __always_inline void on_socketpair(u64 first, u64 second, int result)
{
	u64 sk = LOAD(u64, first, SOCKET_SK);
	u64 other = LOAD(u64, second, SOCKET_SK);
	struct sides sides = {};
	if (result)
		return;
	struct small_scratch *s =
		begin_event(&sides, sk, other, SLOT_SOCKETPAIR, EVENT_CONNECT, FLAG_SOCKETPAIR);
	if (!s || !sides.dst)
		return;
	take_users(&sides, sk, other);
	sides.src->flags |= EP_FROM_START;
	sides.dst->flags |= EP_FROM_START;
#ifdef WITH_EVENTS
	send_event(s, &sides, sk, other, 0, 0);
#endif
}
ON_RETURN(unix_socketpair, on_socketpair, 2)

#ifdef WITH_EVENTS

static __always_inline void on_shutdown(u64 socket, u64 mode, int result)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
	u64 other = peer_of(sk);
	struct sides sides = {};
	if (result)
		return;
	struct small_scratch *s = begin_event(&sides, sk, other, SLOT_SHUTDOWN, EVENT_SHUTDOWN, 0);
	if (!s)
		return;
	take_users(&sides, sk, other);
	send_event(s, &sides, sk, other, ELEMENT_SHUTDOWN, (u32)mode + 1);
}
ON_RETURN(unix_shutdown, on_shutdown, 2)

static __always_inline void on_send_error(u64 socket, int result)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
	u64 other = peer_of(sk);
	struct sides sides = {};
	struct small_scratch *s = begin_event(&sides, sk, other, SLOT_ERROR, EVENT_SEND_ERROR, 0);
	if (!s)
		return;
	take_users(&sides, sk, other);
	send_event(s, &sides, sk, other, ELEMENT_ERROR, -result);
}
#else
#define on_send_error(socket, result)
#endif

#if defined(WITH_EVENTS) || defined(UNIX_SOCK_INQ_LEN)
static __always_inline void on_stream_sent(u64 socket, u64 unused, int result)
{
#ifdef UNIX_SOCK_INQ_LEN
	on_written(LOAD(u64, socket, SOCKET_SK));
#endif
	if (result < 0)
		on_send_error(socket, result);
}
ON_RETURN(unix_stream_sendmsg, on_stream_sent, 3)
#endif

#ifdef WITH_EVENTS
static __always_inline void on_dgram_sent(u64 socket, u64 unused, int result)
{
	if (result < 0)
		on_send_error(socket, result);
}
ON_RETURN(unix_dgram_sendmsg, on_dgram_sent, 3)
#endif
