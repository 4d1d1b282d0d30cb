/* What travels with a message: credentials and passed descriptors, as they hang on the sk_buff. */
#ifndef UNIXSOCK_ANCILLARY_H
#define UNIXSOCK_ANCILLARY_H

/* What a receiver asked for with SO_PASSCRED, SO_PASSPIDFD and SO_PASSSEC. */
#ifdef SOCK_SCM_RECV_FLAGS
/* Linux commit 0e81cfd971dc ("af_unix: Move SOCK_PASS{CRED,PIDFD,SEC} to struct sock."), v6.16 */
#define ASKS_CREDS (1 << 0)
#define ASKS_SECURITY (1 << 1)
#define ASKS_PIDFD (1 << 2)
#else
/* SOCK_PASSCRED, SOCK_PASSSEC and SOCK_PASSPIDFD in linux/net.h */
#define ASKS_CREDS (1 << 3)
#define ASKS_SECURITY (1 << 4)
#define ASKS_PIDFD (1 << 7)
#endif

/* What was not accepted yet may ask for credentials afterwards, and then gets those that are there. */
static __always_inline u32 asked_by(u64 sk)
{
	u64 socket = LOAD(u64, sk, SOCK_SOCKET);
#ifdef SOCK_SCM_RECV_FLAGS
	u32 asks = LOAD(u8, sk, SOCK_SCM_RECV_FLAGS);
#else
	u32 asks = socket ? LOAD(u64, socket, SOCKET_FLAGS) : 0;
#endif
	return socket ? asks : asks | ASKS_CREDS;
}

static __always_inline void take_ancillary(volatile struct ancillary *a, const u8 *skb, u64 receiver)
{
	a->creds = a->pidfd = a->security = a->fds = 0;
	const u8 *cb = skb + SKB_CB;
	u64 pid = *(u64 *)(cb + PARMS_PID);
	u32 security = 0;
#ifdef PARMS_SECID
	security = *(u32 *)(cb + PARMS_SECID);
#endif
	u32 asks = pid || security ? asked_by(receiver) : 0;
	if (asks & ASKS_SECURITY)
		a->security = security;
	if (pid && asks & (ASKS_CREDS | ASKS_PIDFD)) {
		a->creds = (asks & ASKS_CREDS) != 0;
		a->pidfd = (asks & ASKS_PIDFD) != 0;
		a->pid = number_of(pid);
		a->uid = *(u32 *)(cb + PARMS_UID);
		a->gid = *(u32 *)(cb + PARMS_GID);
	}
	u64 files = *(u64 *)(cb + PARMS_FP);
	a->files = files;
	if (files)
		a->fds = LOAD(u16, files, FP_COUNT);
}

/* An element of one number. */
static __always_inline void put_number(u8 *data, volatile struct message *m, u32 type, u32 number)
{
	u64 at = m->at;
	u8 *to = head_at(data, at);
	*(u32 *)to = type | 4 << 16;
	*(u32 *)(to + 4) = number;
	m->at = at + 8;
}

static __always_inline void put_ancillary(u8 *data, volatile struct message *m, volatile struct ancillary *a)
{
	if (a->creds) {
		u64 at = m->at;
		u8 *to = head_at(data, at);
		*(u32 *)to = ELEMENT_CREDS | 12 << 16;
		*(u32 *)(to + 4) = a->pid;
		*(u32 *)(to + 8) = a->uid;
		*(u32 *)(to + 12) = a->gid;
		m->at = at + 16;
	}
	if (a->pidfd)
		put_number(data, m, ELEMENT_CREDS_PIDFD, a->pid);
	if (a->security)
		put_number(data, m, ELEMENT_CREDS_SECURITY, a->security);
	u64 at = m->at;
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
