/* Registers at a kprobe, as far as function arguments and results need them. */
#ifndef UNIXSOCK_ASM_PTRACE_H
#define UNIXSOCK_ASM_PTRACE_H
#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#define REG_ARG1(ctx) ((ctx)->di)
#define REG_ARG2(ctx) ((ctx)->si)
#define REG_ARG3(ctx) ((ctx)->dx)
#define REG_ARG4(ctx) ((ctx)->cx)
#define REG_RESULT(ctx) ((ctx)->ax)
/* Where a call's return address lies: at its entry, and once it was taken from there. */
#define REG_RETURN_PLACE(ctx) ((ctx)->sp)
#define REG_PLACE_AT_RETURN(ctx) ((ctx)->sp - 8)
#elif defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
struct pt_regs {
	unsigned long regs[31], sp, pc, pstate;
};
#define REG_ARG1(ctx) ((ctx)->regs[0])
#define REG_ARG2(ctx) ((ctx)->regs[1])
#define REG_ARG3(ctx) ((ctx)->regs[2])
#define REG_ARG4(ctx) ((ctx)->regs[3])
#define REG_RESULT(ctx) ((ctx)->regs[0])
/* What tells nested calls apart: the stack is the same at the entry and after the return. */
#define REG_RETURN_PLACE(ctx) ((ctx)->sp)
#define REG_PLACE_AT_RETURN(ctx) ((ctx)->sp)
#else
#error "kprobe registers of this architecture are not known yet"
#endif
#endif
