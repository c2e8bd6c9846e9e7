/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The start of the CPU backend: threads, and the ops of the best instruction set. */
#include "cpu.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#undef fx_cpu_ops
extern const fx_ops fx_cpu_ops_base;
#ifdef FX_HAVE_X86_ISAS
extern const fx_ops fx_cpu_ops_avx2, fx_cpu_ops_avx512;

static bool
has_avx2 (void)
{
  return __builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma") &&
         __builtin_cpu_supports ("bmi") && __builtin_cpu_supports ("bmi2");
}

static bool
has_avx512 (void)
{
  return has_avx2 () && __builtin_cpu_supports ("avx512f") &&
         __builtin_cpu_supports ("avx512bw") && __builtin_cpu_supports ("avx512cd") &&
         __builtin_cpu_supports ("avx512dq") && __builtin_cpu_supports ("avx512vl");
}
#endif

/* isa NULL: the best. */
static const fx_ops *
find_ops (const char *isa)
{
#ifdef FX_HAVE_X86_ISAS
  __builtin_cpu_init ();
  if ((isa == NULL || strcmp (isa, "avx512") == 0) && has_avx512 ())
    return &fx_cpu_ops_avx512;
  if ((isa == NULL || strcmp (isa, "avx2") == 0) && has_avx2 ())
    return &fx_cpu_ops_avx2;
#endif
  if (isa == NULL || strcmp (isa, "base") == 0)
    return &fx_cpu_ops_base;
  return NULL;
}

/* Cores this process may run on. */
static int
count_cores (void)
{
  cpu_set_t set;

  if (sched_getaffinity (0, sizeof set, &set) != 0)
    return 1;
  return CPU_COUNT (&set) < 1 ? 1 : CPU_COUNT (&set);
}

fx_backend *
fx_cpu_new_isa (int threads, const char *isa)
{
  const fx_ops *ops = find_ops (isa);
  fx_cpu *cpu;

  if (ops == NULL) {
    fx_error (FX_ERR_UNSUPPORTED, "cpu: this machine has no %s",
        isa == NULL ? "instruction set" : isa);
    return NULL;
  }
  cpu = calloc (1, sizeof *cpu);
  if (cpu == NULL)
    goto no_memory;
  cpu->base.ops = ops;
  cpu->base.name = "cpu";
  cpu->base.compute = FX_F32;
  cpu->base.has_fp8 = true;
  cpu->threads = threads < 1 ? count_cores () : threads;
  cpu->pool = fx_pool_new (cpu->threads);
  cpu->scratch = calloc ((size_t)cpu->threads, sizeof *cpu->scratch);
  cpu->notes = calloc ((size_t)cpu->threads, sizeof *cpu->notes);
  if (cpu->pool == NULL || cpu->scratch == NULL || cpu->notes == NULL) {
    fx_cpu_destroy (&cpu->base);
    goto no_memory;
  }
  return &cpu->base;

no_memory:
  fx_error (FX_ERR_MEMORY, "cpu: out of memory");
  return NULL;
}

fx_backend *
fx_cpu_new (int threads)
{
  return fx_cpu_new_isa (threads, NULL);
}
