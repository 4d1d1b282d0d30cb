/* Copying a message's bytes out of an sk_buff: its linear part, then its fragments. */
#ifndef UNIXSOCK_PAYLOAD_H
#define UNIXSOCK_PAYLOAD_H

/* Steps for one message, each of which copies what is in one place and fits into the record: datagrams
 * end at 4 MiB in their linear part, the largest memory that kmalloc gives, and 17 fragments more. */
#define STEPS 48

/* Fragments hold pages; the kernel's linear mapping has their bytes. */
static __always_inline u64 page_address(u64 page)
{
	struct settings *set = get_settings();
	if (!set || !set->page_offset_base)
		return 0; /* kallsyms hides the two: the reader said so, and the payload is truncated */
	u64 base = LOAD(u64, set->page_offset_base, 0);
	u64 map = LOAD(u64, set->vmemmap_base, 0);
	return base + (page - map) / STRUCT_PAGE_SIZE * PAGE_SIZE;
}

/* At `len` bytes that lie in one place. */
static __always_inline void cursor_at(volatile struct cursor *c, u64 address, u32 len)
{
	c->address = address;
	c->left = len;
	c->fragment = 0;
	c->fragment_count = 0;
	c->unreadable = 0;
	c->done = 0;
	c->before = 0;
}

/* At the bytes of an sk_buff, of which `skb` is a copy. */
static __always_inline void cursor_at_skb(volatile struct cursor *c, const u8 *skb)
{
	u32 data_len = *(u32 *)(skb + SKB_DATA_LEN);
	cursor_at(c, *(u64 *)(skb + SKB_DATA), *(u32 *)(skb + SKB_LEN) - data_len);
	if (data_len) {
		u64 shared = *(u64 *)(skb + SKB_HEAD) + *(u32 *)(skb + SKB_END);
		c->fragments = shared + SHARED_FRAGS;
		c->fragment_count = LOAD(u8, shared, SHARED_NR_FRAGS);
	}
}

static __always_inline u64 fragment_address(u64 fragment)
{
	return page_address(LOAD(u64, fragment, FRAG_PAGE)) + LOAD(u32, fragment, FRAG_OFFSET);
}

static __always_inline void next_fragment(volatile struct cursor *c)
{
	u64 fragment = c->fragments + c->fragment * FRAG_SIZE;
	c->address = fragment_address(fragment);
	c->left = LOAD(u32, fragment, FRAG_LEN);
	c->fragment++;
}

/* The smaller one of two numbers below 2^63, without a jump: each would double the verifier's work. */
static __always_inline u64 least(u64 a, u64 b)
{
	u64 less = (u64)((long long)(a - b) >> 63);
	asm volatile("" : "+r"(less));
	return b + ((a - b) & less);
}

/* Copies the message's next bytes to where the record's payload ends so far: as many as are in one
 * place, fit into the record, and are wanted.  0: there are none, or they can't be read. */
static __always_inline u32 copy_piece(struct scratch *s, u32 wanted)
{
	volatile struct cursor *c = &s->cursor;
	volatile struct message *m = &s->message;

	if (!c->left && c->fragment < c->fragment_count)
		next_fragment(c);
	u64 to = c->done;
	u64 address = c->address;
	u64 take = least(least(c->left, wanted), MAX_PAYLOAD - to);
	c->address = address + take;
	c->left -= take;
	to += m->at;
	BOUND(to, 0x3ffff);
	BOUND(take, 0x3ffff);
	if (bpf_probe_read_kernel(s->data + to, take, (void *)address)) {
		c->unreadable = FLAG_UNREADABLE;
		return 0;
	}
	c->done += take;
	return take;
}

#endif
