/* Copying a message's bytes out of an sk_buff: its linear part, then its fragments. */
#ifndef UNIXSOCK_PAYLOAD_H
#define UNIXSOCK_PAYLOAD_H

/* Steps for one message, each of which copies what is in one place and fits into the record: datagrams
 * end at 4 MiB in their linear part, the largest memory that kmalloc gives, and 17 fragments more. */
#define STEPS 48
/* Fewer bytes than this take no steps if they lie in one place. */
#define SHORT 0x1000
#define LAST_STEP (1ull << 32)

/* Where a ring's memory can be reserved before, payloads of so many bytes in so many fragments are copied right into it,
 * in chunks: as many as in a stream's sk_buff, and no more because the verifier follows each step. */
#define AT_ONCE 0x10000
#define AT_ONCE_FRAGMENTS 7
#define CHUNK 0x1000
#define CHUNKS (AT_ONCE / CHUNK + AT_ONCE_FRAGMENTS + 1)

/* What a step returns. */
enum {
	PAYLOAD_SENT,
	PAYLOAD_GOES_ON,
	PAYLOAD_LOST, /* the ring is full */
};

/* Fragments hold pages, whose bytes are in the kernel's linear mapping, which begins here; 0: not known. */
static __always_inline u64 linear_mapping(struct page_bases *bases)
{
	return bases->page_offset_base ? LOAD(u64, bases->page_offset_base, 0) : bases->page_offset;
}

/* Where the array of all struct pages begins. */
static __always_inline u64 all_pages(struct page_bases *bases)
{
	return bases->vmemmap_base ? LOAD(u64, bases->vmemmap_base, 0) : bases->vmemmap;
}

static __always_inline u64 page_address(u64 page, u64 mapping, u64 pages)
{
	return mapping + (page - pages) / STRUCT_PAGE_SIZE * PAGE_SIZE;
}

/* At `len` bytes that lie in one place. */
static __always_inline void cursor_at(volatile struct cursor *c, u64 address, u32 len)
{
	c->address = address;
	c->left = len;
	c->fragment = 0;
	c->fragment_count = 0;
	c->done = 0;
	c->before = 0;
}

/* At the bytes of an sk_buff, of which `skb` is a copy. */
static __always_inline void cursor_at_skb(volatile struct cursor *c, const u8 *skb)
{
	u32 data_len = *(u32 *)(skb + SKB_DATA_LEN);
	cursor_at(c, *(u64 *)(skb + SKB_DATA), *(u32 *)(skb + SKB_LEN) - data_len);
	struct page_bases *bases = data_len ? get_page_bases() : 0;
	u64 mapping = bases ? linear_mapping(bases) : 0;
	if (bases && mapping) { /* else there are no fragments, or they can't be read */
		u64 shared = *(u64 *)(skb + SKB_HEAD) + *(u32 *)(skb + SKB_END);
		c->fragments = shared + SHARED_FRAGS;
		c->fragment_count = LOAD(u8, shared, SHARED_NR_FRAGS);
		c->mapping = mapping;
		c->pages = all_pages(bases);
	}
}

static __always_inline void next_fragment(volatile struct cursor *c)
{
	const u8 *fragment = (const u8 *)c->copied;
	bpf_probe_read_kernel((u8 *)c->copied, FRAG_SIZE, (void *)(c->fragments + c->fragment * FRAG_SIZE));
	c->address = page_address(*(u64 *)(fragment + FRAG_PAGE), c->mapping, c->pages) + *(u32 *)(fragment + FRAG_OFFSET);
	c->left = *(u32 *)(fragment + FRAG_LEN);
	c->fragment++;
}

/* All ones if a number is negative, else 0: in a way that LLVM makes no jump of, each of which would double the
 * verifier's work. */
static __always_inline u64 sign_of(long long number)
{
	u64 sign = (u64)(number >> 63);
	asm volatile("" : "+r"(sign));
	return sign;
}

/* The smaller one of two numbers below 2^63. */
static __always_inline u64 least(u64 a, u64 b)
{
	u64 more = a - b;
	asm volatile("" : "+r"(more));
	return b + (more & sign_of(more));
}

/* Copies the message's next bytes to where the record's payload ends so far: as many as are in one
 * place, fit into the record, and are wanted.  None, if there are none or they can't be read. */
static __always_inline void copy_piece(struct scratch *s)
{
	volatile struct cursor *c = &s->cursor;
	volatile struct message *m = &s->message;

	if (!c->left && c->fragment < c->fragment_count)
		next_fragment(c);
	u64 to = c->done;
	u64 address = c->address;
	u64 take = least(least(c->left, c->wanted), MAX_PAYLOAD - to);
	c->address = address + take;
	c->left -= take;
	c->took = take;
	to += m->at;
	BOUND(to, 0x3ffff);
	BOUND(take, 0x3ffff);
	c->took &= ~sign_of(bpf_probe_read_kernel(s->data + to, take, (void *)address));
	c->done += c->took;
	c->wanted -= c->took;
}

#endif
