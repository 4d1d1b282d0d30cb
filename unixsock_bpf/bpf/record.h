/* The record and the pcapng block around it, as docs/format.md describes them.
 * unixsock_bpf/record.py is the declaration; a test compares the two. */
#ifndef UNIXSOCK_RECORD_H
#define UNIXSOCK_RECORD_H

#define RECORD_VERSION 1
#define MAX_PAYLOAD 0x38000

/* 64-bit members are aligned to 4 bytes only, because the header follows 44 bytes of block and prefix. */
struct record_header {
	u8 version;
	u8 event;
	u16 header_len;
	u32 src_pid;
	u32 dst_pid;
	u8 type;
	u8 role;
	u16 flags;
	u32 src_tid;
	u32 src_uid;
	u32 src_gid;
	u32 dst_uid;
	u32 dst_gid;
	u32 netns;
	u64 src_sock;
	u64 dst_sock;
	u64 src_inode;
	u64 dst_inode;
	u64 seq;
	u64 ack;
	u32 message;
	u32 len;
	u32 offset;
	u32 caplen;
} __attribute__((packed, aligned(4)));

enum {
	EVENT_DATA = 0,
	EVENT_CONNECT = 1,
	EVENT_ACCEPT = 2,
	EVENT_SHUTDOWN = 3,
	EVENT_CLOSE = 4,
	EVENT_SEND_ERROR = 5,
	EVENT_LOST = 6,
};

enum {
	TYPE_STREAM = 1,
	TYPE_DGRAM = 2,
	TYPE_SEQPACKET = 5,
};

enum {
	ROLE_UNKNOWN = 0,
	ROLE_SRC_IS_SERVER = 1,
	ROLE_DST_IS_SERVER = 2,
};

enum {
	FLAG_TRUNCATED = 1 << 0,
	FLAG_OOB = 1 << 1,
	FLAG_SRC_CREDS = 1 << 2,
	FLAG_DST_CREDS = 1 << 3,
	FLAG_MORE = 1 << 4,
	FLAG_UNREADABLE = 1 << 5,
	FLAG_DST_GUESSED = 1 << 6,
	FLAG_FROM_START = 1 << 7,
	FLAG_UNORDERED = 1 << 8,
	FLAG_SOCKETPAIR = 1 << 9,
};

enum {
	ELEMENT_SRC_COMM = 1,
	ELEMENT_DST_COMM = 2,
	ELEMENT_SRC_NAME = 3,
	ELEMENT_DST_NAME = 4,
	ELEMENT_CREDS = 5,
	ELEMENT_FDS = 6,
	ELEMENT_FD = 7,
	ELEMENT_CGROUP = 8,
	ELEMENT_LOST = 9,
	ELEMENT_ERROR = 10,
	ELEMENT_SHUTDOWN = 11,
	ELEMENT_SRC_PATH = 12,
	ELEMENT_DST_PATH = 13,
};

enum {
	FD_OTHER = 0,
	FD_FILE = 1,
	FD_DIRECTORY = 2,
	FD_CHARDEV = 3,
	FD_BLOCKDEV = 4,
	FD_PIPE = 5,
	FD_SOCKET = 6,
	FD_MEMFD = 7,
	FD_ANON = 8,
	FD_EVENTFD = 9,
	FD_EPOLL = 10,
	FD_TIMERFD = 11,
	FD_SIGNALFD = 12,
	FD_INOTIFY = 13,
	FD_PIDFD = 14,
	FD_DMABUF = 15,
	FD_BPF = 16,
	FD_IO_URING = 17,
};

enum {
	LOST_RING_FULL = 1 << 0,
	LOST_NESTED = 1 << 1,
	LOST_UNREADABLE = 1 << 2,
	LOST_NO_STATE = 1 << 3,
};

/* An enhanced packet block up to its payload's elements. */
struct frame {
	u32 block_type;
	u32 block_len;
	u32 interface_id;
	u32 time_high;
	u32 time_low;
	u32 caplen;
	u32 origlen;
	u32 prefix[4]; /* names the dissector: see pcapng.PACKET_PREFIX */
	struct record_header record;
} __attribute__((packed, aligned(4)));

#define BLOCK_EPB 6
/* 00 0c 00 08 "unixsock" 00 00 00 00 */
#define PREFIX_0 0x08000c00
#define PREFIX_1 0x78696e75
#define PREFIX_2 0x6b636f73
#define PREFIX_3 0

/* Not pcapng: what the ring carries besides blocks, for the reader alone.  An endpoint is announced
 * before its first record and whenever its process changes, so that the reader can name its address. */
#define ANNOUNCEMENT 0x554e4958
struct announcement {
	u32 block_type;
	u32 block_len;
	u64 sock;
	u32 pid;
	u32 name_len;
	u8 comm[16];
	u8 name[112];
};

#endif
