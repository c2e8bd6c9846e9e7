/* tests/flux/test-plan.c: memory is known before anything is allocated.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transformer-common.h"

enum { DEV_TEXT = 77, DEV_IMAGE = 512 / 16 * 768 / 16 };

/* Sum of the second column of a table, in MiB. */
static double
sum_of (const char *table)
{
  g_auto (GStrv) lines = g_strsplit (table, "\n", 0);
  double sum = 0;

  for (guint i = 0; lines[i] != NULL && *lines[i] != '\0'; i++) {
    const char *number = strrchr (lines[i], ' ');
    g_assert_nonnull (number);
    sum += g_ascii_strtod (number + 1, NULL);
  }
  return sum;
}

static double
mib (gsize bytes)
{
  return (double)bytes / (1 << 20);
}

static void
test_flux_dev_has_its_parameters (void)
{
  fx_backend *b = fx_plan_new (FX_BF16);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxLora) lora = NULL;
  FluxConfig c;

  flux_config_init_dev (&c);
  g_assert_cmpint (flux_config_n_parameters (&c), ==, G_GINT64_CONSTANT (11901408320));
  lora = flux_lora_new (&c, b, 4, 4, "attention", TRUE, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (flux_lora_n_parameters (lora), ==, 4669440);
  g_clear_pointer (&lora, flux_lora_free);
  fx_backend_free (b);
}

/* 4.5 bits a weight in 504 layers; biases and norms in fp32. */
static void
test_weights_of_flux_dev (void)
{
  fx_backend *b = fx_plan_new (FX_BF16);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTransformer) t = NULL;
  g_autofree char *table = NULL;
  const gint64 linear = G_GINT64_CONSTANT (11898322944);
  const double bytes = (double)linear * 4.5 / 8 + (3065920 + 19456) * 4.0;
  FluxConfig c;

  flux_config_init_dev (&c);
  t = flux_transformer_new_planned (&c, b, FX_Q_NF4, FX_HOME_DEVICE, &error);
  g_assert_no_error (error);
  table = flux_transformer_describe (t);
  g_test_message ("%s", table);
  /* Up to 255 bytes of padding for each buffer. */
  g_assert_cmpfloat ((double)flux_transformer_get_bytes (t), >=, bytes);
  g_assert_cmpfloat (
      (double)flux_transformer_get_bytes (t), <=, bytes + 256.0 * (3 * 504 + 4 * 57));
  g_assert_cmpfloat_with_epsilon (
      sum_of (table), mib (flux_transformer_get_bytes (t)), 0.05);
  g_clear_pointer (&t, flux_transformer_unref);
  fx_backend_free (b);
}

static FluxRun *
plan_dev (FluxTransformer *t, FluxLora *lora, FluxRunMode mode, int samples)
{
  g_autoptr (GError) error = NULL;
  FluxRun *run = flux_run_new (t, mode, DEV_TEXT, DEV_IMAGE, samples, &lora, 1, &error);

  g_assert_no_error (error);
  return run;
}

/* A whole window of four samples of FLUX.1-dev's size: the arenas refuse what was not
 * planned, and the ops matrices whose types do not go together. Returns the bytes of the
 * last mode. */
static gsize
check_step (fx_dtype compute)
{
  static const FluxRunMode modes[] = {FLUX_RUN_RECOMPUTE, FLUX_RUN_STORE};
  fx_backend *b = fx_plan_new (compute);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTransformer) t = NULL;
  g_autoptr (FluxLora) lora = NULL;
  TestMicro micro;
  FluxMicro micros[4];
  double losses[4];
  FluxConfig c;
  gsize bytes = 0;

  flux_config_init_dev (&c);
  t = flux_transformer_new_planned (&c, b, FX_Q_NF4, FX_HOME_DEVICE, &error);
  g_assert_no_error (error);
  lora = flux_lora_new (&c, b, 4, 4, "attention", TRUE, &error);
  test_micro_init (&micro, &c, 0, 512 / 16, 768 / 16, DEV_TEXT);
  for (int i = 0; i < 4; i++)
    micros[i] = micro.micro;
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++) {
    g_autoptr (FluxRun) run = plan_dev (t, lora, modes[i], 4);
    g_autofree char *table = flux_run_describe (run);
    g_assert_cmpfloat_with_epsilon (sum_of (table), mib (flux_run_get_bytes (run)), 0.2);
    g_assert_true (flux_run_gradients (run, micros, 4, 0.25f, TRUE, losses, &error));
    g_assert_true (flux_run_gradients (run, micros, 4, 0.25f, FALSE, losses, &error));
    bytes = flux_run_get_bytes (run);
  }
  test_micro_clear (&micro);
  g_clear_pointer (&t, flux_transformer_unref);
  g_clear_pointer (&lora, flux_lora_free);
  fx_backend_free (b);
  return bytes;
}

