/* The state of each socket: its name, and the process that uses it. */
#ifndef UNIXSOCK_IDENTITY_H
#define UNIXSOCK_IDENTITY_H

#include "state/subprograms.h"

#define TGID_LINKS 1 /* PIDTYPE_TGID */
#define SOCK_DEAD_BIT 0 /* of sk_flags */

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

/* The comm of a process, which is its first thread's. */
static __always_inline u32 comm_of(u64 *to, u64 task)
{
	u64 leader = LOAD(u64, task, TASK_GROUP_LEADER);
	int len = bpf_probe_read_kernel_str(to, 16, (void *)(leader + TASK_COMM));
	return len > 0 && len <= 16 ? len - 1 : 0;
}

/* The same into `user`, which lies in a map: the stack is short of room. */
static __always_inline void take_comm(struct user *user, u64 task)
{
	((u64 *)user->comm)[0] = ((u64 *)user->comm)[1] = 0;
	user->comm_len = comm_of((u64 *)user->comm, task);
}

/* The number of a struct pid in the pid namespace `inum`; 0: not visible there.  Namespaces are at most 32 deep
 * (MAX_PID_NS_LEVEL). */
static __always_inline u32 find_number(u64 pid, u32 inum)
{
	u32 level = LOAD(u32, pid, PID_LEVEL);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i <= 32;) {
		if (i > level)
			break;
		u64 at = pid + PID_NUMBERS + i * UPID_SIZE;
		if (LOAD(u32, LOAD(u64, at, UPID_NS), PID_NAMESPACE_INUM) == inum)
			return LOAD(u32, at, UPID_NR);
		/* The compiler would make one condition, which the verifier doesn't know, of the loop's two. */
		asm volatile("%0 += 1" : "+r"(i));
	}
	return 0;
}

/* The number of a struct pid where the reader sees processes. */
static __always_inline u32 number_of(u64 pid)
{
	struct settings *set = get_settings();
	return set && set->pid_namespace ? call_pid_number(pid) : LOAD(u32, pid, PID_NUMBERS_NR);
}

/* The pid of a process in the reader's pid namespace, then the tid of the current thread there. */
static __always_inline u32 pid_of(u64 task)
{
	return number_of(LOAD(u64, LOAD(u64, task, TASK_GROUP_LEADER), TASK_THREAD_PID));
}

