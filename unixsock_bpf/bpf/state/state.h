/* What the probe remembers: settings from the reader, totals for it, and a state for each socket.
 *
 * The filter can be changed while a capture runs: that is another generation.  What one filter decided
 * about a socket must not be taken for another's decision, so that is kept apart for odd and even
 * generations. */
#ifndef UNIXSOCK_STATE_H
#define UNIXSOCK_STATE_H

#include "filter/layout.h"

#define NAME_SIZE 128 /* sun_path has 108 bytes; the rest keeps the verifier and the filter happy */

/* One direction of a conversation. */
struct flow {
	u64 bytes; /* queued so far, lost ones included */
	u64 messages; /* the same */
	u64 lost_at; /* position of the first byte of the loss that is not reported yet */
	u64 lost_bytes;
	u64 lost_messages;
	u32 lost_reasons;
	u32 lost_message; /* number of the first lost message */
};

/* The two ways in which a process uses a socket, which need not be the same process: where a child writes to what
 * its parent reads, say.  Also the places of both ends of a message, whose sender writes and whose receiver reads. */
enum {
	WRITER, /* writes, connects, accepts, shuts down */
	READER, /* reads, binds; or is guessed */
	USES,
};

enum owner {
	OWNER_UNKNOWN,
	OWNER_GUESSED, /* who connected, listened or holds the socket */
	OWNER_SEEN, /* using it */
};

/* A process that uses a socket.  Two CPUs may write one at once, so that it is copied before it is used, and the
 * copy is good if its `tag` fits. */
struct user {
	u32 tag; /* a hash of all the rest, which distinguishes users; 0: there is none */
	u32 tgid; /* in the initial pid namespace; only to be compared with the current one */
	u32 pid; /* in the reader's; 0: not visible there */
	u32 parent; /* the same as pid, of its parent */
	u32 uid;
	u32 gid;
	u64 cgroup; /* a key of cgroups */
	u16 comm_len;
	u8 owner; /* how the process is known */
	u8 unused[5];
	u8 comm[16];
};

/* What the filter says of an endpoint as the sender or as the receiver: see filter/verdict.h.  Written back to front, so
 * that it holds whenever `generation` and the counts fit. */
struct verdict {
	u64 socket_atoms; /* which of the filter's terms hold for the socket... */
	u64 owner_atoms; /* ...and for the process that uses it */
	u64 rejected_peer; /* the filter can match nothing between this sock and us... */
	u32 rejected_at; /* ...as long as no socket got another name, or its address: totals.renames */
	u32 generation;
	u64 accepted_peer; /* the filter matches everything between this sock and us: for as long... */
	u32 accepted_at; /* ...and if it is 0, it was found for as long that this is not so */
	u32 socket_changes; /* endpoint's when its socket was looked at */
	u32 owner; /* the tag of its process */
	u32 capturer; /* 1: the process belongs to the capture itself */
};

/* A thread in the middle of a send. */
struct sending {
	u64 claims; /* threads that want this place; the first one has it */
	u64 thread; /* which one that is; 0: none */
	u64 since; /* when it filled an sk_buff last */
	u64 filled; /* bytes that it filled in this send */
	u64 end; /* position behind the last ones */
	u32 recorded; /* 1: the last ones matched */
	u32 messages; /* sk_buffs that it filled in this send */
};
#define SENDINGS 4

/* A socket.  Kept from its first use that the probe sees until the kernel frees it.
 * What is true or false has a byte of its own: several CPUs may write at once. */
struct endpoint {
	u64 id; /* never used again, unlike the address of the sock */
	u64 inode;
	u64 peer_id; /* whom it last sent to */
	u64 place; /* of its relative name; a key of places */
	struct verdict verdicts[2 * USES]; /* see verdict_of; not of two dimensions, whose size bcc tells wrongly */
	struct flow flow; /* to the peer; datagrams count by pair instead */
#ifdef UNIX_SOCK_INQ_LEN
	struct sending sendings[SENDINGS]; /* threads that filled messages which may not be queued yet */
#endif
	struct user users[USES];
	u32 netns;
	u32 socket_changes; /* it got a name or an inode */
	u32 announced; /* tag of the process that the reader knows */
	u16 name_len;
	u8 type;
	u8 named;
	u8 from_start;
	u8 server;
	u8 client;
	u8 emitted; /* a record of its conversation went out */
	u8 closed;
	u8 lossy; /* something it sent was lost */
	u8 looked_at; /* its name was asked for before */
	u8 refused; /* verdicts on senders name it by its address */
	u8 passed_on; /* the process that read from it last has passed its descriptor on since */
	u8 name[NAME_SIZE]; /* as bound: sun_path without the NUL that ends a file name */
};

/* A process that holds a socket, from the snapshot that the reader takes before it attaches. */
struct holder {
	u32 pid;
	u32 uid;
	u32 gid;
	u32 comm_len;
	u64 cgroup;
	u8 comm[16];
};

