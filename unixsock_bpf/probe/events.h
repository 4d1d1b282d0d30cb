/* Life cycle: where connections begin and end, and sends that failed. */

/* Sees who is at both ends of an event from `sk` to `other` (0: nobody). */
static __always_inline bool begin_event(struct sides *sides, u64 sk, u64 other, u32 slot)
{
	struct workspace *w = get_workspace(slot);
	if (!w || !sk || !take_sides(sides, sk, other, w))
		return false;
	take_users(sides, sk, other, w);
	return true;
}

/* Sends it if the filter lets it through, with one u32 element if `element` is not 0. */
static __always_inline void send_event(struct sides *sides, u64 sk, u64 other, u32 slot, u8 event, u32 flags,
				       u32 element, u32 value)
{
	u32 at = bpf_get_smp_processor_id() * (SLOTS - DATA_SLOTS) + slot - DATA_SLOTS;
	struct small_scratch *s = small_scratches.lookup(&at);
	struct workspace *w = get_workspace(slot);
	if (!s || !w)
		return;
	volatile struct message *m = &s->message;
	m->event = event;
	m->type = sides->src->type;
	m->len = 0;
	m->flags = flags;
	if (!wanted(m, sides, other, 0, 0, w))
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
	if (!ep || ep->closed)
		return;
	ep->closed = 1;
#ifndef WITH_EVENTS
	if (!ep->emitted)
		return;
#endif
	u64 other = peer_of(sk);
	struct sides sides = {};
	struct workspace *w = get_workspace(SLOT_CLOSE);
	/* Whoever closes it last, as a rule at its exit, is not its user. */
	if (w && take_sides(&sides, sk, other, w))
		send_event(&sides, sk, other, SLOT_CLOSE, EVENT_CLOSE, 0, 0, 0);
}
ON_ENTRY(unix_release_sock, on_close)

/* The kernel frees the sock: its address may be used again. */
static __always_inline void on_free(u64 sk, u64 unused)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!ep)
		return;
	if (ep->lossy)
		orphans.update(&ep->id, ep);
	endpoints.delete(&sk);
}
ALWAYS_ON_ENTRY(unix_sock_destructor, on_free)

/* Both ends exist from here on, and positions count from the first byte. */
static __always_inline void on_connect(u64 socket, u64 unused, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
	u64 other = peer_of(sk);
	struct sides sides = {};
	if (result || !other || !begin_event(&sides, sk, other, SLOT_CONNECT) || !sides.dst)
		return;
	sides.src->from_start = sides.src->client = 1;
	sides.dst->from_start = sides.dst->server = 1;
#ifdef WITH_EVENTS
	send_event(&sides, sk, other, SLOT_CONNECT, EVENT_CONNECT, 0, 0, 0);
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
	if (!begin_event(&sides, sk, other, SLOT_ACCEPT))
		return;
	sides.src->server = 1;
#ifdef WITH_EVENTS
	send_event(&sides, sk, other, SLOT_ACCEPT, EVENT_ACCEPT, 0, 0, 0);
#endif
}
ON_RETURN(unix_accept, on_accept, ARGS_UNIX_ACCEPT)

static __always_inline void on_socketpair(u64 first, u64 second, int result)
{
	u64 sk = PEEK(u64, first, SOCKET_SK);
	u64 other = PEEK(u64, second, SOCKET_SK);
	struct sides sides = {};
	if (result || !begin_event(&sides, sk, other, SLOT_SOCKETPAIR) || !sides.dst)
		return;
	sides.src->from_start = 1;
	sides.dst->from_start = 1;
#ifdef WITH_EVENTS
	send_event(&sides, sk, other, SLOT_SOCKETPAIR, EVENT_CONNECT, FLAG_SOCKETPAIR, 0, 0);
#endif
}
ON_RETURN(unix_socketpair, on_socketpair, 2)

#ifdef WITH_EVENTS

static __always_inline void on_shutdown(u64 socket, u64 mode, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
	u64 other = peer_of(sk);
	struct sides sides = {};
	if (!result && begin_event(&sides, sk, other, SLOT_SHUTDOWN))
		send_event(&sides, sk, other, SLOT_SHUTDOWN, EVENT_SHUTDOWN, 0, ELEMENT_SHUTDOWN, (u32)mode + 1);
}
ON_RETURN(unix_shutdown, on_shutdown, 2)

static __always_inline void on_send_error(u64 sk, u32 slot, int result)
{
	u64 other = peer_of(sk);
	struct sides sides = {};
	if (begin_event(&sides, sk, other, slot))
		send_event(&sides, sk, other, slot, EVENT_SEND_ERROR, 0, ELEMENT_ERROR, -result);
}
#endif

#if defined(WITH_EVENTS) || defined(UNIX_SOCK_INQ_LEN)
static __always_inline void on_stream_sent(u64 socket, u64 unused, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
#ifdef UNIX_SOCK_INQ_LEN
	on_written(sk);
#endif
#ifdef WITH_EVENTS
	if (result < 0)
		on_send_error(sk, SLOT_STREAM_ERROR, result);
#endif
}
ON_RETURN(unix_stream_sendmsg, on_stream_sent, 3)
#endif

#ifdef WITH_EVENTS
static __always_inline void on_dgram_sent(u64 socket, u64 unused, int result)
{
	if (result < 0)
		on_send_error(PEEK(u64, socket, SOCKET_SK), SLOT_DGRAM_ERROR, result);
}
ON_RETURN(unix_dgram_sendmsg, on_dgram_sent, 3)
#endif
