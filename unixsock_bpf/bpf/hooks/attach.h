/* One body for both ways of attaching.  fentry and fexit programs get the function's arguments (and
 * then its result) as ctx[0], ctx[1], ...; kprobes get registers, and a kretprobe has lost the
 * arguments, so an entry probe keeps them.  The loader attaches each program by its name.
 *
 * What needs much code is compiled once for all hooks: `message` and `event` in records.bpf.c, `news` in hooks.bpf.c.
 * A hook only notes what it saw (struct call in state/state.h) and goes on through its gate, a PROG_ARRAY of
 * its own, since programs on functions with other arguments may not share one (Linux commit
 * 28ead3eaabc1 ("bpf: Prevent tail call between progs attached to different hooks"), v6.12).  The
 * loader puts the right one of them there. */
#ifndef UNIXSOCK_HOOKS_H
#define UNIXSOCK_HOOKS_H

/* Of the hooked function.  Beyond those that it has there is anything. */
struct arguments {
	u64 first, second, third, fourth;
};

#ifdef ATTACH_FENTRY

/* bcc names programs by module from 0.28 on. */
#ifdef MODULE_KFUNC_PROBE
#define FENTRY_NAME(function) kfunc__vmlinux__##function
#define FEXIT_NAME(function) kretfunc__vmlinux__##function
#else
#define FENTRY_NAME(function) kfunc__##function
#define FEXIT_NAME(function) kretfunc__##function
#endif

#define AT_ENTRY(function, body)                                        \
	int FENTRY_NAME(function)(u64 *ctx)                             \
	{                                                               \
		body(ctx, ctx[0], ctx[1]);                              \
		return 0;                                               \
	}

/* `count`: how many arguments the function has.  The body may only look at those. */
#define AT_RETURN(function, body, count)                                        \
	int FEXIT_NAME(function)(u64 *ctx)                                      \
	{                                                                       \
		struct arguments args = { ctx[0], ctx[1], ctx[2], ctx[3] };     \
		body(ctx, &args, (int)ctx[count]);                              \
		return 0;                                                       \
	}

#define OWN_SLOT(function) SLOT_##function

#else
#define AT_ENTRY KPROBE_AT_ENTRY
#define AT_RETURN KPROBE_AT_RETURN
#define OWN_SLOT(function) SLOT_KPROBE
#endif

/* Functions that are rarely called have kprobes in any case: the kernel needs an eighth of a second to let go
 * of an fentry program, one after the other, but lets go of kprobes side by side (probe/hook_thread.py).  They may
 * not be functions in which many threads sleep at once: there the kernel skips a kretprobe. */
#define AT_RARE_ENTRY KPROBE_AT_ENTRY
#define AT_RARE_RETURN KPROBE_AT_RETURN

/* Where the kernel may take the processor from a thread while it runs a program, and gives it to one that
 * comes to the same hook, it skips the second run of an fentry program.  It never does that while it runs
 * a kprobe's.  This is for functions in which threads don't sleep, either. */
#if defined(ATTACH_FENTRY) && !defined(PREEMPTIBLE)
#define AT_EVERY_RETURN AT_RETURN
#define EVERY_SLOT OWN_SLOT
#else
#define AT_EVERY_RETURN KPROBE_AT_RETURN
#define EVERY_SLOT(function) SLOT_KPROBE
#endif

/* A hooked function may call another one, so the functions are told apart: by length and last letter. */
#define ENTRY(function) (sizeof(#function) << 8 | #function[sizeof(#function) - 2])
struct entry {
	u64 thread;
	u64 function;
};
BPF_TABLE("hash", struct entry, struct arguments, entered, 16384);

