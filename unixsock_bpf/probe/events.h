/* Life cycle: where connections begin and end, and sends that failed. */

/* Remembers what a hook saw of a socket, and finds both sides.  False if that can't be done. */
static __always_inline bool remember(struct small_scratch *s, struct sides *sides, struct workspace *w, bool judged)
{
	struct totals *t = get_totals();
	u64 sk = s->call.sk, other = s->call.other;
	u32 news = s->call.news;
	if (!t || !take_sides(sides, sk, other, w, judged))
		return false;
	struct endpoint *src = sides->src, *dst = sides->dst;
	if (news & NEWS_USED)
		take_users(sides, sk, other, w);
	if ((news & NEWS_BOUND) && src->place) {
		src->socket_changes++;
		__sync_fetch_and_add(&t->renames, 1);
	}
	if ((news & NEWS_PAIRED) && dst)
		src->from_start = dst->from_start = 1;
	if ((news & NEWS_CLIENT) && dst)
		src->client = dst->server = 1;
	if (news & NEWS_SERVER)
		src->server = 1;
	return true;
}

/* The program for what is never recorded.  It does not depend on the filter. */
#if GENERATION == 1
int news(void *ctx)
{
	u32 slot;
	GET_SLOT(slot);
	struct small_scratch *s = get_small_scratch(slot);
	struct workspace *w = get_workspace(slot);
	struct sides sides = {};

	if (s && w)
		remember(s, &sides, w, false);
	return 0;
}
#endif

/* Makes a record of what happened, where that is wanted. */
static __always_inline void on_event(u32 slot)
{
	struct small_scratch *s = get_small_scratch(slot);
	struct workspace *w = get_workspace(slot);
	struct sides sides = {};

	if (!s || !w || !remember(s, &sides, w, true))
		return;
	u64 sk = s->call.sk, other = s->call.other;
#ifndef WITH_EVENTS
	/* Readers want to know that a stream has ended. */
	if (s->call.event != EVENT_CLOSE || !sides.src->emitted)
		return;
#endif
	volatile struct message *m = &s->message;
	m->event = s->call.event;
	m->type = sides.src->type;
	m->len = 0;
	m->flags = s->call.flags;
	if (!wanted(m, &sides, other, 0, 0, w))
		return;
	take_flow(m, &sides, sk, other);
	if (begin_record(s->data, m, &sides))
		return;
	if (s->call.element) {
		u64 at = m->at;
		u8 *to = head_at(s->data, at);
		*(u32 *)to = s->call.element | 4 << 16;
		*(u32 *)(to + 4) = s->call.value;
		m->at = at + 8;
	}
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

/* Whoever closes it last, as a rule at its exit, is not its user. */
static __always_inline bool on_close(u32 slot, u64 sk, u64 unused)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!ep || ep->closed)
		return false;
	ep->closed = 1;
	return tell_event(slot, sk, peer_of(sk), EVENT_CLOSE, 0);
}
EVENT_ON_EVERY_ENTRY(unix_release_sock, on_close)

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
ON_EVERY_ENTRY(unix_sock_destructor, on_free)

static __always_inline bool on_connect(u32 slot, u64 socket, u64 unused, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
	u64 other = peer_of(sk);
	return !result && other && tell_event(slot, sk, other, EVENT_CONNECT, NEWS_USED | NEWS_PAIRED | NEWS_CLIENT);
}
MOMENT_ON_RETURN(unix_stream_connect, on_connect, ARGS_UNIX_STREAM_CONNECT, 2)

static __always_inline bool on_accept(u32 slot, u64 listener, u64 socket, int result)
{
	u64 sk = LOAD(u64, socket, SOCKET_SK);
	return !result && tell_event(slot, sk, peer_of(sk), EVENT_ACCEPT, NEWS_USED | NEWS_SERVER);
}
MOMENT_ON_RETURN(unix_accept, on_accept, ARGS_UNIX_ACCEPT, 2)

static __always_inline bool on_socketpair(u32 slot, u64 first, u64 second, int result)
{
	u64 sk = PEEK(u64, first, SOCKET_SK);
	u64 other = PEEK(u64, second, SOCKET_SK);
	struct small_scratch *s = get_small_scratch(slot);
	if (result || !s || !tell_event(slot, sk, other, EVENT_CONNECT, NEWS_USED | NEWS_PAIRED))
		return false;
	s->call.flags = FLAG_SOCKETPAIR;
	return true;
}
MOMENT_ON_RETURN(unix_socketpair, on_socketpair, 2, 2)

#ifdef WITH_EVENTS

static __always_inline bool on_shutdown(u32 slot, u64 socket, u64 mode, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
	return !result && tell_more(slot, sk, peer_of(sk), EVENT_SHUTDOWN, ELEMENT_SHUTDOWN, mode);
}
EVENT_ON_RETURN(unix_shutdown, on_shutdown, 2, 2)

static __always_inline bool on_stream_sent(u32 slot, u64 socket, u64 unused, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
#ifdef UNIX_SOCK_INQ_LEN
	on_written(sk);
#endif
	return result < 0 && tell_more(slot, sk, peer_of(sk), EVENT_SEND_ERROR, ELEMENT_ERROR, -result);
}
EVENT_ON_RETURN(unix_stream_sendmsg, on_stream_sent, 3, 2)

static __always_inline bool on_dgram_sent(u32 slot, u64 socket, u64 unused, int result)
{
	u64 sk = PEEK(u64, socket, SOCKET_SK);
	return result < 0 && tell_more(slot, sk, peer_of(sk), EVENT_SEND_ERROR, ELEMENT_ERROR, -result);
}
EVENT_ON_RETURN(unix_dgram_sendmsg, on_dgram_sent, 3, 2)
#elif defined(UNIX_SOCK_INQ_LEN)

static __always_inline void on_stream_sent(u64 socket, u64 unused, int result)
{
	on_written(PEEK(u64, socket, SOCKET_SK));
}
ON_RETURN(unix_stream_sendmsg, on_stream_sent, 3, 2)
#endif
