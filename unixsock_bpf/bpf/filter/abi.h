/* What records.bpf.c asks the filter, whose programs are compiled apart (filter.bpf.c): so a new filter has the compiler
 * translate no more than itself.  A question lies on the asker's stack, where the verifier knows what pointers
 * in it point to, and so does the answer. */
#ifndef UNIXSOCK_QUESTION_H
#define UNIXSOCK_QUESTION_H

struct name_question {
	const u8 *name;
	u64 len; /* of at most 108 bytes */
	struct filter_work *work;
	u64 atoms; /* the answer */
};

struct end_question {
	const u8 *comm; /* NULL: the owner isn't known */
	const u64 *cgroups;
	struct filter_work *work;
	u64 inode;
	u32 netns, pid, uid;
	u64 socket_atoms, owner_atoms; /* the answer */
};

struct message_question {
	u64 src, src_owner, dst, dst_owner; /* atoms */
	u32 src_inode_known, dst_inode_known, two_ends;
	u32 type, event, len, fds, creds;
};

enum verdict_of_message {
	NEVER_WANTED, /* nor is any other message between these sockets */
	NOT_WANTED,
	WANTED,
};

/* Calls of functions that aren't there when records.bpf.c is compiled: what the compiler takes for a helper of that
 * number, the loader makes a call of the filter's program.  It reads these lines. */
#define CALL_answer_name 0x510c01
#define CALL_answer_end 0x510c02
#define CALL_answer_message 0x510c03

#endif