/* A cgroup of version 2. */
#define CGROUP_PATH_ROOM 0x200
struct cgroup_line {
	u64 ids[FILTER_CGROUP_LEVELS]; /* its own and of those above it, by level... */
	u32 known; /* ...if this is not 0 */
	u32 len;
	u8 path[CGROUP_PATH_ROOM]; /* as in /proc/PID/cgroup; unknown if len is 0 */
};

struct pair {
	u64 src;
	u64 dst;
};

/* Written by the reader through mmap. */
struct settings {
	u64 clock_offset; /* ns to add to boot time for wall-clock time */
	u64 running; /* 0: look at nothing: the filter's tables and the snapshot are not there yet, or a pause */
	u64 reader; /* its pid, in the namespace of the records' pids */
	u64 generation; /* whose filter holds (filter/verdict.h); 0: none yet */
	u64 prover; /* inode of the socket whose messages the probe's self-test counts; 0: no test */
	u64 pid_namespace; /* inode of the one that records' pids belong to; 0: the initial one */
	u64 first_id; /* a random number: other captures give other ids */
};

/* Addresses that the probe reads from.  Written once and frozen: the reader, which belongs to the user who
 * captures, must not choose them. */
struct page_bases {
	u64 page_offset_base; /* where the kernel has these variables, which it moves at every boot; or 0 */
	u64 vmemmap_base;
	u64 page_offset; /* what is in these variables, if their addresses are 0; or 0 */
	u64 vmemmap;
};

/* Added up by the probe, read by the reader through mmap. */
struct totals {
	u64 messages; /* that matched, captured or not */
	u64 bytes;
	u64 lost_messages;
	u64 lost_bytes;
	u64 truncated;
	u64 untracked; /* messages of sockets or on processors that there is no room for */
	u64 lost_events;
	u64 renames; /* how often a socket that was known got a name, or a receiver that was rejected was freed */
	u64 skipped_returns; /* calls whose arguments could not be kept until their return */
	u64 proved; /* bytes that the self-test sent */
};

/* hooks.bpf.c and records.bpf.c are compiled apart, and share them.  Some are made larger than they are here: probe/maps.py. */
BPF_F_TABLE("array", u32, struct settings, settings, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct totals, totals, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct page_bases, page_bases, 1, BPF_F_RDONLY_PROG);
BPF_TABLE("hash", u64, struct endpoint, endpoints, 1);
BPF_TABLE("lru_hash", u64, struct endpoint, orphans, 1024); /* by id: freed, with losses to report */
BPF_TABLE("hash", struct pair, struct flow, flows, 1); /* until one of the two is freed */
BPF_TABLE("hash", u64, struct holder, holders, 1); /* by inode */
BPF_TABLE("hash", u64, struct cgroup_line, cgroups, 1); /* by id, until it is removed */
BPF_TABLE("hash", u32, u32, capturers, 1024); /* a set of processes */
BPF_RINGBUF(ring, PAGE_SIZE);

/* Working memory on each CPU, in slots: one for all kprobes, and one for each other hook, which never interrupts
 * itself, but others.  probe/hook_programs.py gives them out, those that messages go through first: DATA_SLOTS of
 * SLOTS. */

/* The slot that the program runs for; the loader writes it over this number. */
#define SLOT_HERE 0x510775
#define GET_SLOT(slot) asm volatile("%0 = " STRING(SLOT_HERE) : "=r"(slot))
/* The same for how many bytes of a message are wanted. */
#define SNAPLEN_HERE 0x5a9e1e
#define GET_SNAPLEN(snaplen) asm volatile("%0 = " STRING(SNAPLEN_HERE) : "=r"(snaplen))
#define STRING(number) STRING_OF(number)
#define STRING_OF(text) #text

/* What a hook saw, for the program behind its gate. */
struct call {
	u64 sk;
	u64 other; /* 0: none */
	u64 listener; /* 0, or the one that `other` gets its name, type and user from: it has none yet */
	u64 address; /* where the bytes of a message are, if not those of an sk_buff; or 0 */
	u32 len;
	u32 flags; /* of the record */
	u32 element; /* an element of one u32, if not 0... */
	u32 value; /* ...and what is in it */
	u64 seq; /* position of `len` bytes that were not queued */
	u8 event; /* or NO_EVENT, if there is only something to remember */
	u8 news;
};

#define NO_EVENT 0xff
enum {
	NEWS_USED = 1 << 0, /* the current process writes to sk, or did something else to it */
	NEWS_BOUND = 1 << 1, /* sk got a name */
	NEWS_PAIRED = 1 << 2, /* both ends exist from here on: positions count from the first byte */
	NEWS_CLIENT = 1 << 3, /* sk connected to other, a server */
	NEWS_SERVER = 1 << 4, /* sk was accepted */
	NEWS_READ = 1 << 5, /* the current process reads from sk */
	NEWS_ENDED = 1 << 6, /* sk was freed: recorded in a pause, too */
};

/* Where a message's next bytes are.  It lies in a map, not on the stack: what the verifier doesn't
 * follow through a loop, it need not try in every combination. */
