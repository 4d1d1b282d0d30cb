/* Who: the state of each socket, its name, and the process that uses it. */
#ifndef UNIXSOCK_IDENTITY_H
#define UNIXSOCK_IDENTITY_H

#define TGID_LINKS 1 /* PIDTYPE_TGID */

static __always_inline void copy_comm(u8 *to, const u8 *from)
{
	*(u64 *)&to[0] = *(u64 *)&from[0];
	*(u64 *)&to[8] = *(u64 *)&from[8];
}

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
	/* Accepted sockets share their listener's address. */
	if (len && ep->name[0] && ep->name[0] != '/')
		ep->place = address;
	ep->name_len = len;
	ep->named = 1;
	ep->socket_changes++;
}

static __always_inline void take_comm(struct endpoint *ep, u64 task)
{
	u64 leader = LOAD(u64, task, TASK_GROUP_LEADER);
	u64 comm[2] = {};
	int len = bpf_probe_read_kernel_str(comm, sizeof(comm), (void *)(leader + TASK_COMM));
	copy_comm(ep->comm, (u8 *)comm);
	ep->comm_len = len > 0 && len <= 16 ? len - 1 : 0;
}

/* Whether the program in the process that was seen using `ep` is another one now: exec keeps the pid.
 * Only asked of a process' first thread, whose comm is at hand; exec leaves no other. */
static __always_inline bool has_other_comm(struct endpoint *ep)
{
	u64 comm[2] = {};
	bpf_get_current_comm(comm, sizeof(comm));
	return comm[0] != *(u64 *)&ep->comm[0] || comm[1] != *(u64 *)&ep->comm[8];
}

/* A cgroup's id and those of the cgroups above it, by level. */
static __always_inline void take_levels(struct cgroup_line *line, u64 cgroup, u64 id)
{
	u32 level = LOAD(u32, cgroup, CGROUP_LEVEL);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FILTER_CGROUP_LEVELS; i++) {
		u64 above = 0;
		if (i < level) {
#ifdef CGROUP_ANCESTORS
			above = LOAD(u64, cgroup + i * 8, CGROUP_ANCESTORS);
			above = LOAD(u64, LOAD(u64, above, CGROUP_NODE), NODE_ID);
#else
			above = LOAD(u64, cgroup + i * 8, CGROUP_ANCESTOR_IDS);
#endif
		}
		line->ids[i] = i == level ? id : above;
	}
}

/* The current process' cgroup, and those above it for the filter.  5.10 has
 * no helper that tells a tracing program the latter. */
static __always_inline void take_cgroup(struct endpoint *ep, struct workspace *w, u64 task, u64 id)
{
	ep->cgroup = id;
	struct cgroup_line *line = cgroups.lookup(&id);
	if (!line) {
		cgroups.insert(&id, &w->no_cgroup);
		line = cgroups.lookup(&id);
	}
	if (!line || line->known)
		return;
	take_levels(line, LOAD(u64, LOAD(u64, task, TASK_CGROUPS), CSS_SET_CGROUP), id);
	line->known = 1;
}

/* Whether the current process is known to use the socket.  Threads count as their process; an io_uring
 * worker as its owner. */
static __always_inline bool has_user(struct endpoint *ep)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 pid = thread >> 32;
	return ep->owner == OWNER_SEEN && ep->pid == pid && ep->cgroup == bpf_get_current_cgroup_id() &&
	       (pid != (u32)thread || !has_other_comm(ep));
}

/* The current process uses the socket. */
static __always_inline void note_user(struct endpoint *ep, struct workspace *w)
{
	if (has_user(ep))
		return;
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	u64 cgroup = bpf_get_current_cgroup_id();
	u64 task = bpf_get_current_task();
	u64 ids = bpf_get_current_uid_gid();
	take_comm(ep, task);
	take_cgroup(ep, w, task, cgroup);
	ep->pid = pid;
	ep->uid = ids;
	ep->gid = ids >> 32;
	ep->parent = LOAD(u32, LOAD(u64, task, TASK_REAL_PARENT), TASK_TGID);
	ep->owner = OWNER_SEEN;
	ep->announced = 0;
	ep->owner_changes++;
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
	if (link) {
		u64 task = link - TASK_PID_LINKS - TGID_LINKS * 16;
		take_comm(ep, task);
		ep->cgroup = LOAD(u64, LOAD(u64, LOAD(u64, LOAD(u64, task, TASK_CGROUPS), CSS_SET_CGROUP), CGROUP_NODE),
				  NODE_ID);
	}
	ep->owner = OWNER_GUESSED;
	ep->owner_changes++;
}

/* The inode appears with accept; the snapshot may know who holds it. */
static __always_inline void take_inode(struct endpoint *ep, u64 sk)
{
	u64 inode = inode_of(sk);
	if (!inode)
		return;
	ep->inode = inode;
	ep->socket_changes++;
	struct holder *holder = holders.lookup(&inode);
	if (!holder || ep->owner)
		return;
	ep->pid = holder->pid;
	ep->uid = holder->uid;
	ep->gid = holder->gid;
	ep->cgroup = holder->cgroup;
	ep->comm_len = holder->comm_len;
	copy_comm(ep->comm, holder->comm);
	ep->owner = OWNER_GUESSED;
	ep->owner_changes++;
}

/* The state of `sk`, made if need be; NULL when there are too many sockets. */
static __always_inline struct endpoint *endpoint_at(u64 sk, struct workspace *w)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	if (ep)
		return ep;
	w->endpoint.id = bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
	w->endpoint.netns = netns_of(sk);
	w->endpoint.type = LOAD(u16, sk, SOCK_TYPE);
	endpoints.insert(&sk, &w->endpoint); /* fails where another CPU was faster */
	return endpoints.lookup(&sk);
}

/* The same with its inode and name, as soon as it has them.  Not to be called before the reader has
 * set everything up: a holder is looked for once. */
static __always_inline struct endpoint *endpoint_of(u64 sk, struct workspace *w)
{
	struct endpoint *ep = endpoint_at(sk, w);
	struct totals *t = get_totals();
	if (!ep || !t)
		return NULL;
	if (!ep->inode)
		take_inode(ep, sk);
	if (!ep->named) {
		take_name(ep, sk);
		if (ep->named)
			__sync_fetch_and_add(&t->renames, ep->looked_at);
	}
	ep->looked_at = 1;
	return ep;
}

/* Whether it was decided that the filter lets nothing through from `ep` to `other`; 0: to whom it sent last. */
static __always_inline bool left_out(struct endpoint *ep, u64 other)
{
	struct settings *set = get_settings();
	struct totals *t = get_totals();
	if (!set || !t || !set->running)
		return false;
	u32 generation = set->generation;
	struct verdict *v = &ep->verdicts[generation & 1];
	return v->generation == generation && v->rejected_at == (u32)t->renames && v->rejected_peer &&
	       (!other || v->rejected_peer == other);
}

/* Which side is the server: known from connect, else the side with a name. */
static __always_inline u8 stream_role(struct endpoint *src, struct endpoint *dst)
{
	if (src->server || dst->client)
		return ROLE_SRC_IS_SERVER;
	if (src->client || dst->server)
		return ROLE_DST_IS_SERVER;
	if (src->named && !dst->named)
		return ROLE_SRC_IS_SERVER;
	if (dst->named && !src->named)
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
