/* tests/flux/write-adapter.c: an adapter as flux_lora_write() writes it, and what the
 * transformer computes with it. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *     write-adapter MODEL_DIR TARGETS RANK ALPHA ADAPTER_FILE OUTPUT_FILE [kohya|comfy]
 *
 * Run by tests/reference/check_adapters.py, which has diffusers load and repeat it. */
#include <stdio.h>
#include <stdlib.h>

#include "transformer-common.h"

enum { HEIGHT = 4, WIDTH = 6, TEXT = 8 };

static gboolean
write_output (FluxTransformer *t, FluxLora *lora, const char *path, GError **error)
{
  const FluxConfig *c = flux_transformer_get_config (t);
  TestMicro m;
  g_autofree float *out = g_new (float, HEIGHT *WIDTH *(gsize)c->out_channels);
  g_autoptr (FluxRun) run =
      flux_run_new (t, FLUX_RUN_FORWARD, TEXT, HEIGHT * WIDTH, 1, &lora, 1, error);
  gboolean ok;

  test_micro_init (&m, c, 1, HEIGHT, WIDTH, TEXT);
  ok = run != NULL && flux_run_forward (run, &m.micro.in, out, error);
  if (ok) {
    const FluxTensorSource sources[] = {
        {"latents", FX_F32, 3, {1, HEIGHT * WIDTH, c->in_channels}, m.latents},
        {"prompt_embeds", FX_F32, 3, {1, TEXT, c->joint_attention_dim}, m.prompt_embeds},
        {"pooled", FX_F32, 2, {1, c->pooled_projection_dim}, m.pooled},
        {"timestep", FX_F32, 1, {1}, &m.micro.in.timestep},
        {"out", FX_F32, 3, {1, HEIGHT * WIDTH, c->out_channels}, out}};
    ok = flux_safetensors_write (path, sources, G_N_ELEMENTS (sources), NULL, error);
  }
  test_micro_clear (&m);
  return ok;
}

int
main (int argc, char **argv)
{
  fx_backend *b = test_backend ();
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTransformer) t = NULL;
  g_autoptr (FluxLora) lora = NULL;
  g_autofree float *values = NULL;
  FluxLoraFormat format = FLUX_LORA_DIFFUSERS;
  gsize n;

  if (argc < 7) {
    fprintf (stderr, "usage: %s MODEL_DIR TARGETS RANK ALPHA ADAPTER OUTPUT [FORMAT]\n",
        argv[0]);
    return 2;
  }
  t = test_load (argv[1], b, FX_Q_NONE);
  lora = flux_lora_new (flux_transformer_get_config (t), b, atoi (argv[3]),
      (float)atof (argv[4]), argv[2], FALSE, &error);
  g_assert_no_error (error);
  n = flux_lora_n_flat (lora);
  values = test_floats (9, n, 0.1f);
  g_assert_cmpint (
      fx_upload (b, flux_lora_parameters (lora), values, n * sizeof (float)), ==, FX_OK);
  if (argc > 7)
    format = strcmp (argv[7], "kohya") == 0 ? FLUX_LORA_KOHYA : FLUX_LORA_COMFY;
  if (!flux_lora_write (lora, argv[5], format, &error) ||
      !write_output (t, lora, argv[6], &error)) {
    fprintf (stderr, "%s: %s\n", argv[0], error->message);
    return 1;
  }
  g_clear_pointer (&lora, flux_lora_free);
  g_clear_pointer (&t, flux_transformer_unref);
  fx_backend_free (b);
  return 0;
}