struct cursor {
	u64 address;
	u64 fragments; /* skb_shared_info's array */
	u64 mapping, pages; /* where the kernel has the memory of pages, and their descriptions */
	u8 copied[FRAG_SIZE]; /* the last fragment */
	u32 left; /* bytes at address */
	u32 fragment; /* the next one */
	u32 fragment_count;
	u32 took; /* bytes in the last step */
	u32 done; /* bytes in this record */
	u32 before; /* bytes in the records before, of the same message */
	u32 wanted; /* bytes that are still to come */
	u32 flags; /* of all records of the message */
};

/* One message or event on its way out.  In a map for the same reason. */
struct message {
	u64 ack;
	u64 seq;
	u64 at; /* where the next element goes */
	u32 number;
	u32 len;
	u32 flags;
	u8 event;
	u8 type;
	u8 role;
};

/* Both ends of it, and the direction that it counts in. */
struct sides {
	struct endpoint *src;
	struct endpoint *dst; /* NULL: no peer */
	struct flow *flow;
	u32 untracked; /* there are too many sockets */
};

/* What travels with a message. */
struct ancillary {
	u64 files; /* struct scm_fp_list */
	u32 fds;
	u32 creds; /* 1: the receiver gets pid, uid and gid */
	u32 pidfd; /* 1: it gets a pidfd of pid */
	u32 security; /* 0, or the number of the security context that it gets */
	u32 pid;
	u32 uid;
	u32 gid;
};

/* A message is put together here: frame, elements, payload, end of block. */
#define HEAD_SPACE 0x8000
struct scratch {
	struct call call;
	struct message message;
	struct cursor cursor;
	struct ancillary ancillary;
	u8 skb[SKB_SIZE]; /* a copy of the sk_buff, as far as it is needed; zeros where there is none */
	u8 data[2 * 0x40000]; /* the verifier knows 18 bits of a position and of a length */
};
BPF_TABLE("array", u32, struct scratch, scratches, DATA_SLOTS * CPUS);

/* The same for events, which have no payload. */
struct small_scratch {
	struct call call;
	struct message message;
	u8 data[0x1400];
};
BPF_TABLE("array", u32, struct small_scratch, small_scratches, SLOTS * CPUS);

/* For what is no message yet. */
struct workspace {
	u64 made; /* endpoints, here */
	u64 place; /* of this among all workspaces */
	struct user users[2]; /* the sender's and the receiver's, of what is recorded now */
	struct endpoint endpoint; /* a new one; most of it is and stays zero */
	struct cgroup_line no_cgroup; /* all zero */
	struct cgroup_line new_cgroup;
	u64 path_of; /* a cgroup... */
	u32 path_len;
	u8 path[0x80] __attribute__((aligned(8))); /* ...and its path: see put_cgroup */
	/* The filter's: see filter/verdict.h. */
	struct filter_question question;
	u64 words[WORDS];
	u64 judged; /* a sock... */
	u32 judged_use; /* ...as the sender or as the receiver */
	u64 facts[FILTER_FACTS];
	u64 atoms[2];
	u8 text[NAME_SIZE];
};
BPF_TABLE("array", u32, struct workspace, workspaces, SLOTS * CPUS);

/* Adds to `*at` and tells what was there before. */
static __always_inline u64 count_up(u64 *at, u64 by)
{
#ifdef UNIX_SOCK_INQ_LEN
	/* Nothing keeps threads apart that write to one stream on such kernels.  They tell what was there
	 * before, but LLVM needs to be asked for that, and bcc doesn't: probe/bytecode.py looks for this offset. */
	asm volatile("lock *(u64 *)(%1 + 0x7e7c) += %0" : "+r"(by) : "r"(at) : "memory");
	return by;
#else
	u64 before = *at;
	__sync_fetch_and_add(at, by);
	return before;
#endif
}

static __always_inline struct totals *get_totals(void)
{
	u32 zero = 0;
	return totals.lookup(&zero);
}

static __always_inline struct settings *get_settings(void)
{
	u32 zero = 0;
	return settings.lookup(&zero);
}

static __always_inline struct page_bases *get_page_bases(void)
{
	u32 zero = 0;
	return page_bases.lookup(&zero);
}

static __always_inline u32 scratch_at(u32 cpu, u32 slot)
{
	return cpu * DATA_SLOTS + slot;
}

static __always_inline struct scratch *get_scratch(u32 cpu, u32 slot)
{
	u32 at = scratch_at(cpu, slot);
	return scratches.lookup(&at);
}

static __always_inline u32 workspace_at(u32 cpu, u32 slot)
{
	return cpu * SLOTS + slot;
}

static __always_inline struct small_scratch *get_small_scratch(u32 slot)
{
	u32 at = workspace_at(bpf_get_smp_processor_id(), slot);
	return small_scratches.lookup(&at);
}

static __always_inline struct workspace *get_workspace(u32 at)
{
	struct workspace *w = workspaces.lookup(&at);
	if (w)
		w->place = at;
	return w;
}

static __always_inline bool running(void)
{
	struct settings *set = get_settings();
	return set && set->running;
}

#endif
