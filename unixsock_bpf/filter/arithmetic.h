/* What the filter's C is made of. */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* 0 or 1, without a branch */
static __always_inline u64 filter_any(u64 bits)
{
	return (bits | (0 - bits)) >> 63;
}

static __always_inline u64 filter_most(u64 len, u64 limit)
{
	return (len - limit - 1) >> 63;
}

/* What is made of `word` after this, the compiler does not make before it has made `first`. */
#define filter_then(first, word) asm volatile("" : "+r"(first), "+r"(word))

static __always_inline u64 filter_least(u64 len, u64 limit)
{
	return filter_most(limit, len);
}
