/* What evaluates a filter.  The unit tests compile this natively. */
#ifndef UNIXSOCK_FILTER_INTERPRETER_H
#define UNIXSOCK_FILTER_INTERPRETER_H

#include "filter/layout.h"

/* verdict.h has another one for the verifier. */
#ifndef FILTER_NEXT
#define FILTER_NEXT(i) (i)++
#define FILTER_MASK(value, mask) (value) &= (mask)
#endif

/* filter_steps where the verifier looks at it once (verdict.h). */
static u64 filter_more_steps(const struct filter *f, u64 *words, u64 at, u64 context);

/* No length is as small, or as large; what is compared with them cannot overflow. */
#define FILTER_SHORTEST (0 - (1ull << 40))
#define FILTER_LONGEST (1ull << 40)

/* 0 or 1, by arithmetic: the verifier would follow each jump. */
static __always_inline u64 filter_any(u64 bits)
{
	bits |= 0 - bits;
	asm("" : "+r"(bits));
	return bits >> 63;
}

/* Atoms of the globs in `lane` that match the `len` bytes of `text`, which has room for 128. */
static __always_inline u64 filter_lane_atoms(const struct filter *f, const struct filter_lane *lane, u32 which,
					     const u8 *text, u32 len)
{
	u64 low = lane->start[0], high = lane->start[1];
	u64 atoms = 0;
	FILTER_MASK(which, 1);

	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < FILTER_NAME_BYTES; FILTER_NEXT(i)) {
		if (i >= len)
			break;
		u64 number = f->row_of[which][text[i]];
		FILTER_MASK(number, 255);
		const struct filter_row *row = &lane->row[number];
		u64 up = high << 1 | low >> 63;
		low = (low << 1 & row->enter[0]) | (low & row->stay[0]);
		high = (up & row->enter[1]) | (high & row->stay[1]);
	}
	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < 128; FILTER_NEXT(i)) {
		if (i >= lane->finals)
			break;
		u64 state = lane->final[i].state, atom = lane->final[i].atom & 63;
		u64 word = low ^ ((low ^ high) & (0 - (state >> 6 & 1)));
		asm("" : "+r"(word)); /* LLVM would make a jump of it */
		atoms |= (word >> (state & 63) & 1) << atom;
	}
	return atoms;
}

/* Sets the atoms whose sets have one of `facts`, of which there are FILTER_FACTS: FILTER_STRIDE members from
 * `first` on. */
static __always_inline void filter_add_members(const struct filter *f, u32 first, const u64 *facts, u64 *atoms)
{
	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < FILTER_STRIDE; FILTER_NEXT(i)) {
		u64 number = first + i;
		if (number >= f->members)
			break;
		FILTER_MASK(number, FILTER_MEMBERS - 1);
		const struct filter_member *member = &f->member[number];
		u64 fact = member->fact, owners = member->owners;
		FILTER_MASK(fact, FILTER_FACTS - 1);
		FILTER_MASK(owners, 1);
		u64 equal = filter_any(facts[fact] ^ member->value) ^ 1;
		atoms[owners] |= equal << (member->atom & 63);
	}
}

/* At most FILTER_STRIDE steps from `at` on; returns where they lead: FILTER_ACCEPT and FILTER_REJECT are ends. */
static __always_inline u64 filter_steps(const struct filter *f, const u64 *words, u64 at)
{
	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < FILTER_STRIDE; FILTER_NEXT(i)) {
		if (at >= FILTER_STEPS)
			break;
		FILTER_MASK(at, FILTER_STEPS - 1);
		const struct filter_step *step = &f->step[at];
		u64 word = step->word;
		FILTER_MASK(word, WORDS - 1);
		u64 set = filter_any(((words[word] + step->add) & step->mask) ^ step->flip);
		FILTER_MASK(set, 1);
		at = step->next[set];
	}
	return at;
}

/* Whether the steps lead to FILTER_ACCEPT. */
static __always_inline bool filter_run(const struct filter *f, u64 *words, u64 context)
{
	u64 at = f->entry;

	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < FILTER_STEPS / FILTER_STRIDE; FILTER_NEXT(i)) {
		if (at >= FILTER_STEPS)
			break;
		at = filter_more_steps(f, words, at, context);
	}
	return at == FILTER_ACCEPT;
}

/* The verdict on a message.  `words` is memory for it, `context` is filter_more_steps'. */
static __always_inline u32 filter_verdict(const struct filter *f, const struct filter_question *q, u64 *words,
					  u64 context)
{
	u64 sockets = q->src | q->dst;
	u64 type = 1ull << (q->type & 15);
	u64 message = type | 1ull << (FILTER_EVENT_BIT + (q->event & 15)) | filter_any(q->fds) << FILTER_FDS_BIT |
		      filter_any(q->creds) << FILTER_CREDS_BIT;
	u64 unknown = ~0ull;

	words[WORD_SOCKETS] = sockets;
	words[WORD_SOCKETS + 1] = ~sockets;
	words[WORD_OWNERS] = q->src_owner | q->dst_owner;
	words[WORD_OWNERS + 1] = ~(q->src_owner | q->dst_owner);
	words[WORD_SRC] = q->src_owner;
	words[WORD_SRC + 1] = ~q->src_owner;
	words[WORD_DST] = q->dst_owner;
	words[WORD_DST + 1] = ~q->dst_owner;
	words[WORD_MESSAGE] = message;
	words[WORD_MESSAGE + 1] = ~message;
	words[WORD_LEN] = words[WORD_LEN + 1] = q->len;
	bool settled = !f->asks_inodes || q->inodes_known;
	if (filter_run(f, words, context)) {
		if (!q->asks_always || !q->two_ends || !settled)
			return WANTED;
		/* Will every other message between these sockets match?  Of what is unknown no term holds, nor its negation. */
		words[WORD_OWNERS] = words[WORD_OWNERS + 1] = 0;
		words[WORD_SRC] = words[WORD_SRC + 1] = 0;
		words[WORD_DST] = words[WORD_DST + 1] = 0;
		words[WORD_MESSAGE] = type;
		words[WORD_MESSAGE + 1] = ~type & FILTER_TYPE_BITS;
		words[WORD_LEN] = FILTER_LONGEST;
		words[WORD_LEN + 1] = FILTER_SHORTEST;
		return filter_run(f, words, context) ? ALWAYS_WANTED : WANTED;
	}
	if (!q->two_ends)
		return NOT_WANTED;
	/* Could another message between these sockets match?  Atoms of a socket only come, and come with an inode. */
	if (!settled)
		words[WORD_SOCKETS] = unknown;
	words[WORD_OWNERS] = words[WORD_OWNERS + 1] = unknown;
	words[WORD_SRC] = words[WORD_SRC + 1] = unknown;
	words[WORD_DST] = words[WORD_DST + 1] = unknown;
	words[WORD_MESSAGE] = type | ~FILTER_TYPE_BITS;
	words[WORD_MESSAGE + 1] = ~type;
	words[WORD_LEN] = FILTER_SHORTEST;
	words[WORD_LEN + 1] = FILTER_LONGEST;
	return filter_run(f, words, context) ? NOT_WANTED : NEVER_WANTED;
}

#endif
