/* What travels with a message: credentials and passed descriptors, as they hang on the sk_buff. */
#ifndef UNIXSOCK_ANCILLARY_H
#define UNIXSOCK_ANCILLARY_H

static __always_inline void take_ancillary(volatile struct ancillary *a, const u8 *skb)
{
	a->creds = a->fds = 0;
	const u8 *cb = skb + SKB_CB;
	u64 pid = *(u64 *)(cb + PARMS_PID);
	if (pid) {
		a->creds = 1;
		a->pid = LOAD(u32, pid, PID_NUMBERS_NR);
		a->uid = *(u32 *)(cb + PARMS_UID);
		a->gid = *(u32 *)(cb + PARMS_GID);
	}
	u64 files = *(u64 *)(cb + PARMS_FP);
	a->files = files;
	if (files)
		a->fds = LOAD(u16, files, FP_COUNT);
}

static __always_inline void put_ancillary(u8 *data, volatile struct message *m, volatile struct ancillary *a)
{
	u64 at = m->at;
	if (a->creds) {
		u8 *to = head_at(data, at);
		*(u32 *)to = ELEMENT_CREDS | 12 << 16;
		*(u32 *)(to + 4) = a->pid;
		*(u32 *)(to + 8) = a->uid;
		*(u32 *)(to + 12) = a->gid;
		at += 16;
		m->at = at;
	}
	if (a->fds) {
		u8 *to = head_at(data, at);
		*(u32 *)to = ELEMENT_FDS | 4 << 16;
		*(u32 *)(to + 4) = a->fds;
		at += 8;
		struct passed *p = passed_by(a->files, a->fds);
		if (p) {
			u64 size = p->at;
			BOUND(size, 0x1fff);
			bpf_probe_read_kernel(head_at(data, at), size, p->elements);
			at += size;
		}
		m->at = at;
	}
}

#endif
