/* A connect or a send that failed: with the name that was asked for, and who listens there. */
#ifndef UNIXSOCK_REFUSED_RECORD_H
#define UNIXSOCK_REFUSED_RECORD_H

#define EPROTOTYPE 91

/* Atoms of the name that was asked for. */
static __always_inline u64 asked_atoms(struct filter *f, struct workspace *w, u64 context, const struct bound_name *name,
				       u32 len)
{
	if (!f->lanes[0])
		return f->atoms_of_any_name;
	bpf_probe_read_kernel(w->text, sizeof(w->text), name->name);
	return f->atoms_of_any_name | match_text(f, context, 0, len);
}

/* How full the queue of `sk` is, where there was no room in it. */
static __always_inline void put_backlog(u8 *data, volatile struct message *m, u64 sk)
{
	u64 at = m->at;
	u8 *to = head_at(data, at);
	*(u32 *)to = ELEMENT_BACKLOG | LEN_BACKLOG << 16;
	*(u32 *)(to + 4) = LOAD(u32, sk + SOCK_RECEIVE_QUEUE, SKB_QUEUE_LEN);
	*(u32 *)(to + 8) = LOAD(u32, sk, SOCK_MAX_BACKLOG);
	m->at = at + 4 + LEN_BACKLOG;
}

/* Where the conversation stands, as take_flow.  A loss is left to the flow's next message: the verifier would follow
 * both kinds of flow through all that comes. */
static __always_inline void take_positions(volatile struct message *m, struct sides *sides, u64 sk, u64 other)
{
	struct endpoint *src = sides->src, *dst = sides->dst;
	sides->flow = &src->flow;
	m->seq = src->flow.bytes;
	m->number = src->flow.messages;
	m->ack = 0;
	m->role = ROLE_UNKNOWN;
	if (!dst || m->type != TYPE_DGRAM)
		return;
	struct pair pair = { src->id, dst->id }, back = { dst->id, src->id };
	struct flow *flow = flows.lookup(&pair), *answer = flows.lookup(&back);
	if (flow) {
		m->seq = flow->bytes;
		m->number = flow->messages;
	}
	if (answer)
		m->ack = answer->bytes;
	m->role = dgram_role(sk, other, answer != NULL);
}

static __always_inline void on_refused(u32 slot)
{
	u32 at = workspace_at(bpf_get_smp_processor_id(), slot);
	struct small_scratch *s = get_small_scratch(slot);
	struct settings *set = get_settings();
	struct workspace *w = get_workspace(at);
	struct sides sides = {};

	if (!s || !set || !w)
		return;
	volatile struct call *call = &s->call;
	struct bound_name *asked = (struct bound_name *)(s->data + ASKED_AT);
	u32 asked_len = call->len, error = call->value;
	u64 listener = call->address;
	/* One of another type is no other end of it: such a one is shown if the probe knows it already. */
	if (listener && error != EPROTOTYPE)
		call->other = listener;
	if (!remembered(&sides, w, call->sk, call->other, 0, NEWS_USED, false)) {
		struct totals *t = get_totals();
		if (sides.untracked && t)
			__sync_fetch_and_add(&t->lost_events, 1);
		return;
	}
	u32 generation = set->generation, index = generation & 1;
	struct filter *f = filters.lookup(&index);
	if (!f || !f->events || !sides.src)
		return;
	volatile struct message *m = &s->message;
	m->event = call->event;
	m->type = sides.src->type;
	m->len = 0;
	m->flags = 0;
	u64 atoms = asked_len ? asked_atoms(f, w, FILTER_ARGUMENT(at, generation, 0), asked, asked_len) : 0;
	if (error == EPROTOTYPE) {
		sides.dst = endpoints.lookup(&listener);
		call->other = listener;
		if (sides.dst)
			find_user(&w->users[1], sides.dst, READER);
	}
	if (!wanted(m, &sides, call, 0, 0, atoms, w, at, generation))
		return;
	take_positions(m, &sides, call->sk, call->other);
	if (asked_len)
		m->role = ROLE_DST_IS_SERVER;
	if (begun(s->data, m, &sides, set, w))
		return;
	if (asked_len && !sides.dst)
		put_text(s->data, m, ELEMENT_DST_NAME, asked->name, asked_len);
	put_number(s->data, m, ELEMENT_ERROR, error);
	if (call->other && (error == EAGAIN || error == EINTR))
		put_backlog(s->data, m, call->other);
	if (send_small(s->data, m->at))
		lose(m, &sides, LOST_RING_FULL);
}

int refused(void *ctx)
{
	u32 slot;
	GET_SLOT(slot);
	on_refused(slot);
	return 0;
}

#endif