/* In fp16 the residual streams are fp32: 57 inputs, 19 between attention and MLP, and a
 * gradient for each sample. */
static void
test_a_step_takes_what_was_planned (void)
{
  const gsize more = (gsize)4 * (DEV_TEXT + DEV_IMAGE) * 3072 * 2;
  gsize half = check_step (FX_F16), brain = check_step (FX_BF16);

  g_assert_cmpuint (half - brain, >, (57 + 19) * more);
  g_assert_cmpuint (half - brain, <, (57 + 19 + 4) * more);
}

/* More is kept, more is taken: forward, recomputed, stored; one sample, four. */
static void
test_the_ladder_is_in_order (void)
{
  fx_backend *b = fx_plan_new (FX_BF16);
  g_autoptr (GError) error = NULL;
  g_autoptr (FluxTransformer) t = NULL;
  g_autoptr (FluxLora) lora = NULL;
  gsize bytes[3], checkpoint;
  FluxConfig c;

  flux_config_init_dev (&c);
  t = flux_transformer_new_planned (&c, b, FX_Q_NF4_DOUBLE, FX_HOME_DEVICE, &error);
  lora = flux_lora_new (&c, b, 4, 4, "attention", TRUE, &error);
  g_assert_no_error (error);
  for (int i = 0; i < 3; i++) {
    g_autoptr (FluxRun) run = plan_dev (t, lora, (FluxRunMode)i, 1);
    bytes[i] = flux_run_get_bytes (run);
  }
  g_assert_cmpuint (bytes[FLUX_RUN_FORWARD], <, bytes[FLUX_RUN_RECOMPUTE]);
  g_assert_cmpuint (bytes[FLUX_RUN_RECOMPUTE], <, bytes[FLUX_RUN_STORE]);
  /* Recomputation keeps one input a block: 57 of 9.45 MiB. */
  checkpoint = (DEV_TEXT + DEV_IMAGE) * 3072 * 2;
  g_assert_cmpuint (
      bytes[FLUX_RUN_RECOMPUTE] - bytes[FLUX_RUN_FORWARD], >, 56 * checkpoint);
  g_assert_cmpuint (bytes[FLUX_RUN_RECOMPUTE], <, 57 * checkpoint + (900 << 20));
  g_clear_pointer (&t, flux_transformer_unref);
  g_clear_pointer (&lora, flux_lora_free);
  fx_backend_free (b);
}

/* The plan of a small model is, to the byte, what the CPU then takes. */
static void
test_plan_equals_what_is_taken (void)
{
  static const fx_qtype qtypes[] = {FX_Q_NONE, FX_Q_NF4};
  g_autofree char *dir = test_tiny_dir ();
  fx_backend *plan = fx_plan_new (FX_F32), *cpu = test_backend ();
  g_autoptr (GError) error = NULL;

  for (guint q = 0; q < G_N_ELEMENTS (qtypes); q++) {
    g_autoptr (FluxTransformer) loaded = test_load (dir, cpu, qtypes[q]);
    g_autoptr (FluxTransformer) planned = flux_transformer_new_planned (
        flux_transformer_get_config (loaded), plan, qtypes[q], FX_HOME_DEVICE, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (
        flux_transformer_get_bytes (planned), ==, flux_transformer_get_bytes (loaded));
    for (int mode = 0; mode < 3; mode++) {
      g_autoptr (FluxLora) lora = test_adapter (loaded, 1, 4, "attention", TRUE);
      g_autoptr (FluxRun) real =
          flux_run_new (loaded, (FluxRunMode)mode, 32, 64, 2, &lora, 1, &error);
      g_autoptr (FluxRun) on_plan =
          flux_run_new (planned, (FluxRunMode)mode, 32, 64, 2, &lora, 1, &error);
      g_assert_no_error (error);
      g_assert_cmpuint (flux_run_get_bytes (real), ==, flux_run_get_bytes (on_plan));
    }
  }
  fx_backend_free (plan);
  fx_backend_free (cpu);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/plan/flux-dev-has-its-parameters", test_flux_dev_has_its_parameters);
  g_test_add_func ("/plan/weights-of-flux-dev", test_weights_of_flux_dev);
  g_test_add_func (
      "/plan/a-step-takes-what-was-planned", test_a_step_takes_what_was_planned);
  g_test_add_func ("/plan/the-ladder-is-in-order", test_the_ladder_is_in_order);
  g_test_add_func ("/plan/plan-equals-what-is-taken", test_plan_equals_what_is_taken);
  return g_test_run ();
}
