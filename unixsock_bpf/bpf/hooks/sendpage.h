/* sendfile and splice into a stream, before Linux 6.5 had them go through sendmsg.  The page is appended
 * to the sk_buff at the end of the receiver's queue, or to a new one that is queued next; in both cases
 * under the receiver's locks. */
#define NOWHERE 1 /* an address that can't be read */

static __always_inline bool is_unix_skb(const struct arguments *args)
{
	u64 sk = LOAD(u64, args->first, SKB_SK);
	return sk && LOAD(u16, sk, SOCK_FAMILY) == AF_UNIX;
}

/* What was appended are the last `size` bytes of the last fragment, which may have held some before. */
static __always_inline bool on_appended(u32 slot, const struct arguments *args, int result)
{
	u64 skb = args->first, size = args->fourth;
	u64 sk = LOAD(u64, skb, SKB_SK);
	if (result)
		return false;
	u64 shared = LOAD(u64, skb, SKB_HEAD) + LOAD(u32, skb, SKB_END);
	u64 fragment = shared + SHARED_FRAGS + (LOAD(u8, shared, SHARED_NR_FRAGS) - 1) * FRAG_SIZE;
	struct page_bases *bases = get_page_bases();
	u64 mapping = bases ? linear_mapping(bases) : 0;
	u64 address = NOWHERE;
	if (bases && mapping)
		address = page_address(LOAD(u64, fragment, FRAG_PAGE), mapping, all_pages(bases)) +
			  LOAD(u32, fragment, FRAG_OFFSET) + LOAD(u32, fragment, FRAG_LEN) - size;
	return tell_message(slot, sk, peer_of(sk), 0, address, size, 0, false);
}

