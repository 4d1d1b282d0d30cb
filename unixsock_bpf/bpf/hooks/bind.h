/* What is remembered aside for records: where relative names lie, and the paths of cgroups. */
#ifndef UNIXSOCK_PLACES_H
#define UNIXSOCK_PLACES_H

#define COMPONENTS 64

struct naming {
	struct walk walk;
	struct place place;
	struct bound_name name;
};
BPF_TABLE("array", u32, struct naming, namings, 2 * CPUS);

/* One step of take_place, in the element `at` of namings.  0: the path is whole. */
u64 place_step(u64 at)
{
	u32 key = at;
	struct naming *n = namings.lookup(&key);
	if (!n || !n->walk.dentry)
		return 0;
	walk_up(&n->walk);
	return 1;
}

/* Finds out where the relative name of `sk` lies, if it has one. */
static __always_inline void take_place(u64 sk, u32 which)
{
	u64 address = LOAD(u64, sk, UNIX_SOCK_ADDR);
	u64 dentry = LOAD(u64, sk, UNIX_SOCK_DENTRY);
	u8 first = LOAD(u8, address, UNIX_ADDRESS_NAME + 2);
	u32 at = bpf_get_smp_processor_id() * 2 + which;
	struct naming *n = namings.lookup(&at);

	if (!address || !n)
		return;
	places.delete(&address); /* of a socket that had the same memory for its name */
	note_bound(&n->name, sk, address, dentry);
	if (!dentry || !first || first == '/')
		return;
	volatile struct walk *w = &n->walk;
	begin_walk(w, LOAD(u64, sk, UNIX_SOCK_MOUNT), dentry);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < COMPONENTS; i++) {
		if (!call_place_step(at))
			break;
	}
	u64 begin = w->begin, len = PATH_ROOM - begin;
	if (w->dentry || w->too_long || len >= PLACE_SIZE)
		return;
	n->place.len = len;
	BOUND(begin, 0xfff);
	BOUND(len, 0x1ff);
	bpf_probe_read_kernel(n->place.path, len, n->walk.text + begin);
	places.update(&address, &n->place);
}

/* The process that binds is taken for the reader until another one is seen reading. */
static __always_inline bool on_bind(u32 slot, const struct arguments *args, int result)
{
	u64 sk = LOAD(u64, args->first, SOCKET_SK);
	if (result)
		return false;
	take_place(sk, 0); /* in a pause, too */
	return running() && tell_event(slot, sk, 0, NO_EVENT, NEWS_READ | NEWS_BOUND);
}

/* The reader lists the sockets that exist already: this is called for each of them. */
static __always_inline bool on_listing(u64 sk, u64 unused)
{
	struct settings *set = get_settings();
	if (LOAD(u16, sk, SOCK_FAMILY) == AF_UNIX && set && pid_of(bpf_get_current_task()) == set->reader)
		take_place(sk, 1);
	return false;
}

/* A cgroup was made; the kernel tells its path. */
static __always_inline bool on_cgroup_mkdir(u32 slot, u64 cgroup, u64 path)
{
	struct workspace *w = get_workspace(workspace_at(bpf_get_smp_processor_id(), slot));
	u64 id = LOAD(u64, LOAD(u64, cgroup, CGROUP_NODE), NODE_ID);

	if (!w || LOAD(u32, LOAD(u64, cgroup, CGROUP_ROOT), CGROUP_ROOT_HIERARCHY))
		return false; /* of version 1 */
	struct cgroup_line *line = &w->new_cgroup;
	int len = bpf_probe_read_kernel_str(line->path, sizeof(line->path), (void *)path);
	line->len = len > 0 && len < CGROUP_PATH_ROOM ? len - 1 : 0;
	take_levels(line, cgroup, id);
	line->known = 1;
	cgroups.update(&id, line);
	return false;
}

/* It is removed: its id will not be used again. */
static __always_inline bool on_cgroup_release(u32 slot, u64 cgroup, u64 path)
{
	u64 id = LOAD(u64, LOAD(u64, cgroup, CGROUP_NODE), NODE_ID);
	if (!LOAD(u32, LOAD(u64, cgroup, CGROUP_ROOT), CGROUP_ROOT_HIERARCHY))
		cgroups.delete(&id);
	return false;
}
#endif
