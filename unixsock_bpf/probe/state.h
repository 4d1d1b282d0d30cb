/* What the probe remembers: settings from the reader, totals for it, and a state for each socket. */
#ifndef UNIXSOCK_STATE_H
#define UNIXSOCK_STATE_H

#define NAME_SIZE 128 /* sun_path has 108 bytes; the rest keeps the verifier and the filter happy */

/* One direction of a conversation. */
struct flow {
	u64 bytes; /* queued so far, lost ones included */
	u64 lost_at; /* position of the first byte of the loss that is not reported yet */
	u64 lost_bytes;
	u32 lost_messages;
	u32 lost_reasons;
	u32 lost_message; /* number of the first lost message */
	u32 messages;
};

/* A socket.  Kept from its first use that the probe sees until the kernel frees it. */
struct endpoint {
	u64 id; /* never used again, unlike the address of the sock */
	u64 inode;
	u64 socket_atoms; /* which of the filter's terms hold for the socket... */
	u64 owner_atoms; /* ...and for the process that uses it */
	u64 rejected_peer; /* the filter can match nothing between this sock and us */
	u64 peer_id; /* whom it last sent to */
	struct flow flow; /* to the peer; datagrams count by pair instead */
	u32 flags;
	u32 pid;
	u32 uid;
	u32 gid;
	u32 netns;
	u32 type;
	u16 comm_len;
	u16 name_len;
	u32 writer; /* a thread that filled a message which may not be queued yet */
	u8 comm[16];
	u8 name[NAME_SIZE]; /* as bound: sun_path without the NUL that ends a file name */
};

enum {
	EP_OWNER = 1 << 0, /* pid, uid, gid, comm are known... */
	EP_SEEN = 1 << 1, /* ...because the process was seen using the socket */
	EP_CAPTURER = 1 << 2, /* the process belongs to the capture itself */
	EP_NAMED = 1 << 3,
	EP_FROM_START = 1 << 4,
	EP_SERVER = 1 << 5,
	EP_CLIENT = 1 << 6,
	EP_ANNOUNCED = 1 << 7,
	EP_EMITTED = 1 << 8, /* a record of its conversation went out */
	EP_CLOSED = 1 << 9,
	EP_UNJUDGED = 1 << 10, /* owner_atoms are not computed yet */
	EP_LOSSY = 1 << 11, /* something it sent was lost */
};

/* A process that holds a socket, from the snapshot that the reader takes before it attaches. */
struct holder {
	u32 pid;
	u32 uid;
	u32 gid;
	u32 comm_len;
	u8 comm[16];
};

struct pair {
	u64 src;
	u64 dst;
};

/* Written by the reader through mmap. */
struct settings {
	u64 clock_offset; /* ns to add to boot time for wall-clock time */
	u64 reader_waits; /* 1: the reader sleeps until it is woken */
	u64 running; /* 0: look at nothing: the filter's tables and the snapshot are not there yet, or a pause */
};

/* Added up by the probe, read by the reader through mmap. */
struct totals {
	u64 messages; /* that matched, captured or not */
	u64 bytes;
	u64 lost_messages;
	u64 lost_bytes;
	u64 truncated;
	u64 untracked; /* messages of sockets beyond MAX_SOCKETS */
	u64 lost_events;
};

#define BPF_F_MMAPABLE 1024
BPF_F_TABLE("array", u32, struct settings, settings, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct totals, totals, 1, BPF_F_MMAPABLE);
BPF_HASH(endpoints, u64, struct endpoint, MAX_SOCKETS);
BPF_TABLE("lru_hash", u64, struct endpoint, orphans, 4096); /* by id: freed, with losses to report */
BPF_TABLE("lru_hash", struct pair, struct flow, flows, 16384);
BPF_HASH(holders, u64, struct holder, MAX_HOLDERS);
BPF_HASH(capturers, u32, u32, 1024); /* the values are EP_CAPTURER */
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);

/* Each kind of hook has its own working memory on each CPU: one kind never interrupts itself there
 * (the kernel skips nested runs), but kinds interrupt each other. */
enum {
	SLOT_QUEUE,
	SLOT_COPY,
	SLOT_PAGE,
	DATA_SLOTS,
	SLOT_USE = DATA_SLOTS, /* recvmsg, bind */
	SLOT_CONNECT,
	SLOT_ACCEPT,
	SLOT_SOCKETPAIR,
	SLOT_SHUTDOWN,
	SLOT_CLOSE,
	SLOT_ERROR,
	SLOTS,
};

/* Where a message's next bytes are.  It lies in a map, not on the stack: what the verifier doesn't
 * follow through a loop, it need not try in every combination. */
struct cursor {
	u64 address;
	u64 fragments; /* skb_shared_info's array */
	u32 left; /* bytes at address */
	u32 fragment; /* the next one */
	u32 fragment_count;
	u32 unreadable; /* 1: some bytes could not be read */
	u32 done; /* bytes in this record */
	u32 before; /* bytes in the records before, of the same message */
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
};

/* A message is put together here: frame, elements, payload, end of block. */
#define HEAD_SPACE 0x8000
#define PIECE_MAX 0xffff
struct scratch {
	struct message message;
	struct cursor cursor;
	u8 data[0x40000 + PIECE_MAX + 1];
};
BPF_ARRAY(scratches, struct scratch, DATA_SLOTS * CPUS);

/* The same for events, which have no payload. */
struct small_scratch {
	struct message message;
	u8 data[0x800];
};
BPF_ARRAY(small_scratches, struct small_scratch, (SLOTS - DATA_SLOTS) * CPUS);

struct fresh {
	struct endpoint endpoint;
};
BPF_ARRAY(freshes, struct fresh, SLOTS * CPUS);

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

static __always_inline bool running(void)
{
	struct settings *set = get_settings();
	return set && set->running;
}

#endif
