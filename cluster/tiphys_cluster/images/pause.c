/* The process that holds a pod's namespaces: waits, reaps what is left to it, ends on SIGTERM or SIGINT.
 *
 * No C library, so that the program is under a kilobyte. The kernel's own forms of the calls are used, which is why each
 * architecture has its few lines below. */

#define SIG_INT 2
#define SIG_TERM 15
#define SIG_CHLD 17
#define SA_NOCLDSTOP 1ul
#define SA_RESTORER 0x04000000ul
#define WNOHANG 1

#if defined(__x86_64__)
enum { NR_RT_SIGACTION = 13, NR_EXIT = 60, NR_WAIT4 = 61, NR_PPOLL = 271 };

static long call(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = 0;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}

/* x86-64 wants the caller to supply the return from a signal handler: rt_sigreturn. */
__attribute__((naked)) static void restorer(void) { __asm__("mov $15, %eax; syscall"); }
#define FLAGS SA_RESTORER
#elif defined(__aarch64__)
enum { NR_RT_SIGACTION = 134, NR_EXIT = 93, NR_WAIT4 = 260, NR_PPOLL = 73 };

static long call(long number, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = 0;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}

static void (*const restorer)(void) = 0;
#define FLAGS 0ul
#else
#error "pause: no system calls written for this architecture"
#endif

struct action {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};

static void end(int signal) {
  (void)signal;
  call(NR_EXIT, 0, 0, 0, 0);
}

static void reap(int signal) {
  (void)signal;
  while (call(NR_WAIT4, -1, 0, WNOHANG, 0) > 0) {
  }
}

static void on(int signal, void (*handler)(int), unsigned long flags) {
  struct action action = {handler, FLAGS | flags, restorer, 0};
  call(NR_RT_SIGACTION, signal, (long)&action, 0, sizeof action.mask);
}

#if defined(__x86_64__)
__attribute__((force_align_arg_pointer))
#endif
void _start(void) {
  on(SIG_INT, end, 0);
  on(SIG_TERM, end, 0);
  on(SIG_CHLD, reap, SA_NOCLDSTOP);
  for (;;) {
    call(NR_PPOLL, 0, 0, 0, 0);
  }
}
