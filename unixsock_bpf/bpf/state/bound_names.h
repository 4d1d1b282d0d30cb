/* Which socket has a name: for a refused connect, who listens there.  The kernel keeps that, but passes it to no hook. */
#ifndef UNIXSOCK_BOUND_NAMES_H
#define UNIXSOCK_BOUND_NAMES_H

#define STATE_LISTENING 10 /* TCP_LISTEN */

/* Errors that it matters for. */
#define ENOENT 2
#define EINTR 4
#define EAGAIN 11
#define ECONNREFUSED 111

/* Where the name that was asked for lies in a small_scratch, behind the elements. */
#define ASKED_AT 0x1300

/* As bound or asked for, then zeros; an abstract name is one of its network namespace. */
#define BOUND_NAME_NETNS 120
struct bound_name {
	u8 name[NAME_SIZE];
};

/* A socket, and its file as it was.  Nothing of it is deleted: what is no longer so doesn't fit any more. */
struct bound_socket {
	u64 sk;
	u64 inode;
	u64 dentry; /* 0: an abstract name */
	u64 file_name; /* the dentry's hash and length... */
	u64 folder; /* ...and its parent: a rename changes one of them */
};
BPF_TABLE("lru_hash", struct bound_name, struct bound_socket, bound_names, 4096);

/* Whether it's a file's name, and one leads to it. */
static __always_inline bool is_linked(u64 dentry)
{
	return LOAD(u64, dentry, DENTRY_UNHASHED) != 0;
}

/* Reads the `len` bytes of a sun_path into `name`; returns how many belong to the name. */
static __always_inline u32 take_sun_path(struct bound_name *name, u64 path, u32 len)
{
	u64 size = len;
	__builtin_memset(name, 0, sizeof(*name));
	if (!len || len > 109)
		return 0;
	BOUND(size, 0x7f);
	if (!LOAD(u8, path, 0)) {
		bpf_probe_read_kernel(name->name, size, (void *)path);
		return len;
	}
	int found = bpf_probe_read_kernel_str(name->name, size + 1, (void *)path);
	return found > 0 && found <= 109 ? found - 1 : 0;
}

/* `sk` has got the name in `address`, a struct unix_address; `name` is memory for it. */
static __always_inline void note_bound(struct bound_name *name, u64 sk, u64 address, u64 dentry)
{
	struct bound_socket bound = { .sk = sk, .inode = inode_of(sk), .dentry = dentry };
	u32 len = take_sun_path(name, address + UNIX_ADDRESS_NAME + 2, LOAD(u32, address, UNIX_ADDRESS_LEN) - 2);
	u8 first = name->name[0];
	if (!len || !bound.inode || (first && (first != '/' || !is_linked(dentry))))
		return;
	if (!first)
		*(u32 *)&name->name[BOUND_NAME_NETNS] = netns_of(sk);
	bound.file_name = LOAD(u64, dentry, DENTRY_NAME_HASH_LEN);
	bound.folder = LOAD(u64, dentry, DENTRY_PARENT);
	bound_names.update(name, &bound);
}

/* The socket that `sk` finds at `name`, if it listens or takes datagrams; 0: none does, or it is not known which.  The
 * name's memory is written to. */
static __always_inline u64 who_listens(struct bound_name *name, u64 sk)
{
	if (!name->name[0])
		*(u32 *)&name->name[BOUND_NAME_NETNS] = netns_of(sk);
	struct bound_socket *bound = bound_names.lookup(name);
	if (!bound || inode_of(bound->sk) != bound->inode)
		return 0;
	u64 found = bound->sk, dentry = bound->dentry;
	if (LOAD(u16, found, SOCK_TYPE) != TYPE_DGRAM && LOAD(u8, found, SOCK_STATE) != STATE_LISTENING)
		return 0;
	if (!dentry)
		return found;
#ifdef MOUNT_MNT
	u64 mount = LOAD(u64, found, UNIX_SOCK_MOUNT) - MOUNT_MNT;
	u64 spaces = LOAD(u64, bpf_get_current_task(), TASK_NSPROXY);
	if (LOAD(u64, found, UNIX_SOCK_DENTRY) != dentry || !is_linked(dentry) ||
	    LOAD(u64, dentry, DENTRY_NAME_HASH_LEN) != bound->file_name ||
	    LOAD(u64, dentry, DENTRY_PARENT) != bound->folder ||
	    LOAD(u64, mount, MOUNT_NAMESPACE) != LOAD(u64, spaces, NSPROXY_MOUNTS))
		return 0; /* the file was unlinked or renamed, or another one has its name elsewhere */
	return found;
#else
	return 0; /* in which mount namespace the name leads to it is not known */
#endif
}

#endif
