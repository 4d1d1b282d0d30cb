/* The way from each hook to the program behind it.  bcc translates no map's use inside of a macro, so
 * that these are written out. */
#ifndef UNIXSOCK_GATES_H
#define UNIXSOCK_GATES_H

#define GATE(function) BPF_TABLE("prog", u32, u32, gate_##function, 1)

GATE(skb_queue_tail);
static __always_inline void pass_skb_queue_tail(void *ctx)
{
	gate_skb_queue_tail.call(ctx, 0);
}

GATE(skb_append_pagefrags);
static __always_inline void pass_skb_append_pagefrags(void *ctx)
{
	gate_skb_append_pagefrags.call(ctx, 0);
}

GATE(skb_copy_datagram_from_iter);
static __always_inline void pass_skb_copy_datagram_from_iter(void *ctx)
{
	gate_skb_copy_datagram_from_iter.call(ctx, 0);
}

GATE(skb_splice_from_iter);
static __always_inline void pass_skb_splice_from_iter(void *ctx)
{
	gate_skb_splice_from_iter.call(ctx, 0);
}

GATE(sk_send_sigurg);
static __always_inline void pass_sk_send_sigurg(void *ctx)
{
	gate_sk_send_sigurg.call(ctx, 0);
}

GATE(unix_stream_recvmsg);
static __always_inline void pass_unix_stream_recvmsg(void *ctx)
{
	gate_unix_stream_recvmsg.call(ctx, 0);
}

GATE(__unix_dgram_recvmsg);
static __always_inline void pass___unix_dgram_recvmsg(void *ctx)
{
	gate___unix_dgram_recvmsg.call(ctx, 0);
}

GATE(unix_dgram_recvmsg);
static __always_inline void pass_unix_dgram_recvmsg(void *ctx)
{
	gate_unix_dgram_recvmsg.call(ctx, 0);
}

GATE(unix_seqpacket_recvmsg);
static __always_inline void pass_unix_seqpacket_recvmsg(void *ctx)
{
	gate_unix_seqpacket_recvmsg.call(ctx, 0);
}

GATE(unix_stream_splice_read);
static __always_inline void pass_unix_stream_splice_read(void *ctx)
{
	gate_unix_stream_splice_read.call(ctx, 0);
}

GATE(unix_bind);
static __always_inline void pass_unix_bind(void *ctx)
{
	gate_unix_bind.call(ctx, 0);
}

GATE(unix_release_sock);
static __always_inline void pass_unix_release_sock(void *ctx)
{
	gate_unix_release_sock.call(ctx, 0);
}

GATE(security_unix_stream_connect);
static __always_inline void pass_security_unix_stream_connect(void *ctx)
{
	gate_security_unix_stream_connect.call(ctx, 0);
}

GATE(unix_stream_connect);
static __always_inline void pass_unix_stream_connect(void *ctx)
{
	gate_unix_stream_connect.call(ctx, 0);
}

GATE(security_sock_graft);
static __always_inline void pass_security_sock_graft(void *ctx)
{
	gate_security_sock_graft.call(ctx, 0);
}

GATE(unix_accept);
static __always_inline void pass_unix_accept(void *ctx)
{
	gate_unix_accept.call(ctx, 0);
}

GATE(unix_socketpair);
static __always_inline void pass_unix_socketpair(void *ctx)
{
	gate_unix_socketpair.call(ctx, 0);
}

GATE(unix_shutdown);
static __always_inline void pass_unix_shutdown(void *ctx)
{
	gate_unix_shutdown.call(ctx, 0);
}

GATE(unix_stream_sendmsg);
static __always_inline void pass_unix_stream_sendmsg(void *ctx)
{
	gate_unix_stream_sendmsg.call(ctx, 0);
}

GATE(unix_dgram_sendmsg);
static __always_inline void pass_unix_dgram_sendmsg(void *ctx)
{
	gate_unix_dgram_sendmsg.call(ctx, 0);
}

#endif