static __always_inline u32 current_tid(const struct user *user, const struct settings *set)
{
	u64 thread = bpf_get_current_pid_tgid();
	if (user->tgid != thread >> 32)
		return 0; /* it is another process that closes the socket */
	/* The helper tells the initial namespace's number. */
	return set->pid_namespace ? call_pid_number(LOAD(u64, bpf_get_current_task(), TASK_THREAD_PID)) : thread;
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
static __always_inline void take_cgroup(struct workspace *w, u64 task, u64 id)
{
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

#define USER_WORDS (sizeof(struct user) / 8)

static __always_inline u32 tag_of(const struct user *user)
{
	const u64 *words = (const u64 *)user;
	u64 hash = user->tgid;
#pragma clang loop unroll(full)
	for (u32 i = 1; i < USER_WORDS; i++) {
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull;
		hash ^= hash >> 32;
	}
	return hash | 1;
}

/* Copies a user, who becomes unknown where another CPU writes it meanwhile. */
static __always_inline void copy_user(struct user *to, const struct user *from)
{
#pragma clang loop unroll(full)
	for (u32 i = 0; i < USER_WORDS; i++)
		((u64 *)to)[i] = ((volatile const u64 *)from)[i];
	if (to->tag && to->tag != tag_of(to)) {
		to->tag = 0;
		to->pid = 0;
		to->owner = OWNER_UNKNOWN;
		to->comm_len = 0;
		to->cgroup = 0;
	}
}

/* Puts a user where other CPUs may copy it. */
static __always_inline void store_user(struct user *to, const struct user *from)
{
#pragma clang loop unroll(full)
	for (u32 i = 0; i < USER_WORDS; i++)
		((volatile u64 *)to)[i] = ((const u64 *)from)[i];
}

/* Whether `user` is the current process as it is now.  Threads count as their process; an io_uring worker as its
 * owner.  Exec, and a process itself, may change the comm. */
static __always_inline bool is_current(const struct user *user)
{
	u64 thread = bpf_get_current_pid_tgid();
	u64 ids = bpf_get_current_uid_gid();
	u64 comm[2] = {};
	if (!user->tag || user->owner != OWNER_SEEN || user->tgid != thread >> 32 || user->uid != (u32)ids ||
	    user->gid != ids >> 32 || user->cgroup != bpf_get_current_cgroup_id())
		return false;
	if (user->tgid == (u32)thread)
		bpf_get_current_comm(comm, sizeof(comm));
	else
		comm_of(comm, bpf_get_current_task());
	return comm[0] == *(u64 *)&user->comm[0] && comm[1] == *(u64 *)&user->comm[8];
}

/* The current process uses the socket in the way `known` stands for; `now` becomes a copy. */
static __always_inline void note_user(struct user *known, struct user *now, struct workspace *w)
{
	copy_user(now, known);
	if (is_current(now))
		return;
	u64 task = bpf_get_current_task();
	u64 ids = bpf_get_current_uid_gid();
	u64 cgroup = bpf_get_current_cgroup_id();
	now->tgid = bpf_get_current_pid_tgid() >> 32;
	now->pid = pid_of(task);
	now->parent = pid_of(LOAD(u64, task, TASK_REAL_PARENT));
	now->uid = ids;
	now->gid = ids >> 32;
	now->cgroup = cgroup;
	take_comm(now, task);
	now->owner = OWNER_SEEN;
	now->tag = tag_of(now);
	take_cgroup(w, task, cgroup);
	store_user(known, now);
}

/* The process that uses `ep` in this way; where none was seen doing that, or its reader has passed it on, the one that
 * uses it in the other way. */
static __always_inline void find_user(struct user *found, struct endpoint *ep, u32 use)
{
	struct user *wanted = &ep->users[use], *other = &ep->users[1 - use];
	u32 least = other->owner + (use == READER && ep->passed_on && other->tag);
	copy_user(found, wanted->owner >= least ? wanted : other);
}

/* No process was seen using `ep` yet: take the one at the other end as the kernel noted it for SO_PEERCRED, which
 * connected, listened or made the pair. */
static __always_inline void guess_user(struct endpoint *ep, u64 peer)
{
	struct user *user = &ep->users[READER];
	u64 pid = LOAD(u64, peer, SOCK_PEER_PID);
	if (!pid)
		return;
	u64 cred = LOAD(u64, peer, SOCK_PEER_CRED);
	user->pid = number_of(pid);
	user->uid = LOAD(u32, cred, CRED_UID);
	user->gid = LOAD(u32, cred, CRED_GID);
	u64 link = LOAD(u64, pid, PID_TASKS + TGID_LINKS * 8);
	if (link) {
		u64 task = link - TASK_PID_LINKS - TGID_LINKS * 16;
		take_comm(user, task);
		user->cgroup = LOAD(u64, LOAD(u64, LOAD(u64, LOAD(u64, task, TASK_CGROUPS), CSS_SET_CGROUP), CGROUP_NODE),
				    NODE_ID);
	}
	user->owner = OWNER_GUESSED;
	user->tag = tag_of(user);
}

static __always_inline bool has_user(struct endpoint *ep)
{
	return ep->users[WRITER].owner || ep->users[READER].owner;
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
	if (!holder || has_user(ep))
		return;
	struct user *user = &ep->users[READER];
	user->pid = holder->pid;
	user->uid = holder->uid;
	user->gid = holder->gid;
	user->cgroup = holder->cgroup;
	user->comm_len = holder->comm_len;
	copy_comm(user->comm, holder->comm);
	user->owner = OWNER_GUESSED;
	user->tag = tag_of(user);
}

/* Whether the sock that `ep` was made for was freed, without the probe having seen that, and `sk` is another one at
 * the same address.  Only asked of what was closed. */
static __always_inline bool is_reused(struct endpoint *ep, u64 sk)
{
	return !(LOAD(u64, sk, SOCK_FLAGS) & 1 << SOCK_DEAD_BIT) && inode_of(sk) != ep->inode;
}

/* The state of `sk`, made if need be; NULL when there are too many sockets, or if it is no Unix socket: a sockmap
 * may queue what was sent to one elsewhere. */
static __always_inline struct endpoint *endpoint_at(u64 sk, struct workspace *w, u32 *untracked)
{
	struct endpoint *ep = endpoints.lookup(&sk);
	struct settings *set = get_settings();
	if (ep && ep->closed && is_reused(ep, sk)) {
		endpoints.delete(&sk);
		ep = NULL;
	}
	if (ep)
		return ep;
	if (!set || LOAD(u16, sk, SOCK_FAMILY) != AF_UNIX)
		return NULL;
	w->made++;
	w->endpoint.id = set->first_id ^ (w->made << 16 | (w->place & 0xffff));
	w->endpoint.netns = netns_of(sk);
	w->endpoint.type = LOAD(u16, sk, SOCK_TYPE);
	endpoints.insert(&sk, &w->endpoint); /* fails where another CPU was faster */
	ep = endpoints.lookup(&sk);
	*untracked = !ep;
	return ep;
}

/* The same with its inode and name, as soon as it has them.  Not to be called before the reader has
 * set everything up: a holder is looked for once. */
static __always_inline struct endpoint *endpoint_of(u64 sk, struct workspace *w, u32 *untracked)
{
	struct endpoint *ep = endpoint_at(sk, w, untracked);
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

/* What the filter of this generation says of `ep` in this use. */
static __always_inline struct verdict *verdict_of(struct endpoint *ep, u32 generation, u32 use)
{
	u64 at = generation << 1 | use;
	BOUND(at, 3);
	return &ep->verdicts[at];
}

/* Whether it was decided that the filter lets nothing through from `ep` to `other`; 0: to whom it sent last. */
static __always_inline bool left_out(struct endpoint *ep, u64 other)
{
	struct settings *set = get_settings();
	struct totals *t = get_totals();
	if (!set || !t || !set->running)
		return false;
	u32 generation = set->generation;
	struct verdict *v = verdict_of(ep, generation, WRITER);
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
