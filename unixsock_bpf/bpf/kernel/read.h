/* Reading kernel memory at offsets that probe/offsets.py found in BTF and passes as -D macros. */
#ifndef UNIXSOCK_READ_H
#define UNIXSOCK_READ_H

#define AF_UNIX 1

/* The member of type `type` at `offset` of the kernel structure at `address`; 0 if it can't be read. */
#define LOAD(type, address, offset) ({                                                  \
	type value_ = 0;                                                                \
	bpf_probe_read_kernel(&value_, sizeof(value_), (void *)((address) + (offset))); \
	value_;                                                                         \
})

/* The same for a structure that the kernel gave the hook of `slot`, a constant, as an argument, or that such a
 * structure points to: fentry and fexit programs, which have slots of their own, may read it without a helper. */
#define PEEK(slot, type, address, offset) \
	((slot) != KPROBE_SLOT ? *(type *)((address) + (offset)) : LOAD(type, address, offset))

/* Masks a length or an offset right where it is used, so that the verifier sees its bound: the
 * optimiser drops a plain & that it can prove needless from checks the verifier has forgotten. */
#define BOUND(value, mask) asm volatile("%0 &= " #mask : "+r"(value))

static __always_inline u64 peer_of(u64 sk)
{
	return LOAD(u64, sk, UNIX_SOCK_PEER);
}

/* A socket has no inode from connect until it is accepted. */
static __always_inline u64 inode_of(u64 sk)
{
	u64 socket = LOAD(u64, sk, SOCK_SOCKET);
	return socket ? LOAD(u64, socket, SOCKET_ALLOC_INODE + INODE_INO) : 0;
}

static __always_inline u32 netns_of(u64 sk)
{
	u64 net = LOAD(u64, sk, SOCK_NET);
	return net ? LOAD(u32, net, NET_INUM) : 0;
}

#endif
