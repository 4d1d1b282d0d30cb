/* One body for both ways of attaching.  fentry and fexit programs get the function's arguments (and
 * then its result) as ctx[0], ctx[1], ...; kprobes get registers, and a kretprobe has lost the
 * arguments, so an entry probe keeps them.  The loader attaches each program by its name.
 *
 * A program that depends on the filter begins with a gate: a PROG_ARRAY that is empty until a later
 * filter's program for the same hook is put there, which then runs in its place.  So each message
 * goes by one filter or the other, never by both or by none.  For each hook the loader says in
 * ASKS_<function> whether this program is the attached one (1), which asks its gate, or goes into
 * the gate of one that is (0). */
#ifndef UNIXSOCK_HOOKS_H
#define UNIXSOCK_HOOKS_H

#ifdef ATTACH_FENTRY

/* bcc names programs by module from 0.28 on. */
#ifdef MODULE_KFUNC_PROBE
#define FENTRY_NAME(function) kfunc__vmlinux__##function
#define FEXIT_NAME(function) kretfunc__vmlinux__##function
#else
#define FENTRY_NAME(function) kfunc__##function
#define FEXIT_NAME(function) kretfunc__##function
#endif

#define AT_ENTRY(function, before, body)                        \
	int FENTRY_NAME(function)(u64 *ctx)                     \
	{                                                       \
		before;                                         \
		body(ctx[0], ctx[1]);                           \
		return 0;                                       \
	}

/* `count`: how many arguments the function has. */
#define AT_RETURN(function, before, body, count)                \
	int FEXIT_NAME(function)(u64 *ctx)                      \
	{                                                       \
		before;                                         \
		body(ctx[0], ctx[1], (int)ctx[count]);          \
		return 0;                                       \
	}

#else

struct arguments {
	u64 first, second, third;
};
/* A hooked function may call another one, so the functions are told apart: by length and last letter. */
#define ENTRY(function) (sizeof(#function) << 8 | #function[sizeof(#function) - 2])
struct entry {
	u64 thread;
	u64 function;
};
BPF_TABLE(KEPT("hash"), struct entry, struct arguments, entered, 16384);
EXPORT(entered);

static __always_inline void keep_arguments(struct pt_regs *ctx, u64 function)
{
	struct entry entry = { bpf_get_current_pid_tgid(), function };
	struct arguments args = { REG_ARG1(ctx), REG_ARG2(ctx), REG_ARG3(ctx) };
	entered.update(&entry, &args);
}

static __always_inline bool take_arguments(struct arguments *args, u64 function)
{
	struct entry entry = { bpf_get_current_pid_tgid(), function };
	struct arguments *kept = entered.lookup(&entry);
	if (!kept)
		return false;
	*args = *kept;
	entered.delete(&entry);
	return true;
}

#define AT_ENTRY(function, before, body)                        \
	int kprobe__##function(struct pt_regs *ctx)             \
	{                                                       \
		before;                                         \
		body(REG_ARG1(ctx), REG_ARG2(ctx));             \
		return 0;                                       \
	}

#define AT_RETURN(function, before, body, count)                                \
	int kprobe__##function(struct pt_regs *ctx)                             \
	{                                                                       \
		keep_arguments(ctx, ENTRY(function));                          \
		return 0;                                                       \
	}                                                                       \
	int kretprobe__##function(struct pt_regs *ctx)                          \
	{                                                                       \
		before;                                                         \
		struct arguments args;                                          \
		if (take_arguments(&args, ENTRY(function)))                    \
			body(args.first, args.second, (int)REG_RESULT(ctx));    \
		return 0;                                                       \
	}

#endif

/* A program at the return of a function of three arguments that gets the third and the result, and runs
 * again, without them, as long as the body says so: the loader puts it into its own array. */
#if GENERATION == 1
BPF_TABLE("prog", u32, u32, again, 1);
#ifdef ATTACH_FENTRY
#define AGAIN_ON_RETURN(function, body)                                         \
	int FEXIT_NAME(function)(u64 *ctx)                                      \
	{                                                                       \
		if (body(ctx[2], (int)ctx[3]))                                  \
			run_again(ctx);                                         \
		return 0;                                                       \
	}
