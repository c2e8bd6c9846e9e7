/* tests/golden/main.c: compares every group of a golden folder with what we compute.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     tests/parity [--device=cpu|cuda|cuda:N] [--compute=float32|bfloat16|float16]
 * MODEL_DIR GOLDEN_DIR
 *
 * One line a tensor group; exit status 1 when one is beyond its bound, 2 when there is
 * nothing to compare. */
#include "tests/golden/parity.h"

#include <stdio.h>
#include <string.h>

static int
fail (GError *error)
{
  fprintf (stderr, "parity: %s\n", error->message);
  g_error_free (error);
  return 2;
}

static gboolean
parse (int *argc, char ***argv, Parity *p, GError **error)
{
  g_autofree char *name = NULL, *compute = NULL;
  GOptionEntry entries[] = {
      {"device", 0, 0, G_OPTION_ARG_STRING, &name, "cpu, cuda or cuda:N", "DEVICE"},
      {"compute", 0, 0, G_OPTION_ARG_STRING, &compute, "float32, bfloat16 or float16",
          "DTYPE"},
      {NULL}};
  g_autoptr (GOptionContext) context = g_option_context_new ("MODEL_DIR GOLDEN_DIR");

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, argc, argv, error))
    return FALSE;
  p->device = FLUX_DEVICE_CPU;
  p->compute = g_strcmp0 (compute, "bfloat16") == 0  ? FX_BF16
               : g_strcmp0 (compute, "float16") == 0 ? FX_F16
                                                     : FX_F32;
  if (compute != NULL && p->compute == FX_F32 && strcmp (compute, "float32") != 0) {
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
        "there is no --compute=%s; use float32, bfloat16 or float16", compute);
    return FALSE;
  }
  return name == NULL || flux_device_parse (name, &p->device, error);
}

static void
compare_all (Parity *p)
{
  if (p->compute != FX_F32) {
    /* What there are bf16 figures for. */
    parity_text (p);
    parity_vae (p);
    parity_forward (p);
    parity_sample (p);
    return;
  }
  parity_rng (p);
  parity_schedules (p);
  parity_nf4 (p);
  parity_adam8 (p);
  parity_text (p);
  parity_vae (p);
  parity_forward (p);
  parity_train (p);
  parity_files (p);
  parity_sample (p);
  parity_report_unknown (p);
}

static void
report (const Parity *p)
{
  printf ("%u ok, %u FAILED, %u skipped, %u unknown tensors\n", p->n_ok, p->n_failed,
      p->n_skipped, p->n_unknown);
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  Parity p = {0};

  if (!parse (&argc, &argv, &p, &error))
    return fail (error);
  if (argc != 3) {
    fprintf (stderr,
        "usage: %s [--device=DEVICE] [--compute=DTYPE] MODEL_DIR GOLDEN_DIR\n", argv[0]);
    return 2;
  }
  p.model_dir = argv[1];
  p.golden_dir = argv[2];
  p.backend = flux_backend_new (p.device, p.compute, &error);
  if (p.backend == NULL || !parity_open (&p, &error)) {
    parity_close (&p);
    return fail (error);
  }
  p.slack = strcmp (p.backend->name, "cpu") == 0 ? 1 : 10;
  compare_all (&p);
  report (&p);
  parity_close (&p);
  return p.n_failed > 0 ? 1 : p.n_ok == 0 ? 2 : 0;
}
