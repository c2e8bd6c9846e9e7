/* tests/flux/test-transformer.c: forward and gradients against diffusers and peft, with
 * adapters on every layer. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reference values: tests/reference/make_transformer.py. */
#include "transformer-common.h"
#include "golden.h"

static const double FORWARD = 2e-5, GRADIENT = 1e-4;

typedef struct {
  fx_backend *b;
  FluxTransformer *t;
  FluxSafetensors *reference;
  float *latents, *prompt_embeds, *pooled, *target;
  FluxMicro micro;
} Small;

static void
set_up (Small *s)
{
  g_autofree char *dir = test_small_dir ();
  g_autofree char *path = g_strconcat (dir, ".safetensors", NULL);
  g_autoptr (GError) error = NULL;

  s->b = test_backend ();
  s->t = test_load (dir, s->b, FX_Q_NONE);
  s->reference = flux_safetensors_open (path, &error);
  g_assert_no_error (error);
  s->latents = golden_floats (s->reference, "latents", NULL);
  s->prompt_embeds = golden_floats (s->reference, "prompt_embeds", NULL);
  s->pooled = golden_floats (s->reference, "pooled", NULL);
  s->target = golden_floats (s->reference, "target", NULL);
  /* The settings in the file's metadata. */
  s->micro = (FluxMicro){.in = {.latents = s->latents,
                             .grid_height = 3,
                             .grid_width = 5,
                             .prompt_embeds = s->prompt_embeds,
                             .text_tokens = 7,
                             .pooled = s->pooled,
                             .timestep = 0.37f,
                             .guidance = 1},
      .target = s->target,
      .weight = 1.75f};
  g_assert_cmpstr (flux_safetensors_get_metadata (s->reference, "settings"), ==,
      "{\"height\": 3, \"width\": 5, \"t\": 0.37, \"weight\": 1.75, \"rank\": 3, "
      "\"alpha\": 5}");
}

static void
tear_down (Small *s)
{
  flux_safetensors_unref (s->reference);
  flux_transformer_unref (s->t);
  fx_backend_free (s->b);
  g_free (s->latents);
  g_free (s->prompt_embeds);
  g_free (s->pooled);
  g_free (s->target);
}

/* The adapter PREFIX.transformer.* by way of a file of its own. */
static FluxLora *
load_adapter (Small *s, const char *prefix, const char *metadata, gboolean gradients)
{
  g_autofree char *start = g_strconcat (prefix, ".transformer.", NULL);
  g_autofree char *path = NULL;
  g_autoptr (GArray) sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  const char *entries[] = {"format", "pt", "lora_adapter_metadata", metadata, NULL};
  g_autoptr (GError) error = NULL;
  FluxLora *lora;
  int fd = g_file_open_tmp ("flux-XXXXXX.safetensors", &path, &error);

  g_assert_no_error (error);
  g_assert_true (g_close (fd, NULL));
  for (guint i = 0; i < flux_safetensors_get_n_tensors (s->reference); i++) {
    const FluxTensor *t = flux_safetensors_get_nth (s->reference, i);
    FluxTensorSource source = {.dtype = t->dtype,
        .n_dims = t->n_dims,
        .dims = {t->dims[0], t->dims[1]},
        .data = t->data};
    if (!g_str_has_prefix (t->name, start))
      continue;
    source.name = t->name + strlen (prefix) + 1;
    g_array_append_val (sources, source);
  }
  flux_safetensors_write (
      path, (FluxTensorSource *)(void *)sources->data, sources->len, entries, &error);
  g_assert_no_error (error);
  lora =
      flux_lora_load (flux_transformer_get_config (s->t), s->b, path, gradients, &error);
  g_assert_no_error (error);
  g_unlink (path);
  return lora;
}

static const char *const first_metadata =
    "{\"transformer.r\": 3, \"transformer.lora_alpha\": 5}";
static const char *const second_metadata =
    "{\"transformer.r\": 2, \"transformer.lora_alpha\": 2}";

