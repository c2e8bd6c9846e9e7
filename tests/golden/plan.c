/* tests/golden/plan.c: the memory of a training run, planned without a model or a device.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     flux-plan [--config=DIR] [--quantization=nf4|nf4-double|int8|fp8|none] [--rank=4]
 *         [--width=512] [--height=768] [--text=77] [--samples=4] [--stored]
 *         [--forward] [--stream]
 *
 * FLUX.1-dev's own configuration unless DIR holds another. */
#include <stdio.h>
#include <string.h>

#include "flux/error.h"
#include "flux/train/optimiser.h"

typedef struct {
  char *config, *quantization;
  int rank, width, height, text, samples;
  gboolean stored, forward, stream;
} Options;

static gboolean
parse (int *argc, char ***argv, Options *o, GError **error)
{
  GOptionEntry entries[] = {
      {"config", 0, 0, G_OPTION_ARG_FILENAME, &o->config, "a model folder", "DIR"},
      {"quantization", 0, 0, G_OPTION_ARG_STRING, &o->quantization,
          "nf4, nf4-double, int8, fp8 or none", "TYPE"},
      {"rank", 0, 0, G_OPTION_ARG_INT, &o->rank, "rank of the adapter", "N"},
      {"width", 0, 0, G_OPTION_ARG_INT, &o->width, "pixels", "N"},
      {"height", 0, 0, G_OPTION_ARG_INT, &o->height, "pixels", "N"},
      {"text", 0, 0, G_OPTION_ARG_INT, &o->text, "text tokens", "N"},
      {"samples", 0, 0, G_OPTION_ARG_INT, &o->samples, "samples at once", "N"},
      {"stored", 0, 0, G_OPTION_ARG_NONE, &o->stored, "store activations", NULL},
      {"forward", 0, 0, G_OPTION_ARG_NONE, &o->forward, "sampling, not training", NULL},
      {"stream", 0, 0, G_OPTION_ARG_NONE, &o->stream,
          "the blocks' weights stay on the host (offload=stream)", NULL},
      {NULL}};
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);

  g_option_context_add_main_entries (context, entries, NULL);
  return g_option_context_parse (context, argc, argv, error);
}

static gboolean
parse_quantization (const char *name, fx_qtype *qtype, GError **error)
{
  for (int q = FX_Q_NONE; q <= FX_Q_FP8; q++) {
    if (g_strcmp0 (name, fx_qtype_name ((fx_qtype)q)) == 0) {
      *qtype = (fx_qtype)q;
      return TRUE;
    }
  }
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "There is no quantisation '%s'; use nf4, nf4-double, int8, fp8 or none.", name);
  return FALSE;
}

static void
line (const char *name, gsize bytes)
{
  printf ("%-34s %10.2f\n", name, (double)bytes / (1 << 20));
}

/* A forward pass of one sample without adapters. */
static gboolean
plan_forward (const Options *o, FluxTransformer *t, GError **error)
{
  g_autoptr (FluxRun) run = flux_run_new (
      t, FLUX_RUN_FORWARD, o->text, o->width / 16 * (o->height / 16), 1, NULL, 0, error);
  g_autofree char *buffers = NULL;

  if (run == NULL)
    return FALSE;
  buffers = flux_run_describe (run);
  printf ("%s", buffers);
  line ("sum", flux_transformer_get_bytes (t) + flux_run_get_bytes (run));
  return TRUE;
}

static gboolean
plan_training (const Options *o, FluxTransformer *t, GError **error)
{
  const FluxConfig *c = flux_transformer_get_config (t);
  fx_backend *b = flux_transformer_get_backend (t);
  g_autoptr (FluxLora) lora = NULL;
  g_autoptr (FluxAdam) adam = NULL;
  g_autoptr (FluxRun) run = NULL;
  g_autofree char *buffers = NULL;
  gsize flat;

  if ((lora = flux_lora_new (c, b, o->rank, (float)o->rank, NULL, TRUE, error)) == NULL ||
      (adam = flux_adam_new (lora, b, FLUX_OPTIMIZER_ADAMW8BIT, error)) == NULL ||
      (run = flux_run_new (t, o->stored ? FLUX_RUN_STORE : FLUX_RUN_RECOMPUTE, o->text,
           o->width / 16 * (o->height / 16), o->samples, &lora, 1, error)) == NULL)
    return FALSE;
  printf ("LoRA parameters %" G_GSIZE_FORMAT "\n", flux_lora_n_parameters (lora));
  buffers = flux_run_describe (run);
  flat = flux_lora_n_flat (lora) * sizeof (float);
  line ("LoRA: parameters", flat);
  line ("LoRA: gradients", flat);
  line ("LoRA: optimiser (AdamW 8-bit)", flux_adam_get_bytes (adam));
  printf ("%s", buffers);
  line ("sum", flux_transformer_get_bytes (t) + 2 * flat + flux_adam_get_bytes (adam) +
                   flux_run_get_bytes (run));
  return TRUE;
}

static gboolean
plan (const Options *o, const FluxConfig *c, fx_backend *b, GError **error)
{
  g_autoptr (FluxTransformer) t = NULL;
  g_autofree char *weights = NULL;
  fx_qtype qtype;

  if (!parse_quantization (o->quantization, &qtype, error) ||
      (t = flux_transformer_new_planned (
           c, b, qtype, o->stream ? FX_HOME_HOST : FX_HOME_DEVICE, error)) == NULL)
    return FALSE;
  printf ("base parameters %" G_GINT64_FORMAT "\n\n%-34s %10s\n",
      flux_config_n_parameters (c), "buffer", "MiB");
  weights = flux_transformer_describe (t);
  printf ("%s", weights);
  if (!(o->forward ? plan_forward (o, t, error) : plan_training (o, t, error)))
    return FALSE;
  if (o->stream)
    line ("and on the host", flux_transformer_get_host_bytes (t));
  return TRUE;
}

int
main (int argc, char **argv)
{
  Options o = {.rank = 4, .width = 512, .height = 768, .text = 77, .samples = 4};
  fx_backend *b = fx_plan_new (FX_BF16);
  GError *error = NULL;
  FluxConfig c;
  gboolean ok;

  o.quantization = g_strdup ("nf4");
  flux_config_init_dev (&c);
  ok = b != NULL && parse (&argc, &argv, &o, &error) &&
       (o.config == NULL || flux_config_read (o.config, &c, &error)) &&
       plan (&o, &c, b, &error);
  if (!ok)
    fprintf (stderr, "flux-plan: %s\n", error != NULL ? error->message : "out of memory");
  g_clear_error (&error);
  if (b != NULL)
    fx_backend_free (b);
  g_free (o.config);
  g_free (o.quantization);
  return ok ? 0 : 1;
}
