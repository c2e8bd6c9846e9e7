/* flux/sample/scheduler.c: flow-match Euler's sigmas. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * diffusers schedulers/scheduling_flow_match_euler_discrete.py set_timesteps(), and
 * pipelines/flux/pipeline_flux.py calculate_shift(). Arithmetic is in the types that
 * numpy uses there (linspace in fp64, the rest in fp32), so that equal seeds give equal
 * pictures. */
#include "flux/sample/sampler.h"

#include <math.h>

#include "flux/error.h"
#include "flux/files/config-json.h"

static void
scheduler_defaults (FluxScheduler *s)
{
  s->use_dynamic_shifting = FALSE;
  s->shift = 1.0;
  s->base_shift = 0.5;
  s->max_shift = 1.15;
  s->base_image_seq_len = 256;
  s->max_image_seq_len = 4096;
  s->num_train_timesteps = 1000;
}

/* Variants that would give other pictures than diffusers does if they were ignored. */
static gboolean
check_variants (FluxConfigJson *json, const char *path, GError **error)
{
  static const char *const switches[] = {"use_karras_sigmas", "use_exponential_sigmas",
      "use_beta_sigmas", "invert_sigmas", "stochastic_sampling", "use_flow_sigmas"};
  const char *bad = NULL, *type;
  double terminal;

  for (guint i = 0; i < G_N_ELEMENTS (switches); i++) {
    gboolean on = FALSE;

    if (!flux_config_json_has (json, switches[i]))
      continue;
    if (!flux_config_json_bool (json, switches[i], &on, error))
      return FALSE;
    if (on)
      bad = switches[i];
  }
  if (flux_config_json_has (json, "shift_terminal")) {
    if (!flux_config_json_number (json, "shift_terminal", -1, 1, &terminal, error))
      return FALSE;
    if (terminal != 0)
      bad = "shift_terminal";
  }
  if (flux_config_json_has (json, "time_shift_type")) {
    type = flux_config_json_string (json, "time_shift_type", error);
    if (type == NULL)
      return FALSE;
    if (!g_str_equal (type, "exponential"))
      bad = "time_shift_type";
  }
  if (bad == NULL)
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "'%s' sets \"%s\" to a variant that the sampler does not have: use a FLUX.1 "
      "scheduler.",
      path, bad);
  return FALSE;
}

static gboolean
read_numbers (FluxConfigJson *json, FluxScheduler *s, GError **error)
{
  struct {
    const char *key;
    double min, max, *value;
  } numbers[] = {{"shift", 1e-3, 1e3, &s->shift}, {"base_shift", -20, 20, &s->base_shift},
      {"max_shift", -20, 20, &s->max_shift}};
  struct {
    const char *key;
    int *value;
  } ints[] = {{"base_image_seq_len", &s->base_image_seq_len},
      {"max_image_seq_len", &s->max_image_seq_len},
      {"num_train_timesteps", &s->num_train_timesteps}};

  for (guint i = 0; i < G_N_ELEMENTS (numbers); i++)
    if (flux_config_json_has (json, numbers[i].key) &&
        !flux_config_json_number (json, numbers[i].key, numbers[i].min, numbers[i].max,
            numbers[i].value, error))
      return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (ints); i++)
    if (flux_config_json_has (json, ints[i].key) &&
        !flux_config_json_int (json, ints[i].key, 1, 1 << 24, ints[i].value, error))
      return FALSE;
  return !flux_config_json_has (json, "use_dynamic_shifting") ||
         flux_config_json_bool (
             json, "use_dynamic_shifting", &s->use_dynamic_shifting, error);
}

gboolean
flux_scheduler_read (const char *dir, FluxScheduler *s, GError **error)
{
  g_autofree char *path = NULL;
  g_autoptr (FluxConfigJson) json = NULL;

  scheduler_defaults (s);
  path = g_build_filename (dir, "scheduler", "scheduler_config.json", NULL);
  json = flux_config_json_read (path, error);
  return json != NULL && check_variants (json, path, error) &&
         read_numbers (json, s, error);
}

static double
dynamic_mu (const FluxScheduler *s, int image_tokens)
{
  double m, b;

  if (s->max_image_seq_len == s->base_image_seq_len)
    return s->base_shift;
  m = (s->max_shift - s->base_shift) /
      (double)(s->max_image_seq_len - s->base_image_seq_len);
  b = s->base_shift - m * s->base_image_seq_len;
  return image_tokens * m + b;
}

void
flux_scheduler_sigmas (
    const FluxScheduler *s, int steps, int image_tokens, float *sigmas, float *timesteps)
{
  double stop = 1.0 / steps;
  double delta = steps > 1 ? (stop - 1.0) / (steps - 1) : 0.0;
  float e = (float)exp (dynamic_mu (s, image_tokens));
  float shift = (float)s->shift, shift1 = (float)(s->shift - 1.0);

  for (int i = 0; i < steps; i++) {
    float t = (float)(i == steps - 1 && steps > 1 ? stop : i * delta + 1.0);

    if (s->use_dynamic_shifting)
      sigmas[i] = e / (e + (1.0f / t - 1.0f));
    else
      sigmas[i] = shift * t / (1.0f + shift1 * t);
    timesteps[i] = sigmas[i] * (float)s->num_train_timesteps;
  }
  sigmas[steps] = 0.0f;
}
