/* tests/golden/schedules.c: sigmas, timestep densities, loss weights.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flux/sample/sampler.h"
#include "flux/train/schedule.h"
#include "tests/golden/parity.h"

static const double BOUND = 1e-6;
/* How the golden data were drawn: data/golden/README.md. */
static const double LOGIT_MEAN = 0, LOGIT_STD = 1, MODE_SCALE = 1.29;
static const float FIRST_SIGMA = 0.02f, LAST_SIGMA = 0.98f;

static gboolean
scheme_of (const char *name, FluxWeightingScheme *scheme)
{
  static const char *const names[] = {[FLUX_WEIGHTING_NONE] = "none",
      [FLUX_WEIGHTING_LOGIT_NORMAL] = "logit_normal",
      [FLUX_WEIGHTING_MODE] = "mode",
      [FLUX_WEIGHTING_SIGMA_SQRT] = "sigma_sqrt",
      [FLUX_WEIGHTING_COSMAP] = "cosmap"};

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    if (strcmp (name, names[i]) != 0)
      continue;
    *scheme = (FluxWeightingScheme)i;
    return TRUE;
  }
  return FALSE;
}

/* ---- density.SCHEME ---- */

static void
compare_density (Parity *p, const char *name)
{
  g_autofree char *group = g_strdup_printf ("density.%s", name);
  gsize n = 0;
  g_autofree float *want = parity_floats (p, &n, "%s", group);
  g_autofree float *got = g_new (float, n + 1);
  FluxWeightingScheme scheme;
  fx_torch_rng rng;

  if (want == NULL || !scheme_of (name, &scheme)) {
    parity_skip (p, group, "no weighting scheme has this name");
    return;
  }
  fx_torch_seed (&rng, parity_seed (p));
  if (scheme == FLUX_WEIGHTING_LOGIT_NORMAL)
    fx_torch_randn (&rng, got, FX_F32, n);
  else
    fx_torch_rand (&rng, got, n);
  for (gsize i = 0; i < n; i++)
    got[i] =
        (float)flux_density (scheme, (double)got[i], LOGIT_MEAN, LOGIT_STD, MODE_SCALE);
  parity_compare (p, group, got, want, n, BOUND);
}

/* ---- weighting.SCHEME ---- */

/* torch.linspace in fp32: from both ends to the middle. */
static float
linspace (float first, float last, gsize n, gsize i)
{
  float step = (last - first) / (float)(n - 1);

  return i < n / 2 ? first + step * (float)i : last - step * (float)(n - 1 - i);
}

static void
compare_weighting (Parity *p, const char *name)
{
  g_autofree char *group = g_strdup_printf ("weighting.%s", name);
  gsize n = 0;
  g_autofree float *want = parity_floats (p, &n, "%s", group);
  g_autofree float *got = g_new (float, n + 1);
  FluxWeightingScheme scheme;

  if (want == NULL || n < 2 || !scheme_of (name, &scheme)) {
    parity_skip (p, group, "no weighting scheme has this name");
    return;
  }
  for (gsize i = 0; i < n; i++)
    got[i] = (float)flux_loss_weight (
        scheme, (double)linspace (FIRST_SIGMA, LAST_SIGMA, n, i));
  parity_compare (p, group, got, want, n, BOUND);
}

/* ---- sched.HxWxN ---- */

static void
compare_sigmas (Parity *p, const FluxScheduler *s, int cell, const char *name)
{
  g_autofree char *group = g_strdup_printf ("sched.%s", name);
  g_autofree char *times = g_strdup_printf ("sched.%s.timesteps", name);
  g_autofree char *sigmas_name = g_strdup_printf ("sched.%s.sigmas", name);
  int height = 0, width = 0, steps = 0;
  gsize n_sigmas = 0, n_timesteps = 0;
  g_autofree float *sigmas = parity_floats (p, &n_sigmas, "%s", sigmas_name);
  g_autofree float *timesteps = parity_floats (p, &n_timesteps, "%s", times);
  g_autofree float *got_sigmas = NULL, *got_timesteps = NULL;

  if (sscanf (name, "%dx%dx%d", &height, &width, &steps) != 3 || sigmas == NULL ||
      timesteps == NULL || steps < 1 || n_timesteps != (gsize)steps ||
      n_sigmas != (gsize)steps + 1) {
    parity_skip (p, group, "its name and lengths do not go together");
    return;
  }
  got_sigmas = g_new (float, n_sigmas);
  got_timesteps = g_new (float, n_timesteps);
  flux_scheduler_sigmas (
      s, steps, (height / cell) * (width / cell), got_sigmas, got_timesteps);
  parity_compare (p, sigmas_name, got_sigmas, sigmas, n_sigmas, BOUND);
  parity_compare (p, times, got_timesteps, timesteps, n_timesteps, BOUND);
}

void
parity_schedules (Parity *p)
{
  g_auto (GStrv) densities = parity_indices (p, "density.");
  g_auto (GStrv) weightings = parity_indices (p, "weighting.");
  g_auto (GStrv) sizes = parity_indices (p, "sched.");
  g_autoptr (GError) error = NULL;
  FluxVaeInfo vae = {.downscale = 8};
  FluxScheduler scheduler;

  for (guint i = 0; densities[i] != NULL; i++)
    compare_density (p, densities[i]);
  for (guint i = 0; weightings[i] != NULL; i++)
    compare_weighting (p, weightings[i]);
  if (sizes[0] == NULL)
    return;
  if (!flux_scheduler_read (p->model_dir, &scheduler, &error)) {
    parity_mark (p, "sched.");
    parity_fail (p, "sched", &error);
    return;
  }
  /* A token is 2 x 2 latent cells. */
  flux_vae_read_info (p->model_dir, &vae, NULL);
  for (guint i = 0; sizes[i] != NULL; i++)
    compare_sigmas (p, &scheduler, 2 * vae.downscale, sizes[i]);
}