static void
check_forward (Small *s, FluxLora *const *loras, guint n_loras, const char *name)
{
  gsize n;
  g_autofree float *want = golden_floats (s->reference, name, &n),
                   *got = g_new (float, n);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxRun) run =
      flux_run_new (s->t, FLUX_RUN_FORWARD, 7, 15, 1, loras, n_loras, &error);

  g_assert_no_error (error);
  flux_run_forward (run, &s->micro.in, got, &error);
  g_assert_no_error (error);
  g_assert_cmpfloat (test_relative (got, want, n), <=, FORWARD);
}

static void
test_forward_equals_diffusers (void)
{
  Small s;

  set_up (&s);
  check_forward (&s, NULL, 0, "out");
  tear_down (&s);
}

static void
test_adapter_on_every_layer_equals_peft (void)
{
  g_autoptr (FluxLora) lora = NULL;
  gsize n;
  g_autofree float *plain = NULL, *adapted = NULL;
  Small s;

  set_up (&s);
  lora = load_adapter (&s, "adapter", first_metadata, FALSE);
  check_forward (&s, &lora, 1, "adapter.out");
  /* It would not have passed without the adapter. */
  plain = golden_floats (s.reference, "out", &n);
  adapted = golden_floats (s.reference, "adapter.out", &n);
  g_assert_cmpfloat (test_relative (plain, adapted, n), >, 0.01);
  g_clear_pointer (&lora, flux_lora_free);
  tear_down (&s);
}

static void
test_two_adapters_add_up (void)
{
  FluxLora *loras[2];
  Small s;

  set_up (&s);
  loras[0] = load_adapter (&s, "adapter", first_metadata, FALSE);
  loras[1] = load_adapter (&s, "second", second_metadata, FALSE);
  flux_lora_set_multiplier (loras[0], 0.5f);
  check_forward (&s, loras, 2, "two.out");
  flux_lora_free (loras[0]);
  flux_lora_free (loras[1]);
  tear_down (&s);
}

static void
check_gradients (Small *s, FluxLora *lora)
{
  guint n, compared = 0;
  const FluxLoraTensor *tensors = flux_lora_get_tensors (lora, &n);
  g_autofree float *got =
      test_download (s->t, flux_lora_gradients (lora), flux_lora_n_flat (lora));

  for (guint i = 0; i < n; i++) {
    const FluxLoraTensor *t = &tensors[i];
    const FluxLoraSlot *slot = flux_lora_get_slot (lora, t->slot);
    g_autofree char *name = g_strdup_printf (
        "adapter.grad.transformer.%s.lora_%c.weight", slot->name, t->is_b ? 'B' : 'A');
    g_autofree float *want = golden_floats (s->reference, name, NULL);
    double error;
    if (!slot->trainable)
      continue;
    error = test_relative (got + t->offset, want, t->n_elements);
    if (!(error <= GRADIENT))
      g_test_message ("%s: %g", name, error);
    g_assert_cmpfloat (error, <=, GRADIENT);
    compared++;
  }
  /* Every layer of the blocks but their modulation. */
  g_assert_cmpuint (compared, ==, 2 * (12 + 2 * 5));
}

static void
test_gradients_of_every_layer_equal_torch (gconstpointer data)
{
  FluxRunMode mode = GPOINTER_TO_INT (data) ? FLUX_RUN_STORE : FLUX_RUN_RECOMPUTE;
  g_autoptr (FluxLora) lora = NULL;
  g_autoptr (FluxRun) run = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree float *loss = NULL;
  double got;
  Small s;

  set_up (&s);
  lora = load_adapter (&s, "adapter", first_metadata, TRUE);
  run = flux_run_new (s.t, mode, 7, 15, 1, &lora, 1, &error);
  g_assert_no_error (error);
  flux_run_gradients (run, &s.micro, 1, 1, TRUE, &got, &error);
  g_assert_no_error (error);
  loss = golden_floats (s.reference, "adapter.loss", NULL);
  g_assert_cmpfloat (fabs (got / (double)loss[0] - 1), <=, 1e-5);
  check_gradients (&s, lora);
  g_clear_pointer (&run, flux_run_free);
  g_clear_pointer (&lora, flux_lora_free);
  tear_down (&s);
}