static __always_inline void keep_arguments(u64 function, struct pt_regs *ctx)
{
	struct entry entry = { bpf_get_current_pid_tgid(), function };
	struct arguments args = { REG_ARG1(ctx), REG_ARG2(ctx), REG_ARG3(ctx), REG_ARG4(ctx) };
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

#define KPROBE_AT_ENTRY(function, body)                                 \
	int kprobe__##function(struct pt_regs *ctx)                     \
	{                                                               \
		body(ctx, REG_ARG1(ctx), REG_ARG2(ctx));                \
		return 0;                                               \
	}

/* A kretprobe's other half. */
#define KEEP_AT_ENTRY(function)                                         \
	int kprobe__##function(struct pt_regs *ctx)                     \
	{                                                               \
		keep_arguments(ENTRY(function), ctx);                   \
		return 0;                                               \
	}

#define KPROBE_AT_RETURN(function, body, count)                         \
	KEEP_AT_ENTRY(function)                                         \
	int kretprobe__##function(struct pt_regs *ctx)                  \
	{                                                               \
		struct arguments args;                                  \
		if (take_arguments(&args, ENTRY(function)))             \
			body(ctx, &args, (int)REG_RESULT(ctx));         \
		return 0;                                               \
	}

/* A program that runs again as long as the body says so: the loader puts it into its own array.  At the entry
 * of a function it gets the first argument; at the return, in its first run, all arguments and the result. */
BPF_TABLE("prog", u32, u32, again, 1);
static __always_inline void run_again(void *ctx)
{
	again.call(ctx, 0);
}

#define AGAIN_ON_RARE_ENTRY(function, body)                                     \
	int kprobe__##function(struct pt_regs *ctx)                             \
	{                                                                       \
		if (body(REG_ARG1(ctx)))                                        \
			run_again(ctx);                                         \
		return 0;                                                       \
	}

#define AGAIN_ON_RARE_RETURN(function, body)                                    \
	KEEP_AT_ENTRY(function)                                                 \
	int kretprobe__##function(struct pt_regs *ctx)                          \
	{                                                                       \
		struct arguments args = {};                                     \
		take_arguments(&args, ENTRY(function));                         \
		if (body(&args, (int)REG_RESULT(ctx)))                          \
			run_again(ctx);                                         \
		return 0;                                                       \
	}

/* Hooks that need no more than their body... */
#define SIMPLE_ENTRY(function, body, at)                                                                \
	static __always_inline void at_##function(void *ctx, u64 first, u64 second)                     \
	{                                                                                               \
		body(first, second);                                                                    \
	}                                                                                               \
	at(function, at_##function)
#define ON_RARE_ENTRY(function, body) SIMPLE_ENTRY(function, body, AT_RARE_ENTRY)

/* ...and those whose body notes something in the working memory of its slot, for the program behind the gate. */
#define TELL_ENTRY(function, body, at, slot)                                                            \
	static __always_inline void at_##function(void *ctx, u64 first, u64 second)                     \
	{                                                                                               \
		if (body(slot, first, second))                                                          \
			pass_##function(ctx);                                                           \
	}                                                                                               \
	at(function, at_##function)
#define TELL_RETURN(function, body, count, at, slot)                                                    \
	static __always_inline void at_##function(void *ctx, const struct arguments *args, int result)  \
	{                                                                                               \
		if (body(slot, args, result))                                                           \
			pass_##function(ctx);                                                           \
	}                                                                                               \
	at(function, at_##function, count)
#define TELL_ON_ENTRY(function, body) TELL_ENTRY(function, body, AT_ENTRY, OWN_SLOT(function))
#define TELL_ON_RETURN(function, body, count) TELL_RETURN(function, body, count, AT_RETURN, OWN_SLOT(function))
#define TELL_ON_EVERY_RETURN(function, body, count) \
	TELL_RETURN(function, body, count, AT_EVERY_RETURN, EVERY_SLOT(function))

#define TELL_ON_RARE_ENTRY(function, body) TELL_ENTRY(function, body, AT_RARE_ENTRY, SLOT_KPROBE)
#define TELL_ON_RARE_RETURN(function, body, count) TELL_RETURN(function, body, count, AT_RARE_RETURN, SLOT_KPROBE)

/* By the program behind the gate: the loader looks at these names. */
#define MESSAGE_ON_ENTRY TELL_ON_ENTRY
#define MESSAGE_ON_EVERY_RETURN TELL_ON_EVERY_RETURN
#define MESSAGE_ON_RARE_ENTRY TELL_ON_RARE_ENTRY
#define MESSAGE_ON_RARE_RETURN TELL_ON_RARE_RETURN
#define EVENT_ON_RETURN TELL_ON_RETURN
#define EVENT_ON_RARE_ENTRY TELL_ON_RARE_ENTRY
#define EVENT_ON_RARE_RETURN TELL_ON_RARE_RETURN
#define NEWS_ON_ENTRY TELL_ON_ENTRY
#define NEWS_ON_RARE_ENTRY TELL_ON_RARE_ENTRY
#define NEWS_ON_RARE_RETURN TELL_ON_RARE_RETURN

#include "hooks/tail_calls.h"
#endif
