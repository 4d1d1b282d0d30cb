/* Who: the state of each socket, its name, and the process that uses it. */
#ifndef UNIXSOCK_IDENTITY_H
#define UNIXSOCK_IDENTITY_H

#define TGID_LINKS 1 /* PIDTYPE_TGID */

/* The bound name of `sk`, if it has one by now. */
static __always_inline void take_name(struct endpoint *ep, u64 sk)
{
	u64 address = LOAD(u64, sk, UNIX_SOCK_ADDR);
	if (!address)
		return;
	u32 len = LOAD(u32, address, UNIX_ADDRESS_LEN) - 2; /* without sun_family */
	if (len > 109)
		return;
	u32 size = len;
	BOUND(size, 0x7f);
	bpf_probe_read_kernel(ep->name, size, (void *)(address + UNIX_ADDRESS_NAME + 2));
	/* A file's name ends with a NUL that is counted; an abstract one is all bytes. */
	if (len && ep->name[0]) {
		len--;
		size--;
		BOUND(size, 0x7f);
		ep->name[size] = 0;
	}
	ep->name_len = len;
	ep->flags |= EP_NAMED;
	ep->socket_atoms |= filter_name_atoms(ep->name, len);
}

static __always_inline void take_comm(struct endpoint *ep, u64 task)
{
	u64 leader = LOAD(u64, task, TASK_GROUP_LEADER);
	u64 comm[2] = {};
	int len = bpf_probe_read_kernel_str(comm, sizeof(comm), (void *)(leader + TASK_COMM));
	*(u64 *)&ep->comm[0] = comm[0];
	*(u64 *)&ep->comm[8] = comm[1];
	ep->comm_len = len > 0 && len <= 16 ? len - 1 : 0;
}

static __always_inline u32 is_capturer(u32 pid)
{
#ifdef WITH_CAPTURERS
	return 0;
#else
	u32 *flag = capturers.lookup(&pid);
	return flag ? *flag : 0;
#endif
}

/* The current process uses the socket.  Threads count as their process; an io_uring worker as its owner. */
static __always_inline void note_user(struct endpoint *ep, bool check_comm)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	u64 task = bpf_get_current_task();
	if ((ep->flags & EP_SEEN) && ep->pid == pid) {
		if (!check_comm)
			return;
		/* exec keeps the pid */
		u64 comm[2] = {};
		bpf_probe_read_kernel_str(comm, sizeof(comm), (void *)(LOAD(u64, task, TASK_GROUP_LEADER) + TASK_COMM));
		if (comm[0] == *(u64 *)&ep->comm[0] && comm[1] == *(u64 *)&ep->comm[8])
			return;
	}
	u64 ids = bpf_get_current_uid_gid();
	take_comm(ep, task);
	ep->pid = pid;
	ep->uid = ids;
	ep->gid = ids >> 32;
	u32 flags = ep->flags & ~(EP_CAPTURER | EP_ANNOUNCED | EP_UNJUDGED);
	u64 parent = LOAD(u64, task, TASK_REAL_PARENT);
	flags |= is_capturer(pid) | is_capturer(LOAD(u32, parent, TASK_TGID));
	ep->flags = flags | EP_OWNER | EP_SEEN;
	ep->owner_atoms = filter_owner_atoms(pid, ep->uid, ep->comm, bpf_get_current_cgroup_id());
}

/* Nobody was seen using `ep` yet: take the process at the other end as the kernel noted it for
 * SO_PEERCRED, which is who connected, listened or made the pair. */
static __always_inline void guess_user(struct endpoint *ep, u64 peer)
{
	u64 pid = LOAD(u64, peer, SOCK_PEER_PID);
	if (!pid)
		return;
	u64 cred = LOAD(u64, peer, SOCK_PEER_CRED);
	ep->pid = LOAD(u32, pid, PID_NUMBERS_NR);
	ep->uid = LOAD(u32, cred, CRED_EUID);
	ep->gid = LOAD(u32, cred, CRED_EGID);
	u64 link = LOAD(u64, pid, PID_TASKS + TGID_LINKS * 8);
	if (link)
		take_comm(ep, link - TASK_PID_LINKS - TGID_LINKS * 16);
	ep->flags |= EP_OWNER | EP_UNJUDGED;
}

