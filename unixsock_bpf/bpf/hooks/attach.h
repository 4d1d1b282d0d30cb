/* One body for each hook, however it is attached: probe/hook_programs.py writes the programs around the bodies,
 * and the tail calls, after this file's end.  fentry and fexit programs get the function's arguments (and then
 * its result) as ctx[0], ctx[1], ...; kprobes get registers, and a kretprobe has lost the arguments, so an entry
 * probe keeps them.
 *
 * What needs much code is compiled once for all hooks: `message` and `event` in records.bpf.c, `news` in hooks.bpf.c.
 * A hook only notes what it saw (struct call in state/state.h) and goes on by a tail call. */
#ifndef UNIXSOCK_HOOKS_H
#define UNIXSOCK_HOOKS_H

/* Of the hooked function.  Beyond those that it has there is anything. */
struct arguments {
	u64 first, second, third, fourth;
};
#define ARGUMENTS(ctx) { REG_ARG1(ctx), REG_ARG2(ctx), REG_ARG3(ctx), REG_ARG4(ctx) }

/* bcc names programs by module from 0.28 on. */
#ifdef MODULE_KFUNC_PROBE
#define FENTRY_NAME(function) kfunc__vmlinux__##function
#define FEXIT_NAME(function) kretfunc__vmlinux__##function
#else
#define FENTRY_NAME(function) kfunc__##function
#define FEXIT_NAME(function) kretfunc__##function
#endif

/* A call between its entry and its return.  Of nested calls of a function in one thread (a page fault while it
 * copies may send through a socket again) each has its place: that of its return address on the stack, or
 * what the session's cookie says.  A kretprobe without a free instance leaves its entry behind: such lines are
 * the oldest, and the first to go. */
struct entry {
	u64 thread;
	u64 place;
	u64 function;
};
BPF_TABLE("lru_hash", struct entry, struct arguments, entered, 16384);

static __always_inline void keep_arguments(u64 function, u64 place, struct arguments *args)
{
	struct entry entry = { bpf_get_current_pid_tgid(), place, function };
	struct totals *t = get_totals();
	if (entered.update(&entry, args) && t)
		__sync_fetch_and_add(&t->skipped_returns, 1);
}

static __always_inline bool take_arguments(u64 function, u64 place, struct arguments *args)
{
	struct entry entry = { bpf_get_current_pid_tgid(), place, function };
	struct arguments *kept = entered.lookup(&entry);
	if (!kept)
		return false;
	*args = *kept;
	entered.delete(&entry);
	return true;
}

/* Of kprobe.session programs, which run at the entry and at the return: the kernel's functions
 * bpf_session_cookie, whose eight bytes the return finds again, and bpf_session_is_return.  The loader makes
 * calls of them of these numbers. */
#define CALL_session_cookie 0x510c07
#define CALL_session_is_return 0x510c08
static u64 *(*session_cookie)(void *ctx) = (void *)CALL_session_cookie;
static bool (*session_is_return)(void *ctx) = (void *)CALL_session_is_return;
#endif
