/* The capture filter as data.  No C is made from a filter: filter/encode.py fills these structures, and its
 * `declarations` are the FILTER_ macros used here.
 *
 * Each distinct term about a socket or a process is a bit, an atom, which is settled when a socket or its process
 * is first seen.  For a message only bits are tested. */
#ifndef UNIXSOCK_FILTER_LAYOUT_H
#define UNIXSOCK_FILTER_LAYOUT_H

/* One test: t = ((words[word] + add) & mask) ^ flip; the next one is next[t != 0].  Steps only lead forward. */
struct filter_step {
	u64 add, mask, flip;
	u16 word, next[2], unused;
};

/* A number of a set: where facts[fact] is `value`, the atom is set in the word of sockets (0) or owners (1). */
struct filter_member {
	u64 value;
	u8 fact, owners, atom, unused[5];
};

struct filter {
	u64 atoms_of_any_name; /* of path terms that take every name, and so unnamed sockets, too */
	u32 entry; /* the first step */
	u32 members;
	u32 events; /* whether records other than data and close are wanted; EVENTS_CLOSE: of unused sockets, too */
	u32 asks_inodes; /* an inode comes late, and makes a difference */
	u32 first_lane[2], lanes[2]; /* of the globs for names of sockets (0) and of processes (1) */
	u8 row_of[2][256]; /* bytes that no glob tells apart share a row */
	struct filter_member member[FILTER_MEMBERS];
	struct filter_step step[FILTER_STEPS];
};

#define EVENTS_CLOSE 2

/* 128 states of globs: filter/automaton.py says what they mean. */
struct filter_row {
	u64 enter[2], stay[2];
};

struct filter_final {
	u8 state, atom;
};

struct filter_lane {
	u64 start[2];
	u32 finals, unused;
	struct filter_final final[128];
	struct filter_row row[256];
};

/* Atoms of both ends, and the message. */
struct filter_question {
	u64 src, src_owner, dst, dst_owner;
	u32 two_ends; /* there is a receiver, so that a verdict on both sockets can be remembered */
	u32 inodes_known; /* of both */
	u32 type, event, len, fds, creds;
	u32 asks_always; /* whether to find out if all messages between the sockets match */
};

enum verdict_of_message {
	NEVER_WANTED, /* nor is any other message between these sockets */
	NOT_WANTED,
	WANTED,
	ALWAYS_WANTED, /* as all other messages between these sockets, whoever uses them */
};

/* The words that steps test: each once for terms and, after it, once for negated terms.  That makes one program
 * serve for a message, where a term is true or false, and for two sockets, where it may be unknown: then both
 * "may be true" and "may be false" are set. */
enum {
	WORD_SOCKETS = 0,
	WORD_OWNERS = 2,
	WORD_SRC = 4,
	WORD_DST = 6,
	WORD_MESSAGE = 8,
	WORD_LEN = 10, /* the length, for "at most" and for "at least" */
	WORDS = 16,
};

#endif