/* The inode appears with accept; the snapshot may know who holds it. */
static __always_inline void take_inode(struct endpoint *ep, u64 sk)
{
	u64 inode = inode_of(sk);
	if (!inode)
		return;
	ep->inode = inode;
	ep->socket_atoms |= filter_socket_atoms(inode, ep->netns);
	struct holder *holder = holders.lookup(&inode);
	if (!holder || (ep->flags & EP_OWNER))
		return;
	ep->pid = holder->pid;
	ep->uid = holder->uid;
	ep->gid = holder->gid;
	ep->comm_len = holder->comm_len;
	*(u64 *)&ep->comm[0] = *(u64 *)&holder->comm[0];
	*(u64 *)&ep->comm[8] = *(u64 *)&holder->comm[8];
	ep->flags |= EP_OWNER | EP_UNJUDGED;
}

/* The state of `sk`, made if need be; NULL when there are too many sockets.  Not to be called before
 * the reader has set everything up: what the filter says of a name is remembered. */
static __always_inline struct endpoint *endpoint_of(u64 sk, u32 slot)
{
	u32 at = bpf_get_smp_processor_id() * SLOTS + slot;
	struct fresh *fresh = freshes.lookup(&at);
	struct endpoint *ep = endpoints.lookup(&sk);
	if (!fresh)
		return NULL;
	if (!ep) {
		/* All else in a fresh endpoint is and stays zero. */
		fresh->endpoint.id = bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
		fresh->endpoint.netns = netns_of(sk);
		fresh->endpoint.socket_atoms = filter_socket_atoms(0, fresh->endpoint.netns);
		endpoints.insert(&sk, &fresh->endpoint); /* fails where another CPU was faster */
		ep = endpoints.lookup(&sk);
		if (!ep)
			return NULL;
	}
	if (!ep->inode)
		take_inode(ep, sk);
	if (!(ep->flags & EP_NAMED))
		take_name(ep, sk);
	return ep;
}

/* Tests the filter's terms on a process that is known from hearsay. */
static __always_inline void judge_user(struct endpoint *ep)
{
	if (!(ep->flags & EP_UNJUDGED))
		return;
	ep->flags = (ep->flags & ~EP_UNJUDGED) | is_capturer(ep->pid);
	ep->owner_atoms = filter_owner_atoms(ep->pid, ep->uid, ep->comm, 0);
}

/* Which side is the server: known from connect, else the side with a name. */
static __always_inline u8 stream_role(struct endpoint *src, struct endpoint *dst)
{
	if ((src->flags & EP_SERVER) || (dst->flags & EP_CLIENT))
		return ROLE_SRC_IS_SERVER;
	if ((src->flags & EP_CLIENT) || (dst->flags & EP_SERVER))
		return ROLE_DST_IS_SERVER;
	if ((src->flags & EP_NAMED) && !(dst->flags & EP_NAMED))
		return ROLE_SRC_IS_SERVER;
	if ((dst->flags & EP_NAMED) && !(src->flags & EP_NAMED))
		return ROLE_DST_IS_SERVER;
	return ROLE_UNKNOWN;
}

/* The same for datagrams: the server is the one that is not connected, or who was sent to first. */
static __always_inline u8 dgram_role(u64 sk, u64 other, bool answered)
{
	bool src_connected = peer_of(sk) == other;
	bool dst_connected = peer_of(other) == sk;
	if (src_connected != dst_connected)
		return src_connected ? ROLE_DST_IS_SERVER : ROLE_SRC_IS_SERVER;
	if (src_connected)
		return ROLE_UNKNOWN;
	return answered ? ROLE_SRC_IS_SERVER : ROLE_DST_IS_SERVER;
}

#endif