/* Sets parameter i of the adapter and returns the loss. */
static double
loss_at (Small *s, FluxRun *run, FluxLora *lora, const float *parameters)
{
  g_autoptr (GError) error = NULL;
  double loss;

  g_assert_cmpint (fx_upload (s->b, flux_lora_parameters (lora), parameters,
                       flux_lora_n_flat (lora) * sizeof (float)),
      ==, FX_OK);
  flux_run_gradients (run, &s->micro, 1, 1, TRUE, &loss, &error);
  g_assert_no_error (error);
  return loss;
}

/* Beside an adapter that is not trained: four-point differences along a random
 * direction. */
static void
test_gradients_flow_through_a_frozen_adapter (void)
{
  FluxLora *loras[2];
  g_autoptr (FluxRun) run = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree float *direction = NULL, *start = NULL, *at = NULL, *gradient = NULL;
  static const double steps[4] = {-2, -1, 1, 2}, weights[4] = {1, -8, 8, -1};
  double slope = 0, want = 0, h = 5e-3;
  gsize n;
  Small s;

  set_up (&s);
  loras[0] = load_adapter (&s, "adapter", first_metadata, FALSE);
  loras[1] = load_adapter (&s, "second", second_metadata, TRUE);
  n = flux_lora_n_flat (loras[1]);
  run = flux_run_new (s.t, FLUX_RUN_RECOMPUTE, 7, 15, 1, loras, 2, &error);
  g_assert_no_error (error);
  start = test_download (s.t, flux_lora_parameters (loras[1]), n);
  direction = test_floats (1, n, 1);
  at = g_new (float, n);
  loss_at (&s, run, loras[1], start);
  gradient = test_download (s.t, flux_lora_gradients (loras[1]), n);
  for (gsize i = 0; i < n; i++)
    slope += (double)gradient[i] * (double)direction[i];
  for (int k = 0; k < 4; k++) {
    for (gsize i = 0; i < n; i++)
      at[i] = start[i] + (float)(steps[k] * h) * direction[i];
    want += weights[k] * loss_at (&s, run, loras[1], at);
  }
  want /= 12 * h;
  g_test_message ("slope %g, differences %g", slope, want);
  g_assert_cmpfloat (fabs (slope / want - 1), <=, 5e-3);
  flux_lora_free (loras[0]);
  flux_lora_free (loras[1]);
  g_clear_pointer (&run, flux_run_free);
  tear_down (&s);
}

/* A device without e4m3 says so before it reads a weight. */
static void
test_fp8_needs_a_device_that_has_it (void)
{
  g_autofree char *dir = test_small_dir ();
  g_autoptr (GError) error = NULL;
  fx_backend *b = test_backend ();
  FluxTransformer *t;

  b->has_fp8 = false;
  t = flux_transformer_load (dir, b, FX_Q_FP8, FX_HOME_DEVICE, NULL, NULL, NULL, &error);
  g_assert_null (t);
  g_assert_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS);
  g_assert_nonnull (strstr (error->message, "8.9"));
  g_assert_nonnull (strstr (error->message, "quantization=fp8"));
  g_clear_error (&error);
  b->has_fp8 = true;
  t = flux_transformer_load (dir, b, FX_Q_FP8, FX_HOME_DEVICE, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  flux_transformer_unref (t);
  fx_backend_free (b);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func (
      "/transformer/forward-equals-diffusers", test_forward_equals_diffusers);
  g_test_add_func ("/transformer/adapter-on-every-layer-equals-peft",
      test_adapter_on_every_layer_equals_peft);
  g_test_add_func ("/transformer/two-adapters-add-up", test_two_adapters_add_up);
  g_test_add_data_func ("/transformer/gradients-of-every-layer-equal-torch/recomputed",
      GINT_TO_POINTER (0), test_gradients_of_every_layer_equal_torch);
  g_test_add_data_func ("/transformer/gradients-of-every-layer-equal-torch/stored",
      GINT_TO_POINTER (1), test_gradients_of_every_layer_equal_torch);
  g_test_add_func (
      "/transformer/fp8-needs-a-device-that-has-it", test_fp8_needs_a_device_that_has_it);
  g_test_add_func ("/transformer/gradients-flow-through-a-frozen-adapter",
      test_gradients_flow_through_a_frozen_adapter);
  return g_test_run ();
}
