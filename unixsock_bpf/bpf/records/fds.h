/* What each passed descriptor refers to.
 *
 * This is found out before the sk_buff is queued: no lock is held there, so that it may take its time, and
 * a program of its own leaves the one for data small.  The result, as elements of a record, waits under the
 * sending thread's id until its sk_buff is queued. */
#ifndef UNIXSOCK_DESCRIPTORS_H
#define UNIXSOCK_DESCRIPTORS_H

/* Each descriptor takes two steps, and one for each component of its path and each mount on the way. */
#define FD_STEPS 64
#define FD_ROUNDS 33
#define FD_STEPS_FOR_PATHS 1500

#define FD_ELEMENT 16 /* bytes without the path */
#define ELEMENTS_ROOM 0x2000

struct passed {
	u64 list; /* struct scm_fp_list */
	u64 first; /* struct file */
	u32 count;
	u32 index; /* the next one */
	u32 at; /* where the next element goes */
	u32 steps; /* of paths */
	u32 kind;
	u32 len; /* of the path */
	u8 walking;
	u8 complete;
	u8 anonymous;
	u64 inode;
	struct walk walk;
	u8 elements[2 * ELEMENTS_ROOM]; /* up to ELEMENTS_ROOM; the verifier wants more */
};
BPF_TABLE("hash", u64, struct passed, passed, 256); /* by thread, until its send ends */

/* The elements for the list of files that hangs on the sk_buff; NULL if there are none. */
static __always_inline struct passed *passed_by(u64 files, u32 count)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct passed *p = passed.lookup(&thread);
	if (!p || !p->complete || p->count != count || p->first != LOAD(u64, files, FP_FILES))
		return NULL;
	return p;
}
#endif
