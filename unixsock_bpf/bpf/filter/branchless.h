/* What the filter's C is made of. */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Its highest bit.  The compiler does not see through this, and so makes no jumps of what is asked here: the
 * verifier would follow each. */
static __always_inline u64 filter_sign(u64 word)
{
	asm("" : "+r"(word));
	return word >> 63;
}

/* 0 or 1 */
static __always_inline u64 filter_any(u64 bits)
{
	return filter_sign(bits | (0 - bits));
}

static __always_inline u64 filter_most(u64 len, u64 limit)
{
	return filter_sign(len - limit - 1);
}

static __always_inline u64 filter_least(u64 len, u64 limit)
{
	return filter_most(limit, len);
}

/* What is made of `word` after this, the compiler does not make before it has made `first`. */
#define filter_then(first, word) asm volatile("" : "+r"(first), "+r"(word))
