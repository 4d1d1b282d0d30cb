/* One body for both ways of attaching.  fentry and fexit programs get the function's arguments (and
 * then its result) as ctx[0], ctx[1], ...; kprobes get registers, and a kretprobe has lost the
 * arguments, so an entry probe keeps them.  bcc attaches each program by its name. */
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

#define ON_ENTRY(function, body)                                \
	int FENTRY_NAME(function)(u64 *ctx)                     \
	{                                                       \
		body(ctx[0], ctx[1]);                           \
		return 0;                                       \
	}

/* `count`: how many arguments the function has. */
#define ON_RETURN(function, body, count)                        \
	int FEXIT_NAME(function)(u64 *ctx)                      \
	{                                                       \
		body(ctx[0], ctx[1], (int)ctx[count]);          \
		return 0;                                       \
	}

#else

struct arguments {
	u64 first, second;
};
BPF_HASH(entered, u64, struct arguments, 16384);

static __always_inline void keep_arguments(struct pt_regs *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct arguments args = { REG_ARG1(ctx), REG_ARG2(ctx) };
	entered.update(&thread, &args);
}

static __always_inline bool take_arguments(struct arguments *args)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct arguments *kept = entered.lookup(&thread);
	if (!kept)
		return false;
	*args = *kept;
	entered.delete(&thread);
	return true;
}

#define ON_ENTRY(function, body)                                \
	int kprobe__##function(struct pt_regs *ctx)             \
	{                                                       \
		body(REG_ARG1(ctx), REG_ARG2(ctx));             \
		return 0;                                       \
	}

#define ON_RETURN(function, body, count)                                        \
	int kprobe__##function(struct pt_regs *ctx)                             \
	{                                                                       \
		keep_arguments(ctx);                                            \
		return 0;                                                       \
	}                                                                       \
	int kretprobe__##function(struct pt_regs *ctx)                          \
	{                                                                       \
		struct arguments args;                                          \
		if (take_arguments(&args))                                      \
			body(args.first, args.second, (int)REG_RESULT(ctx));    \
		return 0;                                                       \
	}

#endif
#endif
