/* Copying a message's bytes out of an sk_buff: its linear part, then its fragments. */
#ifndef UNIXSOCK_PAYLOAD_H
#define UNIXSOCK_PAYLOAD_H

/* A record of MAX_PAYLOAD is at most 4 pieces of linear part and 17 fragments, in pieces of PIECE. */
#define PIECE 0xf000
#define PIECES 26
/* Datagrams end at 4 MiB in their linear part and 17 pages more: the largest memory that kmalloc gives. */
#define RECORDS 20

/* Fragments hold pages; the kernel's linear mapping has their bytes. */
static __always_inline u64 page_address(u64 page)
{
#ifdef PAGE_OFFSET_BASE
	u64 base = LOAD(u64, PAGE_OFFSET_BASE, 0);
	u64 map = LOAD(u64, VMEMMAP_BASE, 0);
	return base + (page - map) / STRUCT_PAGE_SIZE * PAGE_SIZE;
#else
	return 0; /* kallsyms hides the two: the reader said so, and the payload is truncated */
#endif
}

static __always_inline void cursor_at_skb(volatile struct cursor *c, u64 skb)
{
	u32 len = LOAD(u32, skb, SKB_LEN);
	u32 data_len = LOAD(u32, skb, SKB_DATA_LEN);
	c->address = LOAD(u64, skb, SKB_DATA);
	c->left = len - data_len;
	c->fragment = 0;
	c->fragment_count = 0;
	c->unreadable = 0;
	c->before = 0;
	if (data_len) {
		u64 shared = LOAD(u64, skb, SKB_HEAD) + LOAD(u32, skb, SKB_END);
		c->fragments = shared + SHARED_FRAGS;
		c->fragment_count = LOAD(u8, shared, SHARED_NR_FRAGS);
	}
}

static __always_inline void next_fragment(volatile struct cursor *c)
{
	u64 fragment = c->fragments + c->fragment * FRAG_SIZE;
	u64 page = LOAD(u64, fragment, FRAG_PAGE);
	c->address = page_address(page) + LOAD(u32, fragment, FRAG_OFFSET);
	c->left = LOAD(u32, fragment, FRAG_LEN);
	c->fragment++;
}

/* Copies up to `want` bytes to where the head ends.  Returns how many; what can't be read ends it. */
static __always_inline u32 copy_payload(struct scratch *s, u32 want)
{
	volatile struct cursor *c = &s->cursor;
	volatile struct message *m = &s->message;
	c->done = 0;
	for (u32 i = 0; i < PIECES; i++) {
		if (!c->left) {
			if (c->fragment >= c->fragment_count)
				break;
			next_fragment(c);
		}
		u64 to = c->done;
		u64 take = c->left;
		u64 address = c->address;
		if (to >= want)
			break;
		if (take > want - to)
			take = want - to;
		if (take > PIECE)
			take = PIECE;
		c->done = to + take;
		c->address = address + take;
		c->left -= take;
		to += m->at;
		BOUND(to, 0x3ffff);
		BOUND(take, 0xffff);
		if (bpf_probe_read_kernel(s->data + to, take, (void *)address)) {
			c->done -= take;
			c->unreadable = 1;
			break;
		}
	}
	return c->done;
}

#endif