#else
#define AGAIN_ON_RETURN(function, body)                                         \
	int kprobe__##function(struct pt_regs *ctx)                             \
	{                                                                       \
		keep_arguments(ctx, ENTRY(function));                          \
		return 0;                                                       \
	}                                                                       \
	int kretprobe__##function(struct pt_regs *ctx)                          \
	{                                                                       \
		struct arguments args = {};                                     \
		take_arguments(&args, ENTRY(function));                        \
		if (body(args.third, (int)REG_RESULT(ctx)))                     \
			run_again(ctx);                                         \
		return 0;                                                       \
	}
#endif

static __always_inline void run_again(void *ctx)
{
	again.call(ctx, 0);
}
#endif

/* Programs that depend on the filter... */
#define ON_ENTRY(function, body) AT_ENTRY(function, pass_##function(ctx), body)
#define ON_RETURN(function, body, count) AT_RETURN(function, pass_##function(ctx), body, count)

/* ...and those that don't, which the first generation leaves in place for all. */
#if GENERATION == 1
#define ALWAYS_ON_ENTRY(function, body) AT_ENTRY(function, , body)
#define ALWAYS_ON_RETURN(function, body, count) AT_RETURN(function, , body, count)
#else
#define ALWAYS_ON_ENTRY(function, body)
#define ALWAYS_ON_RETURN(function, body, count)
#endif

#define GATE(function)                                                  \
	BPF_TABLE(KEPT("prog"), u32, u32, gate_##function, 1);          \
	EXPORT(gate_##function)

/* bcc does not translate calls inside of macros. */
GATE(skb_queue_tail);
static __always_inline void pass_skb_queue_tail(void *ctx)
{
	if (ASKS_skb_queue_tail)
		gate_skb_queue_tail.call(ctx, 0);
}

GATE(skb_copy_datagram_from_iter);
static __always_inline void pass_skb_copy_datagram_from_iter(void *ctx)
{
	if (ASKS_skb_copy_datagram_from_iter)
		gate_skb_copy_datagram_from_iter.call(ctx, 0);
}

GATE(skb_splice_from_iter);
static __always_inline void pass_skb_splice_from_iter(void *ctx)
{
	if (ASKS_skb_splice_from_iter)
		gate_skb_splice_from_iter.call(ctx, 0);
}

GATE(unix_release_sock);
static __always_inline void pass_unix_release_sock(void *ctx)
{
	if (ASKS_unix_release_sock)
		gate_unix_release_sock.call(ctx, 0);
}

GATE(unix_stream_connect);
static __always_inline void pass_unix_stream_connect(void *ctx)
{
	if (ASKS_unix_stream_connect)
		gate_unix_stream_connect.call(ctx, 0);
}

GATE(unix_accept);
static __always_inline void pass_unix_accept(void *ctx)
{
	if (ASKS_unix_accept)
		gate_unix_accept.call(ctx, 0);
}

GATE(unix_socketpair);
static __always_inline void pass_unix_socketpair(void *ctx)
{
	if (ASKS_unix_socketpair)
		gate_unix_socketpair.call(ctx, 0);
}

GATE(unix_shutdown);
static __always_inline void pass_unix_shutdown(void *ctx)
{
	if (ASKS_unix_shutdown)
		gate_unix_shutdown.call(ctx, 0);
}

GATE(unix_stream_sendmsg);
static __always_inline void pass_unix_stream_sendmsg(void *ctx)
{
	if (ASKS_unix_stream_sendmsg)
		gate_unix_stream_sendmsg.call(ctx, 0);
}

GATE(unix_dgram_sendmsg);
static __always_inline void pass_unix_dgram_sendmsg(void *ctx)
{
	if (ASKS_unix_dgram_sendmsg)
		gate_unix_dgram_sendmsg.call(ctx, 0);
}

#endif
