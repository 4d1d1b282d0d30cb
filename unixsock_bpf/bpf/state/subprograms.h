/* What several programs have in common and the compiler translates once, in records.bpf.c: the loader puts these parts
 * behind the programs that call them.  What a part works on lies on its caller's stack, too. */
#ifndef UNIXSOCK_PARTS_H
#define UNIXSOCK_PARTS_H

struct remember_part {
	struct sides *sides; /* the answer */
	struct workspace *w;
	u64 sk, other, listener, news; /* of struct call */
	u64 judged; /* whether it may end at what the filter said before */
};

struct begin_part {
	u8 *data;
	volatile struct message *m;
	struct sides *sides;
	struct settings *set;
	struct workspace *w;
};

/* The loader reads these lines.  GLOBAL are those that the verifier looks at once, however often they are called:
 * one step of a loop each.  Their argument is a number, the only kind that Linux 5.10 lets them have. */
#define GLOBAL_payload_step 0x510c09
#define GLOBAL_place_step 0x510c0a
#define GLOBAL_passed_step 0x510c0b
#define GLOBAL_passed_steps 0x510c0c
#define GLOBAL_pid_number 0x510c0d
#define GLOBAL_payload_at_once 0x510c0e
#define CALL_remember 0x510c04
#define CALL_begin_record 0x510c05

static u64 (*call_payload_step)(u64) = (void *)GLOBAL_payload_step;
static u64 (*call_payload_at_once)(u64) = (void *)GLOBAL_payload_at_once;
static u64 (*call_place_step)(u64) = (void *)GLOBAL_place_step;
static u64 (*call_passed_step)(u64) = (void *)GLOBAL_passed_step;
static u64 (*call_passed_steps)(u64) = (void *)GLOBAL_passed_steps;
static u64 (*call_pid_number)(u64) = (void *)GLOBAL_pid_number;
static int (*call_remember)(struct remember_part *) = (void *)CALL_remember;
static int (*call_begin_record)(struct begin_part *) = (void *)CALL_begin_record;

/* What is passed lies in functions of their own, so that the compiler uses its place on the stack again: a program
 * and what it calls have 512 bytes together, and these few in sight of all of `message` were too many on 5.10. */
static __always_inline int remembered(struct sides *sides, struct workspace *w, u64 sk, u64 other, u64 listener,
				      u64 news, u64 judged)
{
	struct remember_part part = { sides, w, sk, other, listener, news, judged };
	return call_remember(&part);
}

static __always_inline int begun(u8 *data, volatile struct message *m, struct sides *sides, struct settings *set,
				 struct workspace *w)
{
	struct begin_part part = { data, m, sides, set, w };
	return call_begin_record(&part);
}

#endif
